//! A conversion under way: the lock of its blob, the file that the converter writes, and what makes it a layer of the cache.

use super::{Cache, CacheError, CachedLayer, Geometry, Wanted, at, is_locked, opened, same_file};
use layer::{BLOCK_BYTES, Converted};
use oci::Digest;
use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    time::Instant,
};

/// What there is to do for a layer that is wanted.
#[derive(Debug)]
pub enum Turn {
    /// Nothing: it is in the cache.
    Made(CachedLayer),
    /// It must be converted, by whoever has this.
    Ours(Conversion),
    /// Somebody converts the same blob: ask again later.
    Theirs,
}

/// A layer that only its owner converts. Dropped without [`Self::finish`] it leaves nothing.
#[derive(Debug)]
pub struct Conversion {
    cache: Cache,
    wanted: Wanted,
    started: Instant,
    // Goes before the lock does.
    image: Temporary,
    _lock: Lock,
}

impl Cache {
    /// The layer, or the right to convert it; a lock allows one conversion per blob on the host.
    ///
    /// # Errors
    /// When a file cannot be opened.
    pub fn begin(&self, wanted: &Wanted) -> Result<Turn, CacheError> {
        if let Some(hit) = self.get(wanted)? {
            return Ok(Turn::Made(hit));
        }
        let Some(lock) = Lock::take(self.path(&wanted.blob, "lock"))? else {
            return Ok(Turn::Theirs);
        };
        // The last owner of the lock may have made it meanwhile.
        if let Some(hit) = self.get(wanted)? {
            return Ok(Turn::Made(hit));
        }
        Ok(Turn::Ours(Conversion {
            cache: self.clone(),
            wanted: *wanted,
            started: Instant::now(),
            image: Temporary::new(self.path(&wanted.blob, "converting"))?,
            _lock: lock,
        }))
    }
}

impl Conversion {
    /// The file for the image, open for writing.
    ///
    /// # Errors
    /// When this process has no descriptor left.
    pub fn image(&self) -> Result<File, CacheError> {
        self.image.file.try_clone().map_err(at("open", &self.image.path))
    }

    /// Makes what was written a layer of the cache. `converted` is the word of a converter that nobody trusts: the guest checks
    /// the root hash, and here it must be about the layer that was wanted and fit the file.
    ///
    /// # Errors
    /// When it is another layer, or a file cannot be written.
    pub fn finish(self, converted: &Converted) -> Result<CachedLayer, CacheError> {
        let layer = self.wanted.diff_id;
        self.finish_of(converted, layer)
    }

    /// As [`Self::finish`], where the converter was given another tar than the layer's: `tar` is its digest.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub fn finish_of(self, converted: &Converted, tar: Digest) -> Result<CachedLayer, CacheError> {
        let Self { cache, wanted, image, .. } = &self;
        if converted.diff_id != tar {
            return Err(CacheError::DiffId {
                expected: tar.to_string(),
                actual: converted.diff_id.to_string(),
            });
        }
        let length = image.file.metadata().map_err(at("read the length of", &image.path))?.len();
        let described = converted.total_blocks.checked_mul(BLOCK_BYTES as u64);
        let fits = layer::total_blocks(converted.data_blocks) == Some(converted.total_blocks);
        if described != Some(length) || converted.data_blocks == 0 || !fits {
            return Err(CacheError::Geometry(wanted.diff_id.to_string()));
        }
        let geometry = Geometry {
            diff_id: wanted.diff_id,
            root_hash: vm_spec::HostData(converted.root_hash.0),
            data_blocks: converted.data_blocks,
            total_blocks: converted.total_blocks,
        };
        log::info!(
            "layer {} converted in {:?}: {} blocks",
            wanted.diff_id,
            self.started.elapsed(),
            geometry.total_blocks
        );
        if !converted.notes.is_empty() {
            log::warn!("layer {}: {}", wanted.diff_id, converted.notes);
        }
        let (path, side_path) = (cache.path(&wanted.blob, "ext4"), cache.path(&wanted.blob, "json"));
        // Both files are written before either is renamed, so a full disk cannot leave one without the other.
        let mut side = Temporary::new(cache.path(&wanted.blob, "describing"))?;
        serde_json::to_writer(&mut side.file, &geometry).map_err(|e| at("write", &side_path)(e.into()))?;
        image.sync()?;
        side.sync()?;
        // Nobody can have locked a file that has no name yet, and nobody collects it from the moment at which others see it.
        let file = File::open(&image.path).map_err(at("open", &image.path))?;
        is_locked(&image.path, file.try_lock_shared())?;
        // What is there is unusable, or there would be no conversion. Its description would be taken for one of the new image by whoever
        // comes when only that has its name.
        cache.remove(&wanted.blob)?;
        image.publish(&path)?;
        side.publish(&side_path).inspect_err(|_| {
            let _ = fs::remove_file(&path);
        })?;
        cache.sync()?;
        Ok(opened(&wanted.blob, geometry, file))
    }
}

/// The lock of a blob. Its file goes first, so that whoever waits for it notices, and opens a new one.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    file: File,
}

impl Lock {
    /// `None` while another process or conversion has it.
    pub(super) fn take(path: PathBuf) -> Result<Option<Self>, CacheError> {
        loop {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .map_err(at("open", &path))?;
            if !is_locked(&path, file.try_lock())? {
                return Ok(None);
            }
            if same_file(&file, &path) {
                return Ok(Some(Self { path, file }));
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // If somebody has removed it already, the file there is another process's lock.
        if same_file(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A file being written under the lock of its blob; removed on drop unless published. A file that a killed process
/// left is replaced: its converter may have a last write to make.
#[derive(Debug)]
struct Temporary {
    file: File,
    path: PathBuf,
}

impl Temporary {
    fn new(path: PathBuf) -> Result<Self, CacheError> {
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(at("remove", &path)(e)),
            _ => {}
        }
        let file = File::create_new(&path).map_err(at("create", &path))?;
        Ok(Self { file, path })
    }

    /// Flushes the content to the disk.
    fn sync(&self) -> Result<(), CacheError> {
        self.file.sync_all().map_err(at("write", &self.path))
    }

    /// Renames the finished file to `path`; call [`Self::sync`] first.
    fn publish(&self, path: &Path) -> Result<(), CacheError> {
        if !same_file(&self.file, &self.path) {
            return Err(CacheError::Replaced(self.path.clone()));
        }
        fs::rename(&self.path, path).map_err(at("rename a file to", path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Not there any more if it was published, and another process's if somebody removed the lock.
        if same_file(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
