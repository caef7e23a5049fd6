//! The pulled layers of a guest, and the files of those that are being pulled.

use layer::{BLOCK_BYTES, RootHash};
use nix::{
    fcntl::{OFlag, open},
    sys::{stat::Mode, statvfs::fstatvfs},
};
use puller_protocol::{Blob, LAYERS_MAX, PulledLayer, Stored};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::fd::AsFd,
    path::Path,
    sync::Arc,
};

/// Most pulled layers of a guest: as many as it mounts.
const LAYERS: usize = agent_protocol::limits::LAYERS;

/// A pulled layer: the image of an ext4 file system with its hash tree.
#[derive(Debug)]
pub struct Layer {
    /// As its image names it.
    pub blob: Blob,
    /// What the puller says its root hash is. Whoever mounts it checks every block against the policy's.
    pub root_hash: RootHash,
    /// Blocks of 4 KiB of ext4.
    pub data_blocks: u64,
    /// Blocks of 4 KiB of the whole file.
    pub total_blocks: u64,
    /// Without a name.
    pub file: File,
}

/// Why there is no pulled layer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file cannot be made.
    #[error("cannot make room for layers on the scratch")]
    Stage(#[source] io::Error),
    /// A file cannot be read.
    #[error("cannot read the length of a pulled layer")]
    Length(#[source] io::Error),
    /// More than a guest mounts.
    #[error("there are too many pulled layers")]
    TooMany,
    /// The puller's report contradicts the files.
    #[error("the puller reports a layer that is not in its file")]
    Report,
}

/// The pulled layers.
#[derive(Debug, Default)]
pub struct Store {
    layers: BTreeMap<Blob, Arc<Layer>>,
}

/// Files for the layers of an image that is being pulled. They vanish with this.
#[derive(Debug)]
pub struct Staging {
    pub(crate) files: Vec<File>,
    pub(crate) known: BTreeSet<Blob>,
    pub(crate) free_bytes: u64,
}

impl Staging {
    /// Room for layers in bytes.
    pub fn free_bytes(&self) -> u64 {
        self.free_bytes
    }
}

impl Store {
    /// Makes files on the file system of `directory`, one for each layer that an image may have.
    ///
    /// # Errors
    /// The file system has no room for them, or no files without names.
    pub fn staging(&self, directory: &Path) -> Result<Staging, StoreError> {
        let failed = |errno: nix::errno::Errno| StoreError::Stage(errno.into());
        let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let file = || open(directory, flags, Mode::S_IRUSR | Mode::S_IWUSR).map(File::from);
        let files = (0..LAYERS_MAX).map(|_| file()).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let Some(first) = files.first() else {
            return Err(StoreError::TooMany);
        };
        let room = fstatvfs(first.as_fd()).map_err(failed)?;
        Ok(Staging {
            free_bytes: room.blocks_available().saturating_mul(room.fragment_size()),
            files,
            known: self.layers.keys().copied().collect(),
        })
    }

    /// Takes the layers of a pull into the store, all or none; their root hashes, in the report's order.
    ///
    /// # Errors
    /// The report contradicts the files, or there is no room in the store.
    pub fn keep(&mut self, staging: Staging, report: &[PulledLayer]) -> Result<Vec<RootHash>, StoreError> {
        let mut files: Vec<_> = staging.files.into_iter().map(Some).collect();
        let mut new = BTreeMap::new();
        let mut roots = Vec::new();
        for PulledLayer { blob, stored } in report {
            let layer = match (self.layers.get(blob).or_else(|| new.get(blob)), stored) {
                // Twice in an image, or there before.
                (Some(layer), _) => layer.clone(),
                (None, Some(stored)) => {
                    let file = files.get_mut(stored.file).and_then(Option::take).ok_or(StoreError::Report)?;
                    Arc::new(checked(*blob, stored, file)?)
                }
                (None, None) => return Err(StoreError::Report),
            };
            roots.push(layer.root_hash);
            new.insert(*blob, layer);
        }
        new.retain(|blob, _| !self.layers.contains_key(blob));
        if report.len() > LAYERS_MAX || self.layers.len() + new.len() > LAYERS {
            return Err(StoreError::TooMany);
        }
        self.layers.append(&mut new);
        Ok(roots)
    }

    /// The layer that is said to have this root hash.
    pub fn by_root(&self, root: &RootHash) -> Option<Arc<Layer>> {
        self.layers.values().find(|layer| layer.root_hash == *root).cloned()
    }

    /// Forgets every layer; the file of one that nobody uses is gone then.
    pub fn clear(&mut self) {
        self.layers.clear();
    }
}

/// A layer whose numbers fit its file.
fn checked(blob: Blob, stored: &Stored, file: File) -> Result<Layer, StoreError> {
    let length = file.metadata().map_err(StoreError::Length)?.len();
    let whole = stored.data_blocks > 0 && layer::total_blocks(stored.data_blocks) == Some(stored.total_blocks);
    if !whole || stored.total_blocks.checked_mul(BLOCK_BYTES as u64) != Some(length) {
        return Err(StoreError::Report);
    }
    Ok(Layer {
        blob,
        root_hash: stored.root_hash,
        data_blocks: stored.data_blocks,
        total_blocks: stored.total_blocks,
        file,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::Digest;

    const DATA: u64 = 3;

    fn blob(name: &str) -> Blob {
        Blob {
            digest: Digest::of(name.as_bytes()),
            diff_id: Digest::of(b"tar"),
        }
    }

    fn stored(file: usize, root: u8) -> Stored {
        Stored {
            file,
            root_hash: RootHash([root; 32]),
            data_blocks: DATA,
            total_blocks: layer::total_blocks(DATA).unwrap(),
        }
    }

    fn pulled(name: &str, stored: Option<Stored>) -> PulledLayer {
        PulledLayer { blob: blob(name), stored }
    }

    /// Files of which the first two hold an image.
    fn staging(store: &Store) -> Staging {
        let directory = tempfile::tempdir().unwrap();
        let staging = store.staging(directory.path()).unwrap();
        for file in &staging.files[..2] {
            file.set_len(layer::total_blocks(DATA).unwrap() * BLOCK_BYTES as u64).unwrap();
        }
        // They have no names.
        std::fs::remove_dir(directory.path()).unwrap();
        staging
    }

    #[test]
    fn layers_are_kept_once_and_found_by_their_root_hash() {
        let mut store = Store::default();
        let first = staging(&store);
        assert!(first.free_bytes > 0 && first.known.is_empty());
        let twice = [
            pulled("a", Some(stored(0, 1))),
            pulled("b", Some(stored(1, 2))),
            pulled("a", Some(stored(0, 1))),
        ];
        let roots = store.keep(first, &twice).unwrap();
        assert_eq!(roots, [RootHash([1; 32]), RootHash([2; 32]), RootHash([1; 32])]);
        let second = staging(&store);
        assert_eq!(second.known, [blob("a"), blob("b")].into());
        let roots = store.keep(second, &[pulled("b", None), pulled("c", Some(stored(1, 3)))]).unwrap();
        assert_eq!(roots, [RootHash([2; 32]), RootHash([3; 32])]);
        assert_eq!(store.by_root(&RootHash([3; 32])).unwrap().blob, blob("c"));
        assert!(store.by_root(&RootHash([4; 32])).is_none());
        store.clear();
        assert!(store.by_root(&RootHash([3; 32])).is_none());
    }

    #[test]
    fn a_report_that_lies_changes_nothing() {
        let good = pulled("a", Some(stored(0, 1)));
        let empty = Stored {
            data_blocks: 0,
            ..stored(1, 2)
        };
        let long = Stored {
            total_blocks: u64::MAX,
            ..stored(1, 2)
        };
        let short = Stored {
            data_blocks: 1,
            ..stored(1, 2)
        };
        for lie in [
            pulled("b", None),
            pulled("b", Some(stored(0, 2))),
            pulled("b", Some(stored(2, 2))),
            pulled("b", Some(stored(LAYERS_MAX, 2))),
            pulled("b", Some(stored(usize::MAX, 2))),
            pulled("b", Some(empty)),
            pulled("b", Some(long)),
            pulled("b", Some(short)),
        ] {
            let mut store = Store::default();
            let staging = staging(&store);
            assert!(matches!(store.keep(staging, &[good, lie]), Err(StoreError::Report)), "{lie:?}");
            assert!(store.layers.is_empty());
        }
        let mut store = Store::default();
        let many = staging(&store);
        assert!(matches!(store.keep(many, &[good; LAYERS_MAX + 1]), Err(StoreError::TooMany)));
        assert!(store.layers.is_empty());
    }
}
