//! Removes layers that are not worth their room: by last use and by size, never one that a VM uses.

use super::{Cache, CacheError, at, conversion::Lock, is_locked, same_file};
use oci::Digest;
use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    time::{Duration, SystemTime},
};

/// Bytes of a block of `st_blocks` (stat(2)).
const STAT_BLOCK: u64 = 512;

/// What is kept; without a bound, everything is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keep {
    /// Layers that were used within this time.
    pub used_within: Option<Duration>,
    /// Of these, so many bytes of the last used.
    pub bytes: Option<u64>,
}

/// A layer in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Digest of its blob.
    pub blob: Digest,
    /// Room that it takes on the disk.
    pub bytes: u64,
    /// When a container last used it.
    pub last_used: SystemTime,
}

/// What was removed and what is left.
#[derive(Debug, Default)]
pub struct Collected {
    /// Removed, the longest unused first.
    pub removed: Vec<Entry>,
    /// Left, those that a VM uses included.
    pub kept: Vec<Entry>,
}

impl Cache {
    /// Every complete layer, the longest unused first.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn entries(&self) -> Result<Vec<Entry>, CacheError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(at("read", &self.dir))? {
            let name = entry.map_err(at("read", &self.dir))?.file_name();
            let hex = name.to_str().and_then(|name| name.strip_suffix(".json"));
            let Some(blob) = hex.and_then(|hex| format!("sha256:{hex}").parse().ok()) else {
                continue;
            };
            found.extend(self.entry(blob));
        }
        found.sort_by_key(|entry| entry.last_used);
        Ok(found)
    }

    /// `None` when another process removes it right now.
    fn entry(&self, blob: Digest) -> Option<Entry> {
        let image = fs::metadata(self.path(&blob, "ext4")).ok()?;
        let side = fs::metadata(self.path(&blob, "json")).ok()?;
        Some(Entry {
            bytes: image.blocks() * STAT_BLOCK,
            last_used: side.modified().ok()?,
            blob,
        })
    }

    /// Removes what is not to be kept; with `dry_run`, only says what that is.
    ///
    /// # Errors
    /// When the directory cannot be read, or a file in it cannot be removed.
    pub fn collect(&self, keep: Keep, now: SystemTime, dry_run: bool) -> Result<Collected, CacheError> {
        let entries = self.entries()?;
        let mut bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
        let mut collected = Collected::default();
        for entry in entries {
            // A time in the future is one of a clock that was set back.
            let unused = now.duration_since(entry.last_used).unwrap_or_default();
            let old = keep.used_within.is_some_and(|within| unused > within);
            let too_much = keep.bytes.is_some_and(|most| bytes > most);
            if (old || too_much) && self.remove_unused(&entry.blob, dry_run)? {
                bytes -= entry.bytes;
                collected.removed.push(entry);
            } else {
                collected.kept.push(entry);
            }
        }
        Ok(collected)
    }

    /// Checks every layer and removes the damaged ones, and those that no conversion of this version made; returns their blobs.
    ///
    /// # Errors
    /// When a file cannot be read or removed.
    pub fn verify(&self) -> Result<Vec<Digest>, CacheError> {
        let mut damaged = Vec::new();
        for Entry { blob, .. } in self.entries()? {
            if self.geometry(&blob)?.is_none() {
                // A conversion that is under way is about to replace it.
                let lock = Lock::take(self.path(&blob, "lock"))?;
                if lock.is_some() && self.geometry(&blob)?.is_none() {
                    self.remove(&blob)?;
                    damaged.push(blob);
                }
            } else if let Some(layer) = self.open_one(&blob)?
                && self.remove_damaged(&layer)?
            {
                damaged.push(blob);
            }
        }
        Ok(damaged)
    }

    /// Removes a layer that no VM uses and nobody converts; false when somebody does.
    fn remove_unused(&self, blob: &Digest, dry_run: bool) -> Result<bool, CacheError> {
        // A conversion is about to replace the files, and those that would be removed here could be the new ones. Who begins one
        // meanwhile waits, and does not take a layer that is only looked at for one that is removed.
        let Some(_lock) = Lock::take(self.path(blob, "lock"))? else {
            return Ok(false);
        };
        let path = self.path(blob, "ext4");
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
            other => other.map_err(at("open", &path))?,
        };
        // Held until both files are gone: a container that opens the image meanwhile finds it locked.
        let free = is_locked(&path, file.try_lock())? && same_file(&file, &path);
        if free && !dry_run {
            self.remove(blob)?;
        }
        Ok(free)
    }
}
