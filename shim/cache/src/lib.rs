//! Converted layers on this host, by diff id: `<hex>.ext4` holds image and tree, `<hex>.json` what a mount needs.
//!
//! `<hex>.json` is renamed into place last, so a layer is either complete or absent. The guest does not trust these files:
//! it opens every layer with the root hash in its policy.
//!
//! An opened layer carries a shared lock on its file, which goes with the descriptor to the VMM and lasts as long as that has
//! the file open. [`Cache::collect`] removes a layer only under an exclusive lock, so never one that a VM uses. The time of
//! `<hex>.json` is that of the last use.
#![forbid(unsafe_code)]

mod collect;
mod sweep;

pub use collect::{Collected, Entry, Keep};

use layer::{BLOCK_BYTES, ConvertError, Limits, RootHash};
use oci::Digest;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufReader, BufWriter, Read},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Where the cache is unless the node's configuration names another directory.
pub const DEFAULT_ROOT: &str = "/var/lib/casemate";

/// Size of the converter's input and output buffers in bytes.
const BUFFER_BYTES: usize = 256 * 1024;

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
    /// The layer cannot be converted.
    #[error("layer {0} cannot be converted")]
    Convert(String, #[source] Box<ConvertError>),
    /// The blob is not the layer that the image config names.
    #[error("the blob of layer {expected} holds another layer, {actual}")]
    DiffId {
        /// The diff id in the image config.
        expected: String,
        /// The diff id of the blob.
        actual: String,
    },
    /// The converter panicked.
    #[error("the layer converter failed")]
    Panicked,
}

/// The directory of converted layers.
#[derive(Clone)]
pub struct Cache {
    dir: PathBuf,
}

/// The content of `<hex>.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Geometry {
    root_hash: vm_spec::HostData,
    data_blocks: u64,
    total_blocks: u64,
}

/// A converted layer, opened.
#[derive(Debug)]
pub struct CachedLayer {
    /// ext4 data, verity superblock and tree.
    pub file: File,
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
        self.total_blocks * BLOCK_BYTES as u64
    }
}

impl Cache {
    /// Opens the cache in `dir`; creates it if it is missing, and removes what killed processes left.
    ///
    /// # Errors
    /// When the directory cannot be created.
    pub fn open(dir: &Path) -> Result<Self, CacheError> {
        let dir = dir.join("layers");
        fs::create_dir_all(&dir).map_err(at("create", &dir))?;
        let cache = Self { dir };
        cache.sweep();
        Ok(cache)
    }

    fn path(&self, diff_id: &Digest, suffix: &str) -> PathBuf {
        self.dir.join(format!("{}.{suffix}", diff_id.hex()))
    }

    /// The layer, if it is there and complete; its use is noted.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn get(&self, diff_id: &Digest) -> Result<Option<CachedLayer>, CacheError> {
        let Some(geometry) = self.geometry(diff_id)? else { return Ok(None) };
        let path = self.path(diff_id, "ext4");
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(at("open", &path))?,
        };
        // One that is being removed counts as absent.
        if !is_locked(&path, file.try_lock_shared())? || !same_file(&file, &path) {
            return Ok(None);
        }
        let length = file.metadata().map_err(at("read the length of", &path))?.len();
        let layer = opened(diff_id, geometry, file);
        if length != layer.bytes() {
            return Ok(None);
        }
        self.note_use(diff_id);
        Ok(Some(layer))
    }

    /// What `<hex>.json` says; an invalid one counts as absent, so that the layer is converted again.
    fn geometry(&self, diff_id: &Digest) -> Result<Option<Geometry>, CacheError> {
        let side = self.path(diff_id, "json");
        match fs::read(&side) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            other => Ok(serde_json::from_slice(&other.map_err(at("read", &side))?).ok()),
        }
    }

    fn note_use(&self, diff_id: &Digest) {
        let noted = File::open(self.path(diff_id, "json")).and_then(|side| side.set_modified(SystemTime::now()));
        if let Err(error) = noted {
            log::debug!("the use of layer {diff_id} is not noted: {error}");
        }
    }

    /// Removes the layer if its file is damaged: its tree is not the one of its data, or its root is another. A VM that uses the
    /// file goes on with it. True when it was removed.
    ///
    /// # Errors
    /// When the file cannot be read or removed.
    pub fn remove_damaged(&self, layer: &CachedLayer) -> Result<bool, CacheError> {
        let path = self.path(&layer.diff_id, "ext4");
        // The position of the file is the VMM's too.
        let mut content = Content { file: &layer.file, at: 0 };
        let mut content = BufReader::with_capacity(BUFFER_BYTES, &mut content);
        if layer::is_whole(&mut content, layer.data_blocks, &RootHash(layer.root_hash)).map_err(at("read", &path))? {
            return Ok(false);
        }
        // Another process may have made it anew meanwhile.
        if same_file(&layer.file, &path) {
            log::warn!("layer {} is damaged in the cache: it is removed", layer.diff_id);
            self.remove(&layer.diff_id)?;
        }
        Ok(true)
    }

    /// Removes both files, the one that makes the layer known first.
    fn remove(&self, diff_id: &Digest) -> Result<(), CacheError> {
        for suffix in ["json", "ext4"] {
            let path = self.path(diff_id, suffix);
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(at("remove", &path)(e)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Converts `blob`, unless another process has done so; a lock allows one conversion per diff id on the host.
    ///
    /// # Errors
    /// When the blob is not the layer, or a file cannot be written.
    pub fn make(&self, diff_id: &Digest, blob: impl Read + Send) -> Result<CachedLayer, CacheError> {
        let lock = self.lock(diff_id)?;
        let made = match self.get(diff_id) {
            Ok(Some(hit)) => Ok(hit),
            Ok(None) => self.convert(diff_id, blob),
            Err(error) => Err(error),
        };
        // A process that waits for the lock notices that its file is gone, and opens a new one.
        let _ = fs::remove_file(self.path(diff_id, "lock"));
        drop(lock);
        made
    }

    /// Takes the lock of a diff id; blocks while another process converts it.
    fn lock(&self, diff_id: &Digest) -> Result<File, CacheError> {
        let path = self.path(diff_id, "lock");
        loop {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .map_err(at("open", &path))?;
            file.lock().map_err(at("lock", &path))?;
            if same_file(&file, &path) {
                return Ok(file);
            }
        }
    }

    fn convert(&self, diff_id: &Digest, blob: impl Read + Send) -> Result<CachedLayer, CacheError> {
        let started = std::time::Instant::now();
        let mut temporary = Temporary::new(self.path(diff_id, "converting"))?;
        let input = BufReader::with_capacity(BUFFER_BYTES, blob);
        let mut output = BufWriter::with_capacity(BUFFER_BYTES, &mut temporary.file);
        let converted =
            layer::convert(input, &mut output, &Limits::default()).map_err(|e| CacheError::Convert(diff_id.to_string(), Box::new(e)))?;
        drop(output);
        if converted.diff_id != *diff_id {
            return Err(CacheError::DiffId {
                expected: diff_id.to_string(),
                actual: converted.diff_id.to_string(),
            });
        }
        let geometry = Geometry {
            root_hash: vm_spec::HostData(converted.root_hash.0),
            data_blocks: converted.data_blocks,
            total_blocks: converted.total_blocks,
        };
        log::info!(
            "layer {} converted in {:?}: {} blocks",
            diff_id,
            started.elapsed(),
            geometry.total_blocks
        );
        if !converted.notes.is_empty() {
            log::warn!("layer {diff_id}: {}", converted.notes);
        }
        let (path, side_path) = (self.path(diff_id, "ext4"), self.path(diff_id, "json"));
        // Both files are written before either is renamed, so a full disk cannot leave one without the other.
        let mut side = Temporary::new(self.path(diff_id, "describing"))?;
        serde_json::to_writer(&mut side.file, &geometry).map_err(|e| at("write", &side_path)(e.into()))?;
        temporary.sync()?;
        side.sync()?;
        temporary.publish(&path)?;
        side.publish(&side_path).inspect_err(|_| {
            // Older files were unusable too, else there would be no conversion.
            for half in [&path, &side_path] {
                let _ = fs::remove_file(half);
            }
        })?;
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(at("write", &self.dir))?;
        let file = File::open(&path).map_err(at("open", &path))?;
        is_locked(&path, file.try_lock_shared())?;
        Ok(opened(diff_id, geometry, file))
    }
}

/// The bytes of a file from the beginning, without moving its position.
struct Content<'a> {
    file: &'a File,
    at: u64,
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
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

/// A file being written under the lock of its diff id; removed on drop unless published. A file that a killed process
/// left is overwritten.
struct Temporary {
    file: File,
    path: PathBuf,
}

impl Temporary {
    fn new(path: PathBuf) -> Result<Self, CacheError> {
        let file = File::create(&path).map_err(at("create", &path))?;
        Ok(Self { file, path })
    }

    /// Flushes the content to the disk.
    fn sync(&self) -> Result<(), CacheError> {
        self.file.sync_all().map_err(at("write", &self.path))
    }

    /// Renames the finished file to `path`; call [`Self::sync`] first.
    fn publish(self, path: &Path) -> Result<(), CacheError> {
        fs::rename(&self.path, path).map_err(at("rename a file to", path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Fails if the file was published, which is fine.
        let _ = fs::remove_file(&self.path);
    }
}

fn opened(diff_id: &Digest, geometry: Geometry, file: File) -> CachedLayer {
    CachedLayer {
        file,
        diff_id: *diff_id,
        root_hash: geometry.root_hash.0,
        data_blocks: geometry.data_blocks,
        total_blocks: geometry.total_blocks,
    }
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
