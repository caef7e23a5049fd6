//! Converted layers on this host, by the digest of their blob: `<hex>.ext4` holds image and tree, `<hex>.json` what a mount needs.
//!
//! A layer is either complete or absent, whenever processes are killed or the power fails:
//!
//! ```text
//! <hex>.converting ─ written, fsync ──┐
//! <hex>.describing ─ written, fsync ──┴─► both names of an older layer go ─► <hex>.ext4 ─► <hex>.json ─► fsync of the directory
//! ```
//! Both contents are on the disk before either has its name, `<hex>.json` gets its own last, and no `<hex>.json` is left that is about
//! an image before. The disk may still lose what it said it had: the guest does not trust these files, and opens every layer with
//! the root hash in its policy; [`Cache::remove_damaged`] is for the layer that it cannot use.
//!
//! The key is the blob and not the diff id, because the diff id is the image's own statement: a hostile image can name the diff
//! id of a layer that other images use, and a converter that its blob took over can confirm it. What such a converter writes is
//! found by those who use the same blob alone, which is named by what is in it. `<hex>.json` holds the diff id too, and a layer
//! that is wanted under another one is converted again.
//!
//! An opened layer carries a shared lock on its file, which goes with the descriptor to the VMM and lasts as long as that has
//! the file open. [`Cache::collect`] removes a layer only under an exclusive lock, so never one that a VM uses. The time of
//! `<hex>.json` is that of the last use.
//!
//! A conversion ([`Conversion`]) holds the lock of its blob, and one of the node's [`Slot`]s. Nothing here waits for a lock.
#![forbid(unsafe_code)]

mod collect;
mod conversion;
mod slots;
mod sweep;

pub use collect::{Collected, Entry, Keep};
pub use conversion::{Conversion, Turn};
pub use slots::{SLOTS, Slot};

use conversion::Lock;
use layer::{BLOCK_BYTES, RootHash};
use oci::Digest;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Where the cache is unless the node's configuration names another directory.
pub const DEFAULT_ROOT: &str = "/var/lib/casemate";

/// Why a layer is not in the cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// A system call on a file of the cache failed.
    #[error("cannot {doing} {}", path.display())]
    Path {
        /// The operation.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// The blob is not the layer that the image config names.
    #[error("the blob of layer {expected} holds another layer, {actual}")]
    DiffId {
        /// The diff id in the image config.
        expected: String,
        /// The diff id of the blob.
        actual: String,
    },
    /// The converter's statement is not about the file that it wrote.
    #[error("the converter of layer {0} described another image than it wrote")]
    Geometry(String),
    /// Another process has made a file of that name while this one had the lock.
    #[error("{} was replaced while it was written: only the cache itself may remove lock files", .0.display())]
    Replaced(PathBuf),
}

/// Mode of the directory: who can open a file can lock it, and images may contain what not every user of the host may read.
const MODE: u32 = 0o700;

/// The directory of converted layers.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
}

/// Which layer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Digest of the uncompressed tar, as the image's config says.
    pub diff_id: Digest,
    /// Digest of the blob, as the image's manifest says.
    pub blob: Digest,
}

/// The content of `<hex>.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Geometry {
    #[serde(serialize_with = "as_text")]
    diff_id: Digest,
    root_hash: vm_spec::HostData,
    data_blocks: u64,
    total_blocks: u64,
}

/// A converted layer, opened.
#[derive(Debug)]
pub struct CachedLayer {
    /// ext4 data, verity superblock and tree.
    pub file: File,
    /// Digest of the blob.
    pub blob: Digest,
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// dm-verity root hash.
    pub root_hash: [u8; 32],
    /// Blocks of the ext4 image.
    pub data_blocks: u64,
    /// Blocks of image, superblock and tree.
    pub total_blocks: u64,
}

impl CachedLayer {
    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        // A description that the disk damaged may say anything.
        self.total_blocks.saturating_mul(BLOCK_BYTES as u64)
    }
}

impl Cache {
    /// Opens the cache in `dir`; creates it if it is missing, for this user only, and removes what killed processes left.
    ///
    /// # Errors
    /// When the directory cannot be created.
    pub fn open(dir: &Path) -> Result<Self, CacheError> {
        let dir = dir.join("layers");
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(MODE).create(&dir).map_err(at("create", &dir))?;
        // One of an older version, which only its owner can change.
        if let Err(error) = fs::set_permissions(&dir, Permissions::from_mode(MODE)) {
            log::debug!("the mode of {} stays: {error}", dir.display());
        }
        let cache = Self { dir };
        cache.sweep();
        Ok(cache)
    }

    fn path(&self, blob: &Digest, suffix: &str) -> PathBuf {
        self.dir.join(format!("{}.{suffix}", blob.hex()))
    }

    /// The layer, if it is there and complete; its use is noted.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn get(&self, wanted: &Wanted) -> Result<Option<CachedLayer>, CacheError> {
        match self.open_one(&wanted.blob)? {
            Some(layer) if layer.diff_id == wanted.diff_id => {
                self.note_use(&wanted.blob);
                Ok(Some(layer))
            }
            _ => Ok(None),
        }
    }

    /// The layer of this blob, if it is there and complete.
    fn open_one(&self, blob: &Digest) -> Result<Option<CachedLayer>, CacheError> {
        let Some(geometry) = self.geometry(blob)? else { return Ok(None) };
        let path = self.path(blob, "ext4");
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(at("open", &path))?,
        };
        // One that is being removed counts as absent.
        if !is_locked(&path, file.try_lock_shared())? || !same_file(&file, &path) {
            return Ok(None);
        }
        let length = file.metadata().map_err(at("read the length of", &path))?.len();
        let layer = opened(blob, geometry, file);
        Ok((length == layer.bytes()).then_some(layer))
    }

    /// What `<hex>.json` says; an invalid one counts as absent, so that the layer is converted again.
    fn geometry(&self, blob: &Digest) -> Result<Option<Geometry>, CacheError> {
        let side = self.path(blob, "json");
        match fs::read(&side) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            other => {
                let geometry: Option<Geometry> = serde_json::from_slice(&other.map_err(at("read", &side))?).ok();
                Ok(geometry.filter(|geometry| layer::total_blocks(geometry.data_blocks) == Some(geometry.total_blocks)))
            }
        }
    }

    fn note_use(&self, blob: &Digest) {
        let noted = File::open(self.path(blob, "json")).and_then(|side| side.set_modified(SystemTime::now()));
        if let Err(error) = noted {
            log::debug!("the use of blob {blob} is not noted: {error}");
        }
    }

    /// Removes the layer if its file is damaged: its tree is not the one of its data, or its root is another. A VM that uses the
    /// file goes on with it. True when it is damaged.
    ///
    /// # Errors
    /// When the file cannot be read or removed.
    pub fn remove_damaged(&self, layer: &CachedLayer) -> Result<bool, CacheError> {
        let path = self.path(&layer.blob, "ext4");
        // The position of the file is the VMM's too.
        let mut read_at = |buffer: &mut [u8], offset| layer.file.read_exact_at(buffer, offset);
        if layer::is_whole(&mut read_at, layer.data_blocks, &RootHash(layer.root_hash)).map_err(at("read", &path))? {
            return Ok(false);
        }
        // Another process may have made it anew meanwhile, or be about to.
        let lock = Lock::take(self.path(&layer.blob, "lock"))?;
        if lock.is_some() && same_file(&layer.file, &path) {
            log::warn!("layer {} is damaged in the cache: it is removed", layer.diff_id);
            self.remove(&layer.blob)?;
        }
        Ok(true)
    }

    /// Removes both files, the one that makes the layer known first; whoever calls this has the lock of the blob.
    fn remove(&self, blob: &Digest) -> Result<(), CacheError> {
        // The image's blocks can be another file's as soon as it has no name: ext4 with data=writeback does not wait for its journal.
        // A description that comes back after a power cut would make those the layer.
        if unlink(&self.path(blob, "json"))? {
            self.sync()?;
        }
        unlink(&self.path(blob, "ext4")).map(drop)
    }

    /// Flushes the names of the files to the disk.
    fn sync(&self) -> Result<(), CacheError> {
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(at("write", &self.dir))
    }
}

/// Whether there was a file to remove.
fn unlink(path: &Path) -> Result<bool, CacheError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other.map(|()| true).map_err(at("remove", path)),
    }
}

/// Whether a lock was taken; false when another process has one that excludes it.
fn is_locked(path: &Path, tried: Result<(), TryLockError>) -> Result<bool, CacheError> {
    match tried {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(at("lock", path)(error)),
    }
}

fn opened(blob: &Digest, geometry: Geometry, file: File) -> CachedLayer {
    CachedLayer {
        file,
        blob: *blob,
        diff_id: geometry.diff_id,
        root_hash: geometry.root_hash.0,
        data_blocks: geometry.data_blocks,
        total_blocks: geometry.total_blocks,
    }
}

fn as_text<S: serde::Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(digest)
}

/// Whether a locked file is still the one at `path`: the previous owner may have removed it.
fn same_file(locked: &File, path: &Path) -> bool {
    match (locked.metadata(), fs::metadata(path)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

fn at<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> CacheError + use<'a> {
    move |source| CacheError::Path {
        doing,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
