//! The cache, with conversions of small tars.

use super::*;
use layer::{ConvertError, Limits};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::{ffi::OsString, fs::OpenOptions, time::Duration};

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

/// The layer under its diff id, which is the digest of an uncompressed blob too.
fn wanted(id: &Digest) -> Wanted {
    Wanted { diff_id: *id, blob: *id }
}

fn get(cache: &Cache, id: &Digest) -> Option<CachedLayer> {
    cache.get(&wanted(id)).unwrap()
}

fn ours(cache: &Cache, wanted: &Wanted) -> Conversion {
    match cache.begin(wanted).unwrap() {
        Turn::Ours(conversion) => conversion,
        other => panic!("{other:?}"),
    }
}

fn converted(blob: &[u8], conversion: &Conversion) -> Result<layer::Converted, ConvertError> {
    layer::convert(blob, &mut conversion.image().unwrap(), &Limits::default())
}

fn make(cache: &Cache, id: &Digest, blob: &[u8]) -> Result<CachedLayer, CacheError> {
    match cache.begin(&wanted(id))? {
        Turn::Made(hit) => Ok(hit),
        Turn::Ours(conversion) => {
            let converted = converted(blob, &conversion).unwrap();
            conversion.finish(&converted)
        }
        Turn::Theirs => panic!("nobody else converts it"),
    }
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
    assert!(get(&cache, &id).is_none());
    let made = make(&cache, &id, &tar).unwrap();
    assert_eq!(made.file.metadata().unwrap().len(), made.bytes());
    // A second conversion would fail, because its input is empty.
    let found = make(&cache, &id, &[]).unwrap();
    assert_eq!((found.root_hash, found.data_blocks), (made.root_hash, made.data_blocks));
    assert_eq!(files(&cache), [format!("{}.ext4", id.hex()), format!("{}.json", id.hex())]);
}

#[test]
fn a_blob_of_another_layer_leaves_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let ((tar, _), (_, other)) = (layer(b"hello"), layer(b"world"));
    assert!(matches!(make(&cache, &other, &tar), Err(CacheError::DiffId { .. })));
    let cut = ours(&cache, &wanted(&other));
    assert!(converted(&tar[..514], &cut).is_err());
    drop(cut);
    assert!(files(&cache).is_empty(), "{:?}", files(&cache));
}

/// A hostile image names the diff id of a popular layer, and its blob makes the converter confirm it.
#[test]
fn a_converter_that_lies_about_the_diff_id_reaches_users_of_its_blob_only() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let ((popular, id), (hostile, blob)) = (layer(b"popular"), layer(b"hostile"));
    let lie = Wanted { diff_id: id, blob };
    let conversion = ours(&cache, &lie);
    let mut said = converted(&hostile, &conversion).unwrap();
    said.diff_id = id;
    let poisoned = conversion.finish(&said).unwrap();
    // The popular image still gets what its own blob holds, before and after.
    let honest = make(&cache, &id, &popular).unwrap();
    assert_ne!(honest.root_hash, poisoned.root_hash);
    assert_eq!(get(&cache, &id).unwrap().root_hash, honest.root_hash);
    // And who names the blob by its own diff id does not take the word for the other one.
    assert!(get(&cache, &blob).is_none());
    assert!(cache.get(&lie).unwrap().is_some());
}

#[test]
fn a_description_of_another_image_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let (tar, id) = layer(b"hello");
    let lies: [fn(&mut layer::Converted); 5] = [
        |said| said.total_blocks += 1,
        |said| said.total_blocks = u64::MAX,
        |said| said.total_blocks = 0,
        |said| said.data_blocks = 0,
        |said| said.data_blocks = said.total_blocks,
    ];
    for lie in lies {
        let conversion = ours(&cache, &wanted(&id));
        let mut said = converted(&tar, &conversion).unwrap();
        lie(&mut said);
        assert!(matches!(conversion.finish(&said), Err(CacheError::Geometry(_))), "{said:?}");
        assert!(files(&cache).is_empty(), "{:?}", files(&cache));
    }
}

#[test]
fn a_damaged_entry_is_converted_again() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let (tar, id) = layer(b"hello");
    make(&cache, &id, &tar).unwrap();
    OpenOptions::new()
        .write(true)
        .open(cache.path(&id, "ext4"))
        .unwrap()
        .set_len(4096)
        .unwrap();
    assert!(get(&cache, &id).is_none());
    make(&cache, &id, &tar).unwrap();
    // Half a file, and one of a version that did not note the diff id.
    let older = format!(r#"{{"root_hash":"{}","data_blocks":1,"total_blocks":3}}"#, "00".repeat(32));
    // A bit that the disk flipped: no tree has so many blocks, and they fit no file.
    let whole = fs::read_to_string(cache.path(&id, "json")).unwrap();
    let flipped = whole.replace("\"data_blocks\":", "\"data_blocks\":9");
    let huge = whole.replace("\"total_blocks\":", "\"total_blocks\":1844674407370955161");
    for side in ["{", &older, &flipped, &huge] {
        fs::write(cache.path(&id, "json"), side).unwrap();
        assert!(get(&cache, &id).is_none());
        assert_eq!(cache.verify().unwrap(), [id]);
        assert!(make(&cache, &id, &tar).is_ok());
    }
}

#[test]
fn a_failed_json_file_leaves_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let (tar, id) = layer(b"hello");
    for in_the_way in ["describing", "json"] {
        let conversion = ours(&cache, &wanted(&id));
        let said = converted(&tar, &conversion).unwrap();
        let directory = cache.path(&id, in_the_way);
        fs::create_dir(&directory).unwrap();
        assert!(matches!(conversion.finish(&said), Err(CacheError::Path { .. })));
        fs::remove_dir(&directory).unwrap();
        assert!(files(&cache).is_empty(), "{in_the_way}: {:?}", files(&cache));
    }
    assert!(make(&cache, &id, &tar).is_ok());
}

/// What happens to the names in the cache, in the kernel's order: between any two of them the process may be killed.
fn names_change(cache: &Cache, act: impl FnOnce()) -> Vec<(AddWatchFlags, String)> {
    let watch = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
    let changes = AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_TO;
    watch.add_watch(&cache.dir, changes).unwrap();
    act();
    let events = watch.read_events().unwrap().into_iter();
    let suffix = |name: Option<OsString>| Some(name?.to_str()?.split_once('.')?.1.to_owned());
    events.filter_map(|event| Some((event.mask, suffix(event.name)?))).collect()
}

/// Otherwise whoever is killed in between leaves the new image with the old description: a layer with another's root hash.
#[test]
fn an_image_gets_its_name_when_no_description_of_another_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let (tar, id) = layer(b"hello");
    // Of the same length, by a converter that the blob took over, for an image that names another diff id.
    let lie = Wanted {
        diff_id: layer(b"other").1,
        blob: id,
    };
    let conversion = ours(&cache, &lie);
    let mut said = converted(&tar, &conversion).unwrap();
    (said.diff_id, said.root_hash) = (lie.diff_id, RootHash([7; 32]));
    conversion.finish(&said).unwrap();

    let conversion = ours(&cache, &wanted(&id));
    let said = converted(&tar, &conversion).unwrap();
    let events = names_change(&cache, || drop(conversion.finish(&said).unwrap()));
    let (gone, named) = (AddWatchFlags::IN_DELETE, AddWatchFlags::IN_MOVED_TO);
    let expected = [(gone, "json"), (gone, "ext4"), (named, "ext4"), (named, "json"), (gone, "lock")];
    assert_eq!(events, expected.map(|(event, suffix)| (event, suffix.to_owned())));
    assert_eq!(get(&cache, &id).unwrap().root_hash, said.root_hash.0);
}

/// Somebody who tidies up removes the lock of a conversion under way.
#[test]
fn a_conversion_without_its_lock_does_not_publish_what_another_writes() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let (tar, id) = layer(b"hello");
    let first = ours(&cache, &wanted(&id));
    let said = converted(&tar, &first).unwrap();
    fs::remove_file(cache.path(&id, "lock")).unwrap();
    let second = ours(&cache, &wanted(&id));
    let refused = first.finish(&said).unwrap_err();
    assert!(
        matches!(&refused, CacheError::Replaced(path) if *path == cache.path(&id, "converting")),
        "{refused:?}"
    );
    // The second still has its lock and its file.
    assert!(matches!(cache.begin(&wanted(&id)).unwrap(), Turn::Theirs));
    assert!(get(&cache, &id).is_none());
    let said = converted(&tar, &second).unwrap();
    second.finish(&said).unwrap();
    assert_eq!(files(&cache).len(), 2);
}

#[test]
fn a_layer_that_is_converted_again_is_not_collected() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let (tar, id) = layer(b"hello");
    make(&cache, &id, &tar).unwrap();
    let again = ours(
        &cache,
        &Wanted {
            diff_id: layer(b"other").1,
            blob: id,
        },
    );
    let nothing = Keep {
        bytes: Some(0),
        ..Keep::default()
    };
    let collected = cache.collect(nothing, SystemTime::now(), false).unwrap();
    assert_eq!((collected.removed.len(), collected.kept.len()), (0, 1));
    drop(again);
    // One that is only looked at is there for others.
    assert_eq!(cache.collect(nothing, SystemTime::now(), true).unwrap().removed.len(), 1);
    assert_eq!(files(&cache).len(), 2);
    assert_eq!(cache.collect(nothing, SystemTime::now(), false).unwrap().removed.len(), 1);
    assert!(files(&cache).is_empty());
}

#[test]
fn other_users_cannot_lock_what_is_in_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let layers = dir.path().join("layers");
    for _ in 0..2 {
        Cache::open(dir.path()).unwrap();
        assert_eq!(fs::metadata(&layers).unwrap().mode() & 0o777, 0o700);
        // As an older version made it.
        fs::set_permissions(&layers, Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn one_conversion_of_a_blob_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let caches = [0, 1].map(|_| Cache::open(dir.path()).unwrap());
    let (tar, id) = layer(b"hello");
    let given_up = ours(&caches[0], &wanted(&id));
    assert!(matches!(caches[1].begin(&wanted(&id)).unwrap(), Turn::Theirs));
    // Another layer does not wait.
    drop(ours(&caches[1], &wanted(&layer(b"other").1)));
    drop(given_up);
    assert!(files(&caches[0]).is_empty());
    let conversion = ours(&caches[1], &wanted(&id));
    let said = converted(&tar, &conversion).unwrap();
    conversion.finish(&said).unwrap();
    assert!(matches!(caches[0].begin(&wanted(&id)).unwrap(), Turn::Made(_)));
    assert_eq!(files(&caches[0]).len(), 2);
}

#[test]
fn slots_are_taken_until_the_last_descriptor_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let mut taken: Vec<_> = (0..SLOTS).map(|_| cache.try_slot().unwrap().unwrap()).collect();
    let another = Cache::open(dir.path()).unwrap();
    assert!(another.try_slot().unwrap().is_none());
    // As a converter has it.
    let Slot { file, number } = taken.remove(0);
    let inherited = file.try_clone().unwrap();
    drop(file);
    assert!(another.try_slot().unwrap().is_none());
    drop(inherited);
    assert_eq!(another.try_slot().unwrap().unwrap().number, number);
}

/// As a process leaves the cache that is killed at some point of a conversion.
#[test]
fn what_a_killed_conversion_left_is_removed_at_the_next_open() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let ((tar, whole), (_, killed), (_, under_way)) = (layer(b"hello"), layer(b"killed"), layer(b"under way"));
    make(&cache, &whole, &tar).unwrap();
    for suffix in ["converting", "describing", "lock", "ext4"] {
        fs::write(cache.path(&killed, suffix), "x").unwrap();
    }
    fs::write(cache.path(&whole, "lock"), "").unwrap();
    let conversion = ours(&cache, &wanted(&under_way));
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
    drop(conversion);
}

#[test]
fn a_layer_that_is_opened_while_it_is_removed_counts_as_absent() {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    let (tar, id) = layer(b"hello");
    drop(make(&cache, &id, &tar).unwrap());
    let removing = File::open(cache.path(&id, "ext4")).unwrap();
    removing.try_lock().unwrap();
    assert!(get(&cache, &id).is_none());
    drop(removing);
    assert!(get(&cache, &id).is_some());
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
        let layer = make(&cache, &id, &tar).unwrap();
        let side = File::open(cache.path(&id, "json")).unwrap();
        side.set_modified(now - days * DAY).unwrap();
        made.push((id, layer));
    }
    let all = cache.entries().unwrap();
    assert_eq!(
        all.iter().map(|entry| entry.blob).collect::<Vec<_>>(),
        made.iter().map(|(id, _)| *id).collect::<Vec<_>>()
    );
    let week = Keep {
        used_within: Some(7 * DAY),
        ..Keep::default()
    };
    // As the VMM holds it: a duplicate of the descriptor.
    let in_vmm = made[1].1.file.try_clone().unwrap();
    let ids: Vec<_> = made.into_iter().map(|(id, _)| id).collect();
    let removed = |collected: Collected| collected.removed.into_iter().map(|entry| entry.blob).collect::<Vec<_>>();
    assert_eq!(removed(cache.collect(week, now, true).unwrap()), ids[..1], "only said");
    assert_eq!(removed(cache.collect(week, now, false).unwrap()), ids[..1]);
    assert!(get(&cache, &ids[0]).is_none());
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
    let whole = make(&cache, &id, &tar).unwrap();
    assert!(!cache.remove_damaged(&whole).unwrap() && cache.verify().unwrap().is_empty());
    let image = OpenOptions::new().write(true).open(cache.path(&id, "ext4")).unwrap();
    image.write_at(b"\xff", 8000).unwrap();
    let damaged = get(&cache, &id).expect("nothing shows from outside");
    assert!(cache.remove_damaged(&damaged).unwrap());
    assert!(get(&cache, &id).is_none());
    let again = make(&cache, &id, &tar).unwrap();
    assert_eq!(again.root_hash, whole.root_hash);
    // Who still has the damaged file does not remove the new one.
    assert!(cache.remove_damaged(&damaged).unwrap() && get(&cache, &id).is_some());
    let image = OpenOptions::new().write(true).open(cache.path(&id, "ext4")).unwrap();
    image.write_at(b"\xff", again.bytes() - 1).unwrap();
    assert_eq!(cache.verify().unwrap(), [id]);
    assert!(files(&cache).is_empty());
}
