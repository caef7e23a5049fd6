//! What a cache holds, judged against the blobs that it was made from.

use crate::blobs::Sample;
use layer::{Converted, Limits, RootHash};
use layer_cache::Cache;
use std::{fs, fs::File, os::unix::fs::FileExt, path::Path};

/// What became of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A shim converts it.
    Absent,
    /// Every block of image and tree is the blob's.
    Right,
    /// A shim would use it.
    Wrong(String),
}

/// What the layer must be, from its blob alone.
pub fn expected(sample: &Sample) -> Converted {
    let blob = File::open(&sample.path).expect("a blob");
    layer::hash(blob, &Limits::default()).expect("a layer")
}

/// Opens the layer as a shim does, and reads all of it.
pub fn judge(cache: &Cache, sample: &Sample, expected: impl FnOnce() -> Converted) -> Found {
    let found = match cache.get(&sample.wanted) {
        Ok(Some(found)) => found,
        Ok(None) => return Found::Absent,
        Err(error) => return Found::Wrong(error.to_string()),
    };
    let expected = expected();
    let (root, blocks) = (RootHash(found.root_hash), found.data_blocks);
    if (root, blocks) != (expected.root_hash, expected.data_blocks) {
        return Found::Wrong(format!("its description is of another image: {root}, {blocks} blocks"));
    }
    let mut read_at = |buffer: &mut [u8], at| found.file.read_exact_at(buffer, at);
    match layer::is_whole(&mut read_at, blocks, &root) {
        Ok(true) => Found::Right,
        Ok(false) => Found::Wrong("a block of its file is not the layer's".to_owned()),
        Err(error) => Found::Wrong(error.to_string()),
    }
}

/// Suffixes of the files in the cache below `dir`, with the slots' whole names.
pub fn suffixes(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir.join("layers")).expect("a cache");
    let names = names.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.map(|name| name.rsplit('.').next().unwrap_or_default().to_owned()).collect()
}

/// How many files are there of a conversion that has not ended: temporary ones, locks, and images without a description.
pub fn unfinished(dir: &Path) -> usize {
    let suffixes = suffixes(dir);
    let count = |suffix: &str| suffixes.iter().filter(|other| *other == suffix).count();
    count("converting") + count("describing") + count("lock") + count("ext4").abs_diff(count("json"))
}
