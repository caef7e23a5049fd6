//! Checks images with independent tools: e2fsck, veritysetup, and the running kernel's ext4.

mod tarball;

use layer::{BLOCK_BYTES, Converted, Limits, RootHash};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tarball::{Tarball, header};
use tempfile::{NamedTempFile, TempDir};

/// Output of a tool; if the tool is missing, prints a `skipped:` line and returns `None`.
fn run(test: &str, tool: &str, arguments: &[&str]) -> Option<Output> {
    // Debian installs these tools outside of an ordinary user's PATH.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    match Command::new(tool).args(arguments).env("PATH", path).output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("skipped: {test}: {tool}: {error}");
            None
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are ASCII")
}

fn fsck(test: &str, image: &Path) {
    if let Some(output) = run(test, "e2fsck", &["-fn", text(image)]) {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

fn verity(test: &str, image: &Path, offset: u64, root: &RootHash) -> Option<bool> {
    let offset = format!("--hash-offset={offset}");
    let output = run(
        test,
        "veritysetup",
        &["verify", text(image), text(image), &root.to_string(), &offset],
    )?;
    Some(output.status.success())
}

fn written(layer: impl Read + Send) -> (NamedTempFile, Converted) {
    let mut image = NamedTempFile::new().expect("a temporary file");
    let converted = layer::convert(layer, image.as_file_mut(), &Limits::default()).expect("a good layer");
    (image, converted)
}

/// hcsshim clears the bits after the last inode of each inode bitmap, and the hashes in policies cover these bits. It is all
/// that e2fsck reports about such images, so this sets the bits before e2fsck runs.
fn pad_inode_bitmaps(image: &Path) {
    let mut bytes = fs::read(image).expect("the image");
    let number = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize;
    let (inodes, per_group) = (number(&bytes, 1024), number(&bytes, 1024 + 0x28));
    for group in 0..inodes / per_group {
        let bitmap = number(&bytes, BLOCK_BYTES + group * 32 + 4) * BLOCK_BYTES;
        assert_eq!(per_group % 8, 0);
        let padding = &mut bytes[bitmap..bitmap + BLOCK_BYTES][per_group / 8..];
        assert!(padding.iter().all(|byte| *byte == 0));
        padding.fill(0xff);
    }
    fs::write(image, bytes).expect("room for the image");
}

/// Both tools accept the image; veritysetup refuses changed bytes and a changed root hash.
fn agree(test: &str, layer: impl Read + Send) {
    let (image, converted) = written(layer);
    let ext4_bytes = converted.data_blocks * BLOCK_BYTES as u64;
    if let Some(verified) = verity(test, image.path(), ext4_bytes, &converted.root_hash) {
        assert!(verified, "veritysetup refuses the image");
        let mut other = converted.root_hash;
        other.0[31] ^= 1;
        assert_eq!(verity(test, image.path(), ext4_bytes, &other), Some(false));
    }
    pad_inode_bitmaps(image.path());
    fsck(test, image.path());
    assert_ne!(
        verity(test, image.path(), ext4_bytes, &converted.root_hash),
        Some(true),
        "changed bytes got past veritysetup"
    );
}

fn vectors() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let entries = fs::read_dir(directory).expect("the vectors of the repository");
    entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "gz"))
        .collect()
}

#[test]
fn tools_agree_on_the_vectors() {
    for vector in vectors() {
        agree("tools_agree_on_the_vectors", File::open(&vector).expect("a vector"));
    }
}

#[test]
fn tools_agree_when_entries_replace_others() {
    let noise: Vec<u8> = (0..50_000u32).map(|at| ((at * at) >> 7) as u8).collect();
    let attribute: [(&str, &[u8]); 2] = [("SCHILY.xattr.user.long", &[b'v'; 900]), ("SCHILY.xattr.user.short", b"1")];
    let tar = Tarball::default()
        .pax(&attribute)
        .file("a", &noise)
        .file("b", &noise[..4096])
        .file("a", b"the last entry wins")
        .file("c", b"c")
        .hard_link("c2", "c")
        .hard_link("b", "c")
        .file("c", &noise[..9000])
        .symlink("s", &"long/".repeat(15))
        .symlink("s", "short")
        .file("s", b"now a file")
        .pax(&attribute)
        .directory("d")
        .directory("d")
        .file("d/.wh..wh..opq", b"")
        .file("d/.wh.gone", b"")
        .file("d/gone", b"back")
        .file(".wh.a", b"")
        .end();
    agree("tools_agree_where_entries_replace_others", tar.as_slice());
    let (image, _) = written(tar.as_slice());
    for (name, content) in [
        ("c", &noise[..9000]),
        ("b", b"c".as_slice()),
        ("c2", b"c"),
        ("s", b"now a file"),
        ("d/gone", b"back"),
    ] {
        let request = format!("cat {name}");
        let Some(output) = run(
            "tools_agree_where_entries_replace_others",
            "debugfs",
            &["-R", &request, text(image.path())],
        ) else {
            return;
        };
        assert!(output.stdout == content, "{name}");
    }
}

#[test]
fn tools_agree_on_several_groups() {
    // More than 128 MiB of data, and a file with more extents than an inode holds (holes, so that the tar stays small).
    let size = 700u64 << 20;
    let records: [(&str, &[u8]); 3] = [
        ("GNU.sparse.map", b"0,5"),
        ("GNU.sparse.numblocks", b"1"),
        ("GNU.sparse.size", &size.to_string().into_bytes()),
    ];
    let tar = Tarball::default().pax(&records).file("large", b"start").file("behind", b"1").end();
    agree("tools_agree_on_several_groups", tar.as_slice());
}

#[test]
fn every_accepted_layer_gives_a_clean_image() {
    // Types and fields at the limits of what the writer accepts.
    let odd = [
        (b'3', "char"),
        (b'4', "block"),
        (b'6', "fifo"),
        (b'7', "contiguous"),
        (b'V', "volume"),
        (b'D', "dump"),
    ];
    let tar = odd.into_iter().fold(Tarball::default(), |tar, (flag, name)| {
        let block = tarball::patched(header(name, flag, 0, ""), 100, b"\x80\0\0\0\0\0\xff\xff");
        let block = tarball::patched(block, 329, b"7777777\x007777777\0");
        tar.entry(&tarball::patched(block, 136, b"77777777777\0"), b"")
    });
    let tar = tar
        .special(b'g', &tarball::record("comment", b"global"))
        .symlink("longest", &"t".repeat(100))
        .end();
    agree("whatever_is_accepted_is_clean", tar.as_slice());
}

/// A disk full of garbage: no block can be mistaken for a zeroed one.
fn garbage(bytes: u64) -> NamedTempFile {
    let mut disk = NamedTempFile::new().expect("a temporary file");
    let block = vec![0xa5; 1 << 20];
    (0..bytes >> 20).for_each(|_| disk.write_all(&block).expect("room for the disk"));
    disk
}

#[test]
fn a_scratch_disk_over_garbage_is_clean() {
    for size in [1 << 20, 100 << 20, 128 << 20, (128 << 20) + (3 << 20), 300 << 20] {
        let mut disk = garbage(size);
        layer::scratch::write_empty_ext4(disk.as_file_mut(), size).expect("a scratch disk");
        fsck("a_scratch_disk_over_garbage_is_clean", disk.path());
    }
    let sparse = NamedTempFile::new().expect("a temporary file");
    sparse.as_file().set_len(1 << 40).expect("a sparse file");
    layer::scratch::write_empty_ext4(&mut sparse.as_file(), 1 << 40).expect("a scratch disk");
    fsck("a_scratch_disk_over_garbage_is_clean", sparse.path());
}

/// How often a busy mount is retried, and the pause in between.
const UNMOUNTS: usize = 100;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// A mount that is unmounted on drop.
struct Mounted(TempDir);

impl Mounted {
    fn new(test: &str, disk: &Path) -> Option<Self> {
        let point = TempDir::new().expect("a temporary directory");
        let output = run(test, "mount", &["-t", "ext4", "-o", "loop", text(disk), text(point.path())])?;
        if !output.status.success() {
            eprintln!(
                "skipped: {test}: no loop mounts here: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
            return None;
        }
        Some(Mounted(point))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A child that another test has forked holds this test's files open until its exec.
        let unmounted = || {
            Command::new("umount")
                .arg(self.0.path())
                .status()
                .is_ok_and(|status| status.success())
        };
        let gone = (0..UNMOUNTS).any(|_| {
            unmounted() || {
                std::thread::sleep(PAUSE);
                false
            }
        });
        assert!(gone, "umount");
    }
}

#[test]
fn linux_uses_a_scratch_disk_over_garbage() {
    const TEST: &str = "linux_uses_a_scratch_disk_over_garbage";
    let size = 300 << 20;
    let mut disk = garbage(size);
    layer::scratch::write_empty_ext4(disk.as_file_mut(), size).expect("a scratch disk");
    let content: Vec<u8> = (0..30_000_000u32).map(|at| (at / 3) as u8).collect();
    {
        let Some(mounted) = Mounted::new(TEST, disk.path()) else { return };
        let root = mounted.0.path();
        for directory in 0..40 {
            let directory = root.join(format!("d{directory}"));
            fs::create_dir(&directory).expect("a directory");
            (0..60).for_each(|file| fs::write(directory.join(file.to_string()), [file; 5]).expect("a small file"));
        }
        fs::write(root.join("large"), &content).expect("a large file");
        fs::remove_dir_all(root.join("d7")).expect("removed");
    }
    fsck(TEST, disk.path());
    let Some(mounted) = Mounted::new(TEST, disk.path()) else { return };
    assert!(fs::read(mounted.0.path().join("large")).expect("read back") == content);
    assert_eq!(fs::read(mounted.0.path().join("d39/59")).expect("read back"), [59; 5]);
    assert_eq!(fs::read_dir(mounted.0.path()).expect("the root").count(), 39 + 2);
    // The kernel writes to the file on unmount, so the file must still exist.
    drop(mounted);
    OpenOptions::new().read(true).open(disk.path()).expect("the disk");
}
