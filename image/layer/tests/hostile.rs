//! Hostile layers: each gives an error that names the entry; none panics or exceeds the limits.

mod tarball;

use layer::{ConvertError, EntryError, Limits};
use proptest::prelude::*;
use std::io::Read;
use std::path::Path;
use tarball::{BLOCK, Tarball, header, patched, record, sealed};

/// Small enough for thousands of runs.
const LIMITS: Limits = Limits {
    max_image_bytes: 32 << 20,
    max_tar_bytes: 32 << 20,
    max_inodes: 5_000,
    max_path_bytes: 1_000,
    max_zstd_window_bytes: 16 << 20,
    max_directory_xattr_bytes: 100_000,
};

fn refusal(tar: &[u8]) -> (String, EntryError) {
    match layer::hash(tar, &LIMITS) {
        Err(ConvertError::Entry { name, source }) => (name.to_string(), source),
        other => panic!("not refused as an entry: {other:?}"),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), |source| format!("{error}: {}", chain(source)))
}

#[test]
fn entries_are_refused_by_name() {
    let start = || Tarball::default().directory("dir").file("file", b"1").symlink("out", "/etc");
    let shown = |name: &str| format!("{name:?}");
    let cases = [
        (start().file("../evil", b""), "../evil", EntryError::Escapes),
        (start().file("dir/../../evil", b""), "dir/../../evil", EntryError::Escapes),
        (start().file("/../evil", b""), "/../evil", EntryError::Escapes),
        (
            start().file("file/below", b""),
            "file/below",
            EntryError::NotADirectory(layer::EntryName(b"file".to_vec())),
        ),
        (
            start().file("out/passwd", b""),
            "out/passwd",
            EntryError::NotADirectory(layer::EntryName(b"out".to_vec())),
        ),
        (start().file("dir", b""), "dir", EntryError::ReplacesDirectory),
        (start().file(".", b""), ".", EntryError::ReplacesDirectory),
        (start().directory("file"), "file", EntryError::ReplacesFile),
        (
            start().hard_link("h", "none"),
            "h",
            EntryError::NoLinkTarget(layer::EntryName(b"none".to_vec())),
        ),
        (
            start().hard_link("h", "../file"),
            "h",
            EntryError::NoLinkTarget(layer::EntryName(b"../file".to_vec())),
        ),
        (
            start().hard_link("h", "dir"),
            "h",
            EntryError::BadLinkTarget(layer::EntryName(b"dir".to_vec())),
        ),
        (
            start().hard_link("file", "file"),
            "file",
            EntryError::BadLinkTarget(layer::EntryName(b"file".to_vec())),
        ),
        (start().hard_link("dir", "file"), "dir", EntryError::ReplacesDirectory),
        (start().symlink("nowhere", ""), "nowhere", EntryError::EmptyLink),
        (start().file("dir/.wh.", b""), "dir/.wh.", EntryError::EmptyWhiteout),
        (start().file("dir/.wh...", b""), "dir/.wh...", EntryError::EmptyWhiteout),
        (start().file("dir/.wh..", b""), "dir/.wh..", EntryError::EmptyWhiteout),
        (start().file(".wh.dir", b""), ".wh.dir", EntryError::ReplacesDirectory),
        (
            start().entry(&header("huge", b'0', 0o77777777777, ""), b""),
            "huge",
            EntryError::ImageTooLarge { limit: 32 << 20 },
        ),
        (
            start().entry(&patched(header("vast", b'0', 0, ""), 124, b"\x80\0\0\0\0\x40\0\0\0\0\0\0"), b""),
            "vast",
            EntryError::FileTooLarge {
                size: 1 << 54,
                limit: 339 << 27,
            },
        ),
    ];
    for (tar, name, expected) in cases {
        assert_eq!(refusal(&tar.end()), (shown(name), expected));
    }
}

#[test]
fn a_tar_that_ends_early_names_the_entry() {
    let tar = Tarball::default().file("first", b"1").file("second", &[7; 5_000]).end();
    let cut = &tar[..5 * BLOCK];
    assert_eq!(refusal(cut), ("\"second\"".into(), EntryError::Truncated));
    let within_header = layer::hash(&tar[..2 * BLOCK + 100], &LIMITS).expect_err("half a header");
    assert_eq!(
        chain(&within_header),
        "bad tar header at byte 1024, after entry \"first\": the tar ends within a header"
    );
}

#[test]
fn bad_header_errors_name_the_offset() {
    let good = || Tarball::default().file("good", b"1");
    let mut wrong_sum = header("x", b'0', 0, "");
    wrong_sum[0] = b'y';
    let half_end = [good().0.as_slice(), &[0; BLOCK], &header("x", b'0', 0, "")].concat();
    for (tar, what) in [
        (good().entry(&wrong_sum, b"").end(), "the checksum does not match"),
        (good().entry(&sealed([b'z'; BLOCK]), b"").end(), "field size is not a number"),
        (
            good().entry(&patched(header("x", b'0', 0, ""), 100, b"rw-r--r-"), b"").end(),
            "field mode is not a number",
        ),
        (
            good().entry(&patched(header("x", b'0', 0, ""), 124, &[0xff; 12]), b"").end(),
            "the size is negative",
        ),
        (half_end, "one block of zeros is followed by other data"),
        (
            good().special(b'x', b"no record").end(),
            "malformed pax record at byte 0 of the extended header",
        ),
        (
            good().special(b'x', b"9 a=b\n").end(),
            "malformed pax record at byte 0 of the extended header",
        ),
        (
            good().special(b'x', &[record("a", b"b"), b"7 =abc\n".to_vec()].concat()).end(),
            "malformed pax record at byte 6 of the extended header",
        ),
        (
            good().special(b'x', &record("path", b"a\0b")).end(),
            "malformed pax record at byte 0 of the extended header",
        ),
        (
            good().pax(&[("uid", b"root")]).file("x", b"").end(),
            "pax record uid has no valid value",
        ),
        (
            good().pax(&[("mtime", b"1.5x")]).file("x", b"").end(),
            "pax record mtime has no valid value",
        ),
        (good().pax(&[("size", b"-1")]).file("x", b"").end(), "the size is negative"),
        (
            good().special(b'x', &vec![b'1'; (1 << 20) + 1]).end(),
            "a pax header, long name or sparse map of 1048577 bytes",
        ),
        (good().special(b'S', b"").end(), "the map of the sparse file is malformed"),
        (
            good()
                .pax(&[("GNU.sparse.map", b"0,5,3,1"), ("GNU.sparse.numblocks", b"2")])
                .file("x", b"123456")
                .end(),
            "the map of the sparse file is malformed",
        ),
        (
            good()
                .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0")])
                .file("x", b"99\n1\n")
                .end(),
            "the map of the sparse file is malformed",
        ),
    ] {
        let error = layer::hash(tar.as_slice(), &LIMITS).expect_err(what);
        // Records are merged, and their values checked, at the header that follows them.
        let places = ["1024", "2048"].map(|byte| format!("bad tar header at byte {byte}, after entry \"good\": "));
        assert!(places.iter().any(|place| chain(&error).starts_with(place)), "{}", chain(&error));
        assert!(chain(&error).ends_with(what), "{} instead of {what}", chain(&error));
    }
}

#[test]
fn sparse_data_must_match_the_map() {
    for (content, size) in [(b"12345".as_slice(), b"5".as_slice()), (b"123", b"99")] {
        let tar = Tarball::default()
            .pax(&[
                ("GNU.sparse.map", b"0,4"),
                ("GNU.sparse.numblocks", b"1"),
                ("GNU.sparse.size", size),
            ])
            .file("s", content);
        assert_eq!(refusal(&tar.end()), ("\"s\"".into(), EntryError::SparseData));
    }
}

#[test]
fn limits_hold() {
    let many = (0..5_100).fold(Tarball::default(), |tar, index| tar.file(&format!("f{index}"), b""));
    assert_eq!(refusal(&many.end()).1, EntryError::TooManyInodes { limit: 5_000 });

    // Names without an inode of their own use memory too.
    let linked = (0..5_100).fold(Tarball::default().file("f", b""), |tar, index| {
        tar.hard_link(&format!("l{index}"), "f")
    });
    assert_eq!(refusal(&linked.end()).1, EntryError::TooManyInodes { limit: 5_000 });

    let deep = Tarball::default().special(b'L', "d/".repeat(600).as_bytes()).file("x", b"");
    assert_eq!(refusal(&deep.end()).1, EntryError::PathTooLong { limit: 1_000 });

    let hole: [(&str, &[u8]); 3] = [
        ("GNU.sparse.map", b"0,1"),
        ("GNU.sparse.numblocks", b"1"),
        ("GNU.sparse.size", b"40000000000"),
    ];
    assert_eq!(
        refusal(&Tarball::default().pax(&hole).file("bomb", b"1").end()).1,
        EntryError::ImageTooLarge { limit: 32 << 20 }
    );

    let attribute: [(&str, &[u8]); 1] = [("SCHILY.xattr.user.a", &[b'v'; 4_000])];
    let heavy = (0..30).fold(Tarball::default(), |tar, index| tar.pax(&attribute).directory(&format!("d{index}")));
    assert_eq!(refusal(&heavy.end()).1, EntryError::TooManyXattrs { limit: 100_000 });

    let large: [(&str, &[u8]); 1] = [("SCHILY.xattr.user.a", &[b'v'; 4_100])];
    assert!(matches!(
        refusal(&Tarball::default().pax(&large).file("x", b"").end()).1,
        EntryError::XattrTooLarge(_)
    ));

    let long = Tarball::default().file("a", b"").end();
    let error = layer::hash(long.chain(std::io::repeat(0)), &LIMITS).expect_err("an endless tar");
    assert!(
        matches!(error, ConvertError::TarTooLong { limit, .. } if limit == 32 << 20),
        "{error:?}"
    );
}

#[test]
fn links_to_one_inode_are_limited_as_in_ext4() {
    let tar = (0..65_000).fold(Tarball::default().file("f", b""), |tar, index| {
        tar.hard_link(&format!("l{index}"), "f")
    });
    let limits = Limits {
        max_tar_bytes: 1 << 30,
        max_inodes: 100_000,
        ..LIMITS
    };
    let refused = layer::hash(tar.end().as_slice(), &limits).expect_err("65001 links");
    assert!(
        matches!(
            refused,
            ConvertError::Entry {
                source: EntryError::TooManyLinks,
                ..
            }
        ),
        "{refused:?}"
    );
}

/// The small vectors, decompressed: they contain every kind of entry.
fn seeds() -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let names = [
        "gnu-format",
        "xattrs",
        "whiteouts",
        "symlinks",
        "devices",
        "long-name",
        "times",
        "dirs-implied",
        "replaced-entry",
        "ids",
    ];
    let read = |name: &&str| {
        let file = std::fs::File::open(directory.join(format!("p-{name}.tar.gz"))).expect("a vector of the repository");
        let mut tar = Vec::new();
        flate2::read::MultiGzDecoder::new(file).read_to_end(&mut tar).expect("gzip");
        tar
    };
    names.iter().map(read).collect()
}

/// Changes bytes and corrects the headers' checksums, so that the parser reaches the change.
fn mutate(mut tar: Vec<u8>, edits: &[(usize, u8)], cut: Option<usize>) -> Vec<u8> {
    let headers: Vec<usize> = (0..tar.len() / BLOCK)
        .map(|index| index * BLOCK)
        .filter(|at| &tar[at + 257..at + 262] == b"ustar")
        .collect();
    for (at, byte) in edits {
        let at = at % tar.len();
        tar[at] = *byte;
    }
    for at in headers {
        let block: [u8; BLOCK] = tar[at..at + BLOCK].try_into().expect("one block");
        tar[at..at + BLOCK].copy_from_slice(&sealed(block));
    }
    tar.truncate(cut.unwrap_or(usize::MAX));
    tar
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_tar_makes_a_panic(
        seed in 0usize..10,
        edits in proptest::collection::vec((any::<usize>(), prop_oneof![any::<u8>(), Just(b'0'), Just(b'7'), Just(b'/'), Just(b'.'), Just(0)]), 0..12),
        cut in proptest::option::of(0usize..8_000),
    ) {
        let tar = mutate(seeds().swap_remove(seed), &edits, cut);
        let _ = layer::hash(tar.as_slice(), &LIMITS);
    }

    #[test]
    fn no_stream_makes_a_panic(magic in prop_oneof![Just(vec![0x1f, 0x8b, 8]), Just(vec![0x28, 0xb5, 0x2f, 0xfd]), Just(vec![])], rest: Vec<u8>) {
        let _ = layer::hash([magic, rest].concat().as_slice(), &LIMITS);
    }
}
