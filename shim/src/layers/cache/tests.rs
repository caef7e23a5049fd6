//! The cache, with conversions of small tars.

use super::*;

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
