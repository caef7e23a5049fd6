//! What a stream that is no tar is instead, by its first bytes: for messages only.

/// First bytes and names of what people compress or pack files with. OCI knows gzip and zstd (image specification, layer.md).
const FORMATS: [(&[u8], &str); 15] = [
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"\x5d\0\0", "lzma"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"LZIP", "lzip"),
    (b"\x89LZO\0", "lzop"),
    (b"\x1f\x9d", "compress"),
    (b"\x1f\xa0", "compress"),
    (b"\xff\x06\0\0sNaPpY", "snappy"),
    (b"PK\x03\x04", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"hsqs", "squashfs"),
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
];

/// The name of the format that `start` begins with.
pub(super) fn format(start: &[u8]) -> Option<&'static str> {
    let found = FORMATS.iter().find(|(magic, _)| start.starts_with(magic));
    found.map(|(_, name)| *name)
}
