//! Root hashes of the layers, which the policy names: from the node's cache, or converted into it by a process without privileges.
//!
//! The shim finds the same layers in the cache when it starts the container.

use crate::containerd::Containerd;
use casemate_shim::layers::converter::{Converter, ConverterError};
use casemate_shim::layers::{self, LayersError};
use layer_cache::{Cache, CacheError, SLOTS, Wanted};
use oci::ImageLayer;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Where the node keeps converted layers, and what converts them.
#[derive(Clone, Debug)]
pub struct Node {
    /// Directory of the cache.
    pub cache_dir: PathBuf,
    /// The converter, if it is neither beside this program nor in PATH.
    pub converter: Option<PathBuf>,
}

/// Why a layer has no root hash.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// The cache cannot be used.
    #[error("the cache of layers cannot be used (casemate run needs root)")]
    Cache(#[from] CacheError),
    /// A layer cannot be converted.
    #[error("cannot convert a layer of the image")]
    Layer(#[from] LayersError),
    /// A part of this program panicked.
    #[error("preparing a layer failed within this program")]
    Panicked,
}

/// The root hashes of `layers` in hex, bottom first. `cgroup`: of the container, beside which the converters run. `done` is told
/// how many are ready.
pub async fn of_layers(
    containerd: &Containerd,
    image_layers: &[ImageLayer],
    node: &Node,
    cgroup: &str,
    done: &mut dyn FnMut(usize),
) -> Result<Vec<String>, HashError> {
    let cache = Cache::open(&node.cache_dir)?;
    let converter = Converter {
        program: node.converter.clone(),
        cgroups_path: cgroup.to_owned(),
    };
    let turns = Arc::new(Semaphore::new(SLOTS.into()));
    let mut work = JoinSet::new();
    for (position, layer) in image_layers.iter().copied().enumerate() {
        let (containerd, cache, converter, turns) = (containerd.clone(), cache.clone(), converter.clone(), turns.clone());
        work.spawn(async move {
            // The semaphore is never closed, and it only limits the load.
            let _turn = turns.acquire_owned().await.ok();
            let wanted = Wanted {
                diff_id: layer.diff_id,
                blob: layer.blob,
            };
            let blob = || async {
                let unread = |error| LayersError::Convert(layer.diff_id, ConverterError::Blob(error));
                let found = containerd.blob(layer.blob).await.map_err(|error| unread(io::Error::other(error)))?;
                let missing = || format!("{} is not in containerd's content store", layer.blob);
                found.ok_or_else(|| unread(io::Error::other(missing())))
            };
            let made = layers::one(&cache, &wanted, &converter, blob).await?;
            Ok::<_, HashError>((position, hex::encode(made.root_hash)))
        });
    }
    let mut hashes = vec![String::new(); image_layers.len()];
    let mut ready = 0;
    while let Some(made) = work.join_next().await {
        let (position, hash) = made.map_err(|_| HashError::Panicked)??;
        hashes[position] = hash;
        ready += 1;
        done(ready);
    }
    Ok(hashes)
}
