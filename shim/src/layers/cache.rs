//! Converted layers on this host, by diff id: `<hex>.ext4` with its tree, and `<hex>.json` with what a mount needs.
//!
//! The side file gets its name last, so that a layer is either whole or absent. The host is not trusted with any of it:
//! the guest opens every layer with the root hash that its policy names.

use super::image::Digest;
use layer::{BLOCK_BYTES, ConvertError, Limits};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter, Read},
    path::{Path, PathBuf},
};

/// Buffers before and behind the converter, in bytes.
const BUFFER_BYTES: usize = 256 * 1024;

/// Why a layer is not in the cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// A system call on a file of the cache failed.
    #[error("cannot {doing} {}", path.display())]
    Path {
        /// What was tried.
        doing: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The layer cannot be converted.
    #[error("layer {0} cannot be converted")]
    Convert(String, #[source] Box<ConvertError>),
    /// The blob is not the layer that the image's configuration names.
    #[error("the blob of layer {expected} holds another layer, {actual}")]
    DiffId {
        /// What the configuration says.
        expected: String,
        /// What the blob is.
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

/// What a mount of a layer needs.
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
    /// Digest of the uncompressed tar, 64 hex digits.
    pub diff_id: String,
    /// dm-verity root hash.
    pub root_hash: [u8; 32],
    /// Blocks of ext4.
    pub data_blocks: u64,
    /// Blocks of everything.
    pub total_blocks: u64,
}

impl CachedLayer {
    /// Length in bytes.
    pub fn bytes(&self) -> u64 {
        self.total_blocks * BLOCK_BYTES as u64
    }
}

impl Cache {
    /// The cache in `dir`, made if it is missing.
    pub fn open(dir: &Path) -> Result<Self, CacheError> {
        let dir = dir.join("layers");
        fs::create_dir_all(&dir).map_err(at("make", &dir))?;
        Ok(Self { dir })
    }

    fn path(&self, diff_id: &Digest, suffix: &str) -> PathBuf {
        self.dir.join(format!("{}.{suffix}", diff_id.hex()))
    }

    /// The layer if it is there, whole.
    pub fn get(&self, diff_id: &Digest) -> Result<Option<CachedLayer>, CacheError> {
        let side = self.path(diff_id, "json");
        let text = match fs::read(&side) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(at("read", &side))?,
        };
        // A side file that cannot be used is as good as none: the layer is made again.
        let Ok(geometry) = serde_json::from_slice::<Geometry>(&text) else {
            return Ok(None);
        };
        let path = self.path(diff_id, "ext4");
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(at("open", &path))?,
        };
        let length = file.metadata().map_err(at("read the length of", &path))?.len();
        let layer = opened(diff_id, geometry, file);
        Ok((length == layer.bytes()).then_some(layer))
    }

    /// Converts `blob`, unless somebody else has in the meantime; one conversion per diff id on the whole host.
    pub fn make(&self, diff_id: &Digest, blob: impl Read + Send) -> Result<CachedLayer, CacheError> {
        let lock = self.lock(diff_id)?;
        let made = match self.get(diff_id) {
            Ok(Some(hit)) => Ok(hit),
            Ok(None) => self.convert(diff_id, blob),
            Err(error) => Err(error),
        };
        // The lock's file stays only while it is needed; whoever waits for it looks again after it is gone.
        let _ = fs::remove_file(self.path(diff_id, "lock"));
        drop(lock);
        made
    }

    /// Takes the lock of a diff id; blocks while another process converts it.
    fn lock(&self, diff_id: &Digest) -> Result<Flock<File>, CacheError> {
        let path = self.path(diff_id, "lock");
        loop {
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .map_err(at("open", &path))?;
            let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| at("lock", &path)(e.into()))?;
            if same_file(&lock, &path) {
                return Ok(lock);
            }
        }
    }

    fn convert(&self, diff_id: &Digest, blob: impl Read + Send) -> Result<CachedLayer, CacheError> {
        let started = std::time::Instant::now();
        let mut temporary = Temporary::new(self.path(diff_id, "converting"))?;
        let input = BufReader::with_capacity(BUFFER_BYTES, blob);
        let mut output = BufWriter::with_capacity(BUFFER_BYTES, &mut temporary.file);
        let converted = layer::convert(input, &mut output, &Limits::default())
            .map_err(|e| CacheError::Convert(diff_id.as_str().to_owned(), Box::new(e)))?;
        drop(output);
        if converted.diff_id.0 != diff_id.bytes() {
            return Err(CacheError::DiffId {
                expected: diff_id.as_str().to_owned(),
                actual: format!("sha256:{}", converted.diff_id),
            });
        }
        let geometry = Geometry {
            root_hash: vm_spec::HostData(converted.root_hash.0),
            data_blocks: converted.data_blocks,
            total_blocks: converted.total_blocks,
        };
        log::info!(
            "layer {} converted in {:?}: {} blocks",
            diff_id.as_str(),
            started.elapsed(),
            geometry.total_blocks
        );
        let (path, side_path) = (self.path(diff_id, "ext4"), self.path(diff_id, "json"));
        // Both are written before either has its name: a disk that fills up in between leaves no half.
        let mut side = Temporary::new(self.path(diff_id, "describing"))?;
        serde_json::to_writer(&mut side.file, &geometry).map_err(|e| at("write", &side_path)(e.into()))?;
        temporary.sync()?;
        side.sync()?;
        temporary.publish(&path)?;
        side.publish(&side_path).inspect_err(|_| {
            // What was there before is of no use either: that is why we convert.
            for half in [&path, &side_path] {
                let _ = fs::remove_file(half);
            }
        })?;
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(at("write", &self.dir))?;
        let file = File::open(&path).map_err(at("open", &path))?;
        Ok(opened(diff_id, geometry, file))
    }
}

/// A file being written under the lock of its diff id; removed unless it is published. What a killed process left
/// of it is overwritten by the next one.
struct Temporary {
    file: File,
    path: PathBuf,
}

impl Temporary {
    fn new(path: PathBuf) -> Result<Self, CacheError> {
        let file = File::create(&path).map_err(at("make", &path))?;
        Ok(Self { file, path })
    }

    /// Brings the content to the disk.
    fn sync(&self) -> Result<(), CacheError> {
        self.file.sync_all().map_err(at("write", &self.path))
    }

    /// Gives the finished file its name; its content must be on the disk by then.
    fn publish(self, path: &Path) -> Result<(), CacheError> {
        fs::rename(&self.path, path).map_err(at("name", path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Not there any more once it was published.
        let _ = fs::remove_file(&self.path);
    }
}

fn opened(diff_id: &Digest, geometry: Geometry, file: File) -> CachedLayer {
    CachedLayer {
        file,
        diff_id: diff_id.hex().to_owned(),
        root_hash: geometry.root_hash.0,
        data_blocks: geometry.data_blocks,
        total_blocks: geometry.total_blocks,
    }
}

/// Whether a locked file is still the one at `path`: its owner may have removed it while we waited.
fn same_file(locked: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
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
