//! The cache, with conversions of small tars.

use super::*;
use std::time::Duration;

/// A tar with one file (POSIX ustar), and its diff id.
fn layer(content: &[u8]) -> (Vec<u8>, Digest) {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    builder.append_data(&mut header, "file", content).unwrap();
    let tar = builder.into_inner().unwrap();
    let digest = Digest::of(&tar);
    (tar, digest)
}

fn files(cache: &Cache) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(&cache.dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_layer_is_converted_once() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let (tar, id) = layer(b"hello");
    assert!(cache.get(&id).unwrap().is_none());
    let made = cache.make(&id, tar.as_slice()).unwrap();
    assert_eq!(made.file.metadata().unwrap().len(), made.bytes());
    // A second conversion would fail, because its input is empty.
    let found = cache.make(&id, io::empty()).unwrap();
    assert_eq!((found.root_hash, found.data_blocks), (made.root_hash, made.data_blocks));
    assert_eq!(files(&cache), [format!("{}.ext4", id.hex()), format!("{}.json", id.hex())]);
}

#[test]
fn a_blob_of_another_layer_leaves_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let ((tar, _), (_, other)) = (layer(b"hello"), layer(b"world"));
    assert!(matches!(cache.make(&other, tar.as_slice()), Err(CacheError::DiffId { .. })));
    assert!(matches!(cache.make(&other, &tar[..514]), Err(CacheError::Convert(..))));
    assert!(files(&cache).is_empty(), "{:?}", files(&cache));
}

#[test]
fn a_damaged_entry_is_converted_again() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let (tar, id) = layer(b"hello");
    cache.make(&id, tar.as_slice()).unwrap();
    OpenOptions::new()
        .write(true)
        .open(cache.path(&id, "ext4"))
        .unwrap()
        .set_len(4096)
        .unwrap();
    assert!(cache.get(&id).unwrap().is_none());
    cache.make(&id, tar.as_slice()).unwrap();
    fs::write(cache.path(&id, "json"), "{").unwrap();
    assert!(cache.get(&id).unwrap().is_none());
    assert!(cache.make(&id, tar.as_slice()).is_ok());
}

#[test]
fn a_failed_json_file_leaves_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let (tar, id) = layer(b"hello");
    for in_the_way in ["describing", "json"] {
        let directory = cache.path(&id, in_the_way);
        fs::create_dir(&directory).unwrap();
        assert!(matches!(cache.convert(&id, tar.as_slice()), Err(CacheError::Path { .. })));
        fs::remove_dir(&directory).unwrap();
        assert!(files(&cache).is_empty(), "{in_the_way}: {:?}", files(&cache));
    }
    assert!(cache.convert(&id, tar.as_slice()).is_ok());
}

#[test]
fn concurrent_requests_convert_once() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let (tar, id) = layer(&[7; 100_000]);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| cache.make(&id, tar.as_slice()).unwrap().root_hash))
            .collect();
        let hashes: Vec<_> = workers.into_iter().map(|w| w.join().unwrap()).collect();
        assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]));
    });
    assert_eq!(files(&cache).len(), 2);
}

/// As a process leaves the cache that is killed at some point of a conversion.
#[test]
fn what_a_killed_conversion_left_is_removed_at_the_next_open() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let ((tar, whole), (_, killed), (_, under_way)) = (layer(b"hello"), layer(b"killed"), layer(b"under way"));
    cache.make(&whole, tar.as_slice()).unwrap();
    for suffix in ["converting", "describing", "lock", "ext4"] {
        fs::write(cache.path(&killed, suffix), "x").unwrap();
    }
    fs::write(cache.path(&whole, "lock"), "").unwrap();
    fs::write(cache.path(&under_way, "converting"), "x").unwrap();
    let lock = cache.lock(&under_way).unwrap();
    fs::write(cache.dir.join("notes.txt"), "").unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let mut left = vec![
        format!("{}.converting", under_way.hex()),
        format!("{}.ext4", whole.hex()),
        format!("{}.json", whole.hex()),
        format!("{}.lock", under_way.hex()),
        "notes.txt".to_owned(),
    ];
    left.sort();
    assert_eq!(files(&cache), left);
    drop(lock);
}

#[test]
fn a_layer_that_is_opened_while_it_is_removed_counts_as_absent() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let (tar, id) = layer(b"hello");
    drop(cache.make(&id, tar.as_slice()).unwrap());
    let removing = File::open(cache.path(&id, "ext4")).unwrap();
    removing.try_lock().unwrap();
    assert!(cache.get(&id).unwrap().is_none());
    drop(removing);
    assert!(cache.get(&id).unwrap().is_some());
}

#[test]
fn layers_are_collected_by_last_use_and_size_unless_a_vm_uses_them() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let now = SystemTime::now();
    let mut made = Vec::new();
    for (content, days) in [(&b"one"[..], 9), (b"two", 8), (b"three", 2), (b"four", 1)] {
        let (tar, id) = layer(content);
        let layer = cache.make(&id, tar.as_slice()).unwrap();
        let side = File::open(cache.path(&id, "json")).unwrap();
        side.set_modified(now - days * DAY).unwrap();
        made.push((id, layer));
    }
    let all = cache.entries().unwrap();
    assert_eq!(
        all.iter().map(|entry| entry.diff_id).collect::<Vec<_>>(),
        made.iter().map(|(id, _)| *id).collect::<Vec<_>>()
    );
    let week = Keep {
        used_within: Some(7 * DAY),
        ..Keep::default()
    };
    // As the VMM holds it: a duplicate of the descriptor.
    let in_vmm = made[1].1.file.try_clone().unwrap();
    let ids: Vec<_> = made.into_iter().map(|(id, _)| id).collect();
    let removed = |collected: Collected| collected.removed.into_iter().map(|entry| entry.diff_id).collect::<Vec<_>>();
    assert_eq!(removed(cache.collect(week, now, true).unwrap()), ids[..1], "only said");
    assert_eq!(removed(cache.collect(week, now, false).unwrap()), ids[..1]);
    assert!(cache.get(&ids[0]).unwrap().is_none());
    let small = Keep {
        bytes: Some(all[3].bytes),
        ..Keep::default()
    };
    assert_eq!(
        removed(cache.collect(small, now, false).unwrap()),
        ids[2..],
        "one is in use and takes all the room"
    );
    drop(in_vmm);
    assert_eq!(removed(cache.collect(week, now, false).unwrap()), ids[1..2]);
    assert!(files(&cache).is_empty());
    assert!(cache.collect(Keep::default(), now, false).unwrap().removed.is_empty());
}

#[test]
fn a_damaged_layer_is_removed_and_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let (tar, id) = layer(b"hello");
    let whole = cache.make(&id, tar.as_slice()).unwrap();
    assert!(!cache.remove_damaged(&whole).unwrap() && cache.verify().unwrap().is_empty());
    let image = OpenOptions::new().write(true).open(cache.path(&id, "ext4")).unwrap();
    image.write_at(b"\xff", 8000).unwrap();
    let damaged = cache.get(&id).unwrap().expect("nothing shows from outside");
    assert!(cache.remove_damaged(&damaged).unwrap());
    assert!(cache.get(&id).unwrap().is_none());
    let again = cache.make(&id, tar.as_slice()).unwrap();
    assert_eq!(again.root_hash, whole.root_hash);
    // Who still has the damaged file does not remove the new one.
    assert!(cache.remove_damaged(&damaged).unwrap() && cache.get(&id).unwrap().is_some());
    let image = OpenOptions::new().write(true).open(cache.path(&id, "ext4")).unwrap();
    image.write_at(b"\xff", again.bytes() - 1).unwrap();
    assert_eq!(cache.verify().unwrap(), [id]);
    assert!(files(&cache).is_empty());
}
