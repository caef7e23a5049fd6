//! The same layer in every compression and tar format gives the same image.

mod tarball;

use flate2::{Compression, write::GzEncoder};
use layer::{BLOCK_BYTES, ConvertError, Converted, Limits};
use oci::Digest;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use std::io::{Cursor, Write};
use tarball::{BLOCK, Tarball, header, patched};

fn converted(layer: &[u8]) -> (Converted, Vec<u8>) {
    let mut image = Cursor::new(Vec::new());
    let converted = layer::convert(layer, &mut image, &Limits::default()).expect("a good layer");
    assert_eq!(layer::hash(layer, &Limits::default()).expect("a good layer"), converted);
    (converted, image.into_inner())
}

fn root(layer: &[u8]) -> String {
    converted(layer).0.root_hash.to_string()
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder
        .write_all(data)
        .and_then(|()| encoder.finish())
        .expect("a vector does not fail")
}

fn zstd(data: &[u8]) -> Vec<u8> {
    compress_to_vec(data, CompressionLevel::Fastest)
}

fn sample() -> Vec<u8> {
    let noise: Vec<u8> = (0..300_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    Tarball::default()
        .directory("etc/")
        .file("etc/noise", &noise)
        .symlink("link", "etc/noise")
        .file("zeros", &[0; 100_000])
        .end()
}

#[test]
fn compression_does_not_change_the_image() {
    let tar = sample();
    let (first, second) = tar.split_at(123_457);
    let skippable = [b"\x53\x2a\x4d\x18\x05\0\0\0".as_slice(), b"hello"].concat();
    let plain = converted(&tar);
    assert_eq!(plain.0.diff_id, Digest::of(&tar));
    for layer in [
        gzip(&tar),
        [gzip(first), gzip(second), gzip(&[])].concat(),
        zstd(&tar),
        [skippable.clone(), zstd(first), skippable.clone(), zstd(second), skippable].concat(),
    ] {
        assert_eq!(converted(&layer), plain);
    }
}

#[test]
fn data_after_the_archive_changes_only_the_diff_id() {
    let tar = sample();
    let longer = [tar.as_slice(), &[0; 10 * BLOCK], b"more"].concat();
    let (short, long) = (converted(&tar).0, converted(&longer).0);
    assert_eq!(short.root_hash, long.root_hash);
    assert_eq!(long.diff_id, Digest::of(&longer));
}

#[test]
fn a_broken_stream_is_an_error() {
    let tar = sample();
    let mut flipped = gzip(&tar);
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x10;
    let gzipped = gzip(&tar);
    let frame = zstd(&tar);
    for broken in [
        &flipped,
        &gzipped[..gzipped.len() - 3],
        &frame[..frame.len() / 2],
        &[gzip(&tar), b"trailing rubbish".to_vec()].concat(),
        &[frame.as_slice(), b"\x28\xb5"].concat(),
        &[frame.as_slice(), b"trailing rubbish"].concat(),
    ] {
        let error = layer::hash(broken, &Limits::default()).expect_err("a broken stream");
        assert!(
            matches!(error, ConvertError::Read { .. } | ConvertError::Header { .. }),
            "{error:?}"
        );
    }
}

/// A frame with a window descriptor (RFC 8878, section 3.1.1.1.2), whose blocks are `data` as it is and then `runs` runs of 128 KiB of
/// zeros.
fn frame(window: u8, data: &[u8], runs: usize) -> Vec<u8> {
    const BLOCK_MAX: usize = 128 << 10;
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, window];
    let mut block = |kind: u32, size: usize, content: &[u8]| {
        frame.extend_from_slice(&((size as u32) << 3 | kind << 1).to_le_bytes()[..3]);
        frame.extend_from_slice(content);
    };
    data.chunks(BLOCK_MAX).for_each(|chunk| block(0, chunk.len(), chunk));
    (0..runs).for_each(|_| block(1, BLOCK_MAX, &[0]));
    // The last block is empty.
    frame.extend_from_slice(&[1, 0, 0]);
    frame
}

#[test]
fn a_zstd_window_beyond_the_limit_is_refused_with_both_numbers() {
    let small = frame(0, &sample(), 0);
    for (descriptor, window) in [(0x99, 576u64 << 20), (0xf8, 1 << 41)] {
        // The limit holds for every frame.
        for layer in [frame(descriptor, &[], 0), [small.clone(), frame(descriptor, &[], 0)].concat()] {
            let Err(ConvertError::Read { source, .. }) = layer::hash(layer.as_slice(), &Limits::default()) else {
                panic!("a window of {window} bytes")
            };
            let expected = format!("a zstd frame has a window of {window} bytes; at most 536870912 are decoded (512 MiB)");
            assert_eq!(source.to_string(), expected);
        }
    }
}

#[test]
fn zstd_windows_up_to_the_limit_are_decoded() {
    let tar = sample();
    let plain = converted(&tar);
    // 512 MiB, alone and between frames of other windows; memory grows with the content.
    assert_eq!(converted(&frame(0x98, &tar, 0)), plain);
    let (first, rest) = tar.split_at(100_000);
    let (second, third) = rest.split_at(100_000);
    assert_eq!(
        converted(&[frame(0, first, 0), frame(0x98, second, 0), frame(0, third, 0)].concat()),
        plain
    );
    // More content than a window of 112 MiB.
    let long = layer::hash(frame(0x86, &tar, 1_000).as_slice(), &Limits::default()).expect("a good layer");
    assert_eq!(long.root_hash, plain.0.root_hash);
}

#[test]
fn what_is_no_tar_is_named() {
    for (start, name) in [
        (b"\xfd7zXZ\0\0\x04".as_slice(), "xz"),
        (b"BZh91AY&SY", "bzip2"),
        (b"\x04\x22\x4d\x18d", "lz4"),
        (b"PK\x03\x04", "zip"),
    ] {
        for length in [start.len(), BLOCK, 3 * BLOCK] {
            let mut layer = start.to_vec();
            layer.resize(length, 7);
            // Also within gzip.
            for layer in [gzip(&layer), layer] {
                let error = layer::hash(layer.as_slice(), &Limits::default()).expect_err(name);
                let expected = format!("the layer is {name}; OCI layers are tar archives, plain or compressed with gzip or zstd");
                assert_eq!(error.to_string(), expected);
            }
        }
    }
    // A tar whose first name begins like another format.
    let tar = Tarball::default().file("BZh91AY&SY", b"1").end();
    assert_ne!(converted(&tar).0.root_hash, converted(&[]).0.root_hash);
}

#[test]
fn what_a_guest_shows_otherwise_is_counted() {
    let layer = Tarball::default()
        .file("plain", b"1")
        .pax(&[("SCHILY.xattr.system.posix_acl_access", b"\x02\0\0\0"), ("mtime", b"-5")])
        .file("old", b"1")
        .pax(&[("SCHILY.xattr.system.posix_acl_default", b"\x02\0\0\0")])
        .directory("d")
        .pax(&[("atime", b"2147483648")])
        .file("new", b"1")
        .end();
    let notes = converted(&layer).0.notes;
    assert_eq!((notes.access_lists, notes.times), (2, 2));
    let said = notes.to_string();
    assert!(
        said.starts_with("2 entries with POSIX access control lists") && said.contains("; 2 entries with times"),
        "{said}"
    );
    assert!(converted(&sample()).0.notes.is_empty());
}

#[test]
fn every_format_of_long_names() {
    let directory = "d".repeat(60);
    let name = format!("{directory}/{}", "n".repeat(60));
    let file = |tar: Tarball, stated: &[u8; BLOCK]| root(&tar.entry(stated, b"content").end());
    let plain = header("short", b'0', 7, "");
    let ustar = patched(
        patched(header("", b'0', 7, ""), 0, "n".repeat(60).as_bytes()),
        345,
        directory.as_bytes(),
    );
    let expected = file(Tarball::default().pax(&[("path", name.as_bytes())]), &plain);
    assert_eq!(
        file(Tarball::default().special(b'L', format!("{name}\0").as_bytes()), &plain),
        expected
    );
    assert_eq!(file(Tarball::default(), &ustar), expected);
    // GNU's name wins over pax, the last pax header over the first.
    let both = Tarball::default().special(b'L', name.as_bytes()).pax(&[("path", b"other")]);
    assert_eq!(file(both, &plain), expected);
    let twice = Tarball::default()
        .pax(&[("path", b"a"), ("uid", b"7")])
        .pax(&[("path", name.as_bytes())]);
    assert_eq!(file(twice, &plain), expected);
}

#[test]
fn every_format_of_numbers() {
    let content = [5; 700];
    let with = |header: &[u8; BLOCK]| root(&Tarball::default().entry(header, &content).end());
    let plain = header("file", b'0', 700, "");
    let base256 = patched(plain, 124, b"\x80\0\0\0\0\0\0\0\0\0\x02\xbc");
    let blanks = patched(plain, 124, b"       1274 ");
    assert_eq!(with(&base256), with(&plain));
    assert_eq!(with(&blanks), with(&plain));
    let pax = Tarball::default()
        .pax(&[("size", b"700"), ("mtime", b"1")])
        .entry(&patched(plain, 124, b"00000000000\0"), &content);
    assert_eq!(root(&pax.end()), with(&plain));
}

#[test]
fn every_format_of_sparse_files() {
    // Holes before, between and after two pieces of data.
    let mut whole = vec![0; 20_000];
    whole[5_000..5_100].fill(1);
    whole[9_000..9_700].fill(2);
    let data = [[1; 100].as_slice(), &[2; 700]].concat();
    let expected = root(&Tarball::default().file("file", &whole).end());
    let stored = header("file", b'0', data.len() as u64, "");

    let in_header = patched(patched(header("file", b'S', 800, ""), 257, b"ustar  \0"), 345, &[0; 38]);
    let in_header = patched(in_header, 386, b"00000011610\x0000000000144\x0000000021450\x0000000001274\0");
    let in_header = patched(in_header, 483, b"00000047040\0");
    assert_eq!(root(&Tarball::default().entry(&in_header, &data).end()), expected, "old GNU");

    let mut extension = [0; BLOCK];
    extension[..24].copy_from_slice(b"00000021450\x0000000001274\0");
    let extended = patched(patched(in_header, 410, &[0; 24]), 482, b"\x01");
    assert_eq!(
        root(&Tarball::default().entry(&extended, &[&extension, data.as_slice()].concat()).end()),
        expected,
        "old GNU, extended"
    );

    let pairs: [(&str, &[u8]); 6] = [
        ("GNU.sparse.size", b"20000"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.offset", b"5000"),
        ("GNU.sparse.numbytes", b"100"),
        ("GNU.sparse.offset", b"9000"),
        ("GNU.sparse.numbytes", b"700"),
    ];
    assert_eq!(
        root(&Tarball::default().pax(&pairs).entry(&stored, &data).end()),
        expected,
        "pax 0.0"
    );

    let list: [(&str, &[u8]); 4] = [
        ("GNU.sparse.size", b"20000"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.map", b"5000,100,9000,700"),
        ("GNU.sparse.name", b"file"),
    ];
    assert_eq!(
        root(&Tarball::default().pax(&list).entry(&stored, &data).end()),
        expected,
        "pax 0.1"
    );

    let marks: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"file"),
        ("GNU.sparse.realsize", b"20000"),
    ];
    let mut mapped = b"2\n5000\n100\n9000\n700\n".to_vec();
    mapped.resize(BLOCK, 0);
    mapped.extend_from_slice(&data);
    let stored = header("GNUSparseFile.0/file", b'0', mapped.len() as u64, "");
    assert_eq!(
        root(&Tarball::default().pax(&marks).entry(&stored, &mapped).end()),
        expected,
        "pax 1.0"
    );
}

#[test]
fn old_archives_mark_directories_with_a_slash() {
    let old = Tarball::default()
        .entry(&header("dir/", 0, 0, ""), &[])
        .entry(&header("dir/file", 0, 2, ""), b"ab")
        .end();
    let new = Tarball::default().directory("dir").file("dir/file", b"ab").end();
    assert_eq!(root(&old), root(&new));
}

#[test]
fn names_are_the_same_however_they_start() {
    let expected = root(&Tarball::default().file("a/b", b"1").end());
    for name in ["/a/b", "./a/b", "a//b", "a/./b", "a/c/../b"] {
        let other = root(&Tarball::default().file(name, b"1").end());
        assert_eq!(other, expected, "{name}");
    }
}

#[test]
fn an_empty_layer_is_an_image() {
    let empty = converted(&[]);
    let closed = converted(&[0; 2 * BLOCK]);
    assert_eq!(empty.1, closed.1);
    assert_eq!(empty.0.data_blocks, 14);
    assert_eq!(closed.1.len(), 16 * BLOCK_BYTES);
}

#[test]
fn a_gzip_stream_cut_within_its_first_block() {
    let stream = [31, 139, 8, 0, 0, 0, 0, 0, 0, 0, 202, 0];
    assert!(matches!(
        layer::hash(stream.as_slice(), &Limits::default()),
        Err(ConvertError::Read { .. })
    ));
}
