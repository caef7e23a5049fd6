//! Removes what processes left that were killed while they converted a layer.
//!
//! A conversion holds the lock of its blob as long as it lives, so whatever lies under a free lock is nobody's: the files
//! being written, the lock's own file, and an image without its `<hex>.json` or the other way round.

use super::{Cache, same_file};
use oci::Digest;
use std::{collections::BTreeMap, fs, fs::File};

impl Cache {
    /// Sweeps once; what cannot be removed is left, with a log line.
    pub(super) fn sweep(&self) {
        let mut files: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            if let Some((hex, suffix)) = name.split_once('.') {
                files.entry(hex.to_owned()).or_default().push(suffix.to_owned());
            }
        }
        for (hex, suffixes) in files {
            let has = |suffix: &str| suffixes.iter().any(|s| s == suffix);
            let left = has("converting") || has("describing") || has("lock") || has("ext4") != has("json");
            if let Some(blob) = format!("sha256:{hex}").parse().ok().filter(|_| left) {
                self.sweep_one(&blob);
            }
        }
    }

    fn sweep_one(&self, blob: &Digest) {
        let path = self.path(blob, "lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let Some(lock) = lock.ok().filter(|lock| lock.try_lock().is_ok() && same_file(lock, &path)) else {
            // A conversion is under way.
            return;
        };
        for suffix in ["converting", "describing"] {
            if fs::remove_file(self.path(blob, suffix)).is_ok() {
                log::info!("removed what a killed conversion of blob {blob} left");
            }
        }
        if !self.path(blob, "json").exists() {
            let _ = fs::remove_file(self.path(blob, "ext4"));
        } else if !self.path(blob, "ext4").exists() {
            let _ = fs::remove_file(self.path(blob, "json"));
        }
        if let Err(error) = fs::remove_file(&path) {
            log::warn!("cannot remove {}: {error}", path.display());
        }
        drop(lock);
    }
}
