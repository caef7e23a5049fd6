//! Root hashes of layers that were converted before: a policy of an image whose layers are known needs none of their blobs.
//!
//! An entry is a file named by the blob's digest. It says which diff id the blob unpacked to, by which format it was converted, what came
//! of it, and a SHA-256 over all that: an entry that is damaged, of another image or of another format is none. The sum does not stop
//! somebody who writes entries on purpose, so a directory that belongs to another user, or that others may write to, is not used.

use layer::{Converted, FORMAT, Notes, RootHash};
use oci::Digest;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;
use thiserror::Error;

/// Longest entry in bytes.
const ENTRY_MAX_BYTES: u64 = 4096;
/// Begins what an entry's sum is over.
const SUM: &str = "casemate root hash 1";
/// Permissions by which others could write.
const OTHERS_WRITE: u32 = 0o022;

/// A directory of entries.
#[derive(Debug, Clone)]
pub struct RootCache {
    directory: PathBuf,
}

/// Why a directory is not used.
#[derive(Debug, Error)]
pub enum RootCacheError {
    /// It cannot be made or written to.
    #[error("the cache of root hashes {} cannot be used", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Others could have written what is in it.
    #[error("the cache of root hashes {} is not used: it is not a directory of yours alone (chmod go-w, or remove it)", .0.display())]
    Shared(PathBuf),
}

/// What is known of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownLayer {
    /// Root of its dm-verity tree.
    pub root_hash: RootHash,
    /// What a guest will show otherwise than the layer says.
    pub notes: Notes,
}

impl From<&Converted> for KnownLayer {
    fn from(converted: &Converted) -> Self {
        Self {
            root_hash: converted.root_hash,
            notes: converted.notes,
        }
    }
}

/// An entry's content.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    format: u32,
    blob: String,
    diff_id: String,
    root_hash: String,
    access_lists: u64,
    times: u64,
    /// Over the other fields.
    sum: String,
}

impl Entry {
    fn new(blob: Digest, diff_id: Digest, known: &KnownLayer) -> Self {
        let mut entry = Self {
            format: FORMAT,
            blob: blob.to_string(),
            diff_id: diff_id.to_string(),
            root_hash: known.root_hash.to_string(),
            access_lists: known.notes.access_lists,
            times: known.notes.times,
            sum: String::new(),
        };
        entry.sum = entry.expected_sum();
        entry
    }

    fn expected_sum(&self) -> String {
        let Self {
            format,
            blob,
            diff_id,
            root_hash,
            access_lists,
            times,
            sum: _,
        } = self;
        Digest::of(format!("{SUM}\n{format}\n{blob}\n{diff_id}\n{root_hash}\n{access_lists}\n{times}\n").as_bytes()).to_string()
    }
}

impl RootCache {
    /// Opens a directory, which is made if it is not there.
    ///
    /// # Errors
    /// It cannot be used, or others could write to it.
    pub fn open(directory: &Path) -> Result<Self, RootCacheError> {
        let error = |source| RootCacheError::Io {
            path: directory.to_owned(),
            source,
        };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(error)?;
        // Not through a link, which somebody else may change.
        let found = fs::symlink_metadata(directory).map_err(error)?;
        let own = tempfile::tempfile_in(directory).and_then(|file| file.metadata()).map_err(error)?;
        if !found.is_dir() || found.uid() != own.uid() || found.mode() & OTHERS_WRITE != 0 {
            return Err(RootCacheError::Shared(directory.to_owned()));
        }
        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    /// What is known of a blob that unpacks to this diff id.
    pub fn known(&self, blob: Digest, diff_id: Digest) -> Option<KnownLayer> {
        let mut text = String::new();
        let file = File::open(self.path(blob)).ok()?;
        file.take(ENTRY_MAX_BYTES).read_to_string(&mut text).ok()?;
        let entry: Entry = serde_json::from_str(&text).ok()?;
        let same = entry.format == FORMAT && entry.blob == blob.to_string() && entry.diff_id == diff_id.to_string();
        if !same || entry.sum != entry.expected_sum() {
            return None;
        }
        Some(KnownLayer {
            root_hash: entry.root_hash.parse().ok()?,
            notes: Notes {
                access_lists: entry.access_lists,
                times: entry.times,
            },
        })
    }

    /// Keeps what a conversion showed. An entry is there whole or not at all, but for a power cut, which its sum shows.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep(&self, blob: Digest, diff_id: Digest, known: &KnownLayer) -> io::Result<()> {
        let mut file = NamedTempFile::new_in(&self.directory)?;
        file.write_all(serde_json::to_string(&Entry::new(blob, diff_id, known))?.as_bytes())?;
        file.persist(self.path(blob))?;
        Ok(())
    }

    fn path(&self, blob: Digest) -> PathBuf {
        self.directory.join(format!("{}.json", blob.hex()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const KNOWN: KnownLayer = KnownLayer {
        root_hash: RootHash([0xab; 32]),
        notes: Notes { access_lists: 1, times: 2 },
    };

    fn digests() -> [Digest; 3] {
        [b"blob".as_slice(), b"tar", b"other"].map(Digest::of)
    }

    #[test]
    fn a_root_hash_is_that_of_its_blob_and_diff_id() {
        let at = tempfile::tempdir().unwrap();
        let cache = RootCache::open(&at.path().join("a/roots")).unwrap();
        let [blob, diff_id, other] = digests();
        assert_eq!(cache.known(blob, diff_id), None);
        cache.keep(blob, diff_id, &KNOWN).unwrap();
        assert_eq!(
            RootCache::open(&at.path().join("a/roots")).unwrap().known(blob, diff_id),
            Some(KNOWN)
        );
        assert_eq!((cache.known(blob, other), cache.known(other, diff_id)), (None, None));
        // An entry under another blob's name is none.
        fs::copy(cache.path(blob), cache.path(other)).unwrap();
        assert_eq!(cache.known(other, diff_id), None);
    }

    #[test]
    fn a_damaged_entry_is_none() {
        let at = tempfile::tempdir().unwrap();
        let cache = RootCache::open(&at.path().join("roots")).unwrap();
        let [blob, diff_id, _] = digests();
        cache.keep(blob, diff_id, &KNOWN).unwrap();
        let whole = fs::read(cache.path(blob)).unwrap();
        for cut in 0..whole.len() {
            fs::write(cache.path(blob), &whole[..cut]).unwrap();
            assert_eq!(cache.known(blob, diff_id), None, "{cut}");
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(cache.path(blob), &changed).unwrap();
            assert_eq!(cache.known(blob, diff_id), None, "{}", String::from_utf8_lossy(&changed));
        }
        let older = String::from_utf8(whole.clone()).unwrap().replace("\"format\":", "\"format\":1");
        fs::write(cache.path(blob), older).unwrap();
        assert_eq!(cache.known(blob, diff_id), None);
        fs::write(cache.path(blob), whole).unwrap();
        assert_eq!(cache.known(blob, diff_id), Some(KNOWN));
    }

    #[test]
    fn what_others_can_write_to_is_not_used() {
        let at = tempfile::tempdir().unwrap();
        let shared = at.path().join("shared");
        fs::create_dir(&shared).unwrap();
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(RootCache::open(&shared), Err(RootCacheError::Shared(_))));
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).unwrap();
        RootCache::open(&shared).unwrap();
        std::os::unix::fs::symlink(&shared, at.path().join("link")).unwrap();
        assert!(matches!(RootCache::open(&at.path().join("link")), Err(RootCacheError::Shared(_))));
        fs::write(at.path().join("file"), "").unwrap();
        assert!(matches!(RootCache::open(&at.path().join("file")), Err(RootCacheError::Io { .. })));
    }
}
