//! Walks through directories that the tests make.

use super::*;
use rustix::fs::{Timespec, Timestamps, XattrFlags, lsetxattr, mkfifoat, mknodat, utimensat};
use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixListener},
};
use tempfile::TempDir;

const LIMITS: Limits = Limits {
    entries: 1000,
    bytes: 1 << 20,
    names: 1 << 16,
};

/// An entry as a reader of tars sees it: type, path, link or content, whole seconds.
type Seen = (u8, String, String, u64);

fn walked(root: &Path) -> Result<Vec<u8>, WalkError> {
    let mut tar = Vec::new();
    archive(root, true, LIMITS, &mut tar).map(|()| tar)
}

fn seen(tar: &[u8]) -> Vec<Seen> {
    let mut archive = tar::Archive::new(tar);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        if let Some(link) = entry.link_name_bytes() {
            content = link.into_owned();
        }
        let header = entry.header().clone();
        (
            header.entry_type().as_byte(),
            text(&entry.path_bytes()),
            text(&content),
            header.mtime().unwrap(),
        )
    });
    entries.collect()
}

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Every kind of file that needs no privilege, with times as an unpacker leaves them.
fn tree() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("etc/implied")).unwrap();
    fs::create_dir(at("b")).unwrap();
    fs::write(at("etc/implied/file"), "content").unwrap();
    fs::hard_link(at("etc/implied/file"), at("b/other")).unwrap();
    std::os::unix::fs::symlink("/../../outside", at("a-link")).unwrap();
    mkfifoat(CWD, at("fifo"), Mode::from_raw_mode(0o600)).unwrap();
    let _socket = UnixListener::bind(at("socket")).unwrap();
    fs::set_permissions(at("b"), fs::Permissions::from_mode(0o1777)).unwrap();
    for name in ["etc/implied/file", "a-link", "fifo", "etc", "b"] {
        set_time(&at(name), 1_700_000_000, 0);
    }
    set_time(&at("etc/implied"), 1_800_000_000, 7);
    dir
}

#[test]
fn files_become_entries_in_the_order_of_their_names() {
    let dir = tree();
    set_time(dir.path(), 9, 9);
    let entry = |flag: u8, path: &str, content: &str, time| (flag, path.to_owned(), content.to_owned(), time);
    let then = 1_700_000_000;
    assert_eq!(
        seen(&walked(dir.path()).unwrap()),
        [
            entry(b'5', "./", "", 0),
            entry(b'2', "a-link", "/../../outside", then),
            entry(b'5', "b", "", then),
            entry(b'5', "etc", "", then),
            entry(b'6', "fifo", "", then),
            entry(b'0', "b/other", "content", then),
            entry(b'5', "etc/implied", "", 0),
            entry(b'1', "etc/implied/file", "b/other", then),
        ]
    );
}

#[test]
fn the_same_layer_unpacked_twice_is_the_same_tar() {
    let [one, two] = [tree(), tree()];
    for (dir, nanoseconds) in [(&one, 1), (&two, 2)] {
        for implied in ["etc/implied", "."] {
            set_time(&dir.path().join(implied), 5, nanoseconds);
        }
    }
    let tar = walked(one.path()).unwrap();
    assert_eq!(tar, walked(two.path()).unwrap());
    // And the converter takes it.
    let converted = layer::hash(tar.as_slice(), &layer::Limits::default()).unwrap();
    assert_eq!(converted.diff_id, oci::Digest::of(&tar));
    set_time(&two.path().join("etc"), 6, 0);
    assert_ne!(tar, walked(two.path()).unwrap());
}

/// Whiteouts and opaque directories, as the default snapshotter keeps them, are what the converter makes of a layer's tar with them.
#[test]
fn whiteouts_are_those_of_the_layer() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("d")).unwrap();
    set_time(&at("d"), 1, 0);
    if mknodat(CWD, at("gone"), FileType::CharacterDevice, Mode::empty(), 0).is_err()
        || lsetxattr(at("d"), "user.overlay.opaque", b"y", XattrFlags::empty()).is_err()
    {
        return println!("SKIPPED: whiteouts cannot be made here");
    }
    let tar = walked(dir.path()).unwrap();
    let paths: Vec<_> = seen(&tar).into_iter().map(|(flag, path, ..)| (flag, path)).collect();
    let expected = [(b'5', "./"), (b'5', "d"), (b'0', "d/.wh..wh..opq"), (b'0', ".wh.gone")];
    assert_eq!(paths, expected.map(|(flag, path)| (flag, path.to_owned())));
    layer::hash(tar.as_slice(), &layer::Limits::default()).unwrap();
}

#[test]
fn extended_attributes_are_kept_and_a_dependence_on_overlayfs_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    if lsetxattr(&file, "user.b", b"2\0", XattrFlags::empty()).is_err() {
        return println!("SKIPPED: the file system has no extended attributes");
    }
    lsetxattr(&file, "user.a", b"1", XattrFlags::empty()).unwrap();
    let tar = walked(dir.path()).unwrap();
    let find = |words: &[u8]| tar.windows(words.len()).position(|window| window == words);
    let [a, b] = [b"SCHILY.xattr.user.a=1\n".as_slice(), b"SCHILY.xattr.user.b=2\0\n"].map(|words| find(words).unwrap());
    assert!(a < b);
    lsetxattr(&file, "user.overlay.metacopy", b"", XattrFlags::empty()).unwrap();
    let error = walked(dir.path()).unwrap_err();
    assert!(
        matches!(&error, WalkError::Attributes(path, AttributeError::Overlay(_)) if path.ends_with("file")),
        "{error:?}"
    );
}

#[test]
fn what_a_tar_cannot_say_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(".wh.file"), "").unwrap();
    let error = walked(dir.path()).unwrap_err();
    assert!(
        matches!(error, WalkError::Whiteout(_)) && error.to_string().contains(".wh.file"),
        "{error}"
    );
    assert!(matches!(
        walked(Path::new("/nonexistent")),
        Err(WalkError::File { doing: "open", .. })
    ));
    // The layer's directory itself is no link.
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("/", &link).unwrap();
    assert!(matches!(walked(&link), Err(WalkError::File { doing: "open", .. })));
}

#[test]
fn everything_is_counted() {
    let dir = tree();
    let with = |limits: Limits| archive(dir.path(), true, limits, io::sink());
    assert!(
        with(Limits {
            entries: 8,
            bytes: 7,
            ..LIMITS
        })
        .is_ok()
    );
    assert!(matches!(with(Limits { entries: 7, ..LIMITS }), Err(WalkError::Entries(7))));
    assert!(matches!(with(Limits { bytes: 6, ..LIMITS }), Err(WalkError::Bytes(6))));
    assert!(matches!(with(Limits { names: 250, ..LIMITS }), Err(WalkError::Names(250))));
    // Names are given back: a long row of directories holds one at a time.
    let mut deep = dir.path().to_owned();
    for _ in 0..100 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    assert!(with(Limits { names: 1200, ..LIMITS }).is_ok());
}

#[test]
fn a_path_beyond_the_kernels_limit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let name = "n".repeat(250);
    let mut parent = openat(CWD, dir.path(), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    for _ in 0..17 {
        rustix::fs::mkdirat(&parent, name.as_str(), Mode::RWXU).unwrap();
        parent = openat(&parent, name.as_str(), OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    }
    let error = walked(dir.path()).unwrap_err();
    // Also where the limits on names are reached first.
    let mut long = LIMITS;
    long.names = 1 << 20;
    assert!(
        matches!(archive(dir.path(), true, long, io::sink()), Err(WalkError::Long(_))),
        "{error}"
    );
}

#[test]
fn a_reader_that_has_gone_ends_the_walk() {
    let dir = tree();
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let error = archive(dir.path(), true, LIMITS, writer).unwrap_err();
    assert!(matches!(error, WalkError::Write(error) if error.kind() == io::ErrorKind::BrokenPipe));
}
