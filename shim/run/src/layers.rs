//! The layers of an image in the node's cache: found there, or converted into it by a process without privileges.
//!
//! The shim finds them in the same cache when it starts a container, so what is made here is not made again.

use crate::containerd::Containerd;
use crate::news::Progress;
use casemate_shim::layers::converter::{Converter, ConverterError};
use casemate_shim::layers::{self, ContentError, LayersError};
use layer_cache::{Cache, CacheError, CachedLayer, SLOTS, Wanted};
use oci::{Digest, ImageLayer};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::interval;

/// How often it is said how many bytes were read.
const TOLD: Duration = Duration::from_millis(200);

/// Where the node keeps converted layers, and what converts them.
#[derive(Clone, Debug)]
pub struct Node {
    /// Directory of the cache.
    pub cache_dir: PathBuf,
    /// The converter, if it is neither beside this program nor in PATH.
    pub converter: Option<PathBuf>,
}

/// A layer that is in the cache, and stays there as long as this is open.
#[derive(Debug)]
pub struct ReadyLayer {
    /// The layer.
    pub layer: CachedLayer,
    /// Whether it was converted now, by this program.
    pub converted: bool,
}

/// Why a layer is not in the cache.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The cache cannot be used.
    #[error("the cache of layers cannot be used (only root can)")]
    Cache(#[from] CacheError),
    /// A layer cannot be converted.
    #[error("cannot convert a layer of the image")]
    Layer(#[from] LayersError),
    /// A part of this program panicked.
    #[error("preparing a layer failed within this program")]
    Panicked,
}

/// The layers in the cache, bottom first. `cgroup`: of the container, beside which the converters run; empty for none.
pub async fn ready(
    containerd: &Containerd,
    image_layers: &[ImageLayer],
    node: &Node,
    cgroup: &str,
    tell: &mut dyn FnMut(Progress),
) -> Result<Vec<ReadyLayer>, LayerError> {
    let cache = Cache::open(&node.cache_dir)?;
    let converter = Converter {
        program: node.converter.clone(),
        cgroups_path: cgroup.to_owned(),
    };
    let mut blobs = Vec::with_capacity(image_layers.len());
    for layer in image_layers {
        let size = containerd.size(layer.blob).await.map_err(|error| unread(layer, error))?;
        blobs.push(Arc::new(Read::new(size)));
    }
    let mut progress = Progress {
        layers: blobs.len(),
        bytes: blobs.iter().map(|blob| blob.bytes).sum(),
        ..Progress::default()
    };
    let turns = Arc::new(Semaphore::new(SLOTS.into()));
    let mut work = JoinSet::new();
    for (position, (layer, blob)) in image_layers.iter().copied().zip(&blobs).enumerate() {
        let (containerd, cache, converter, turns, read) =
            (containerd.clone(), cache.clone(), converter.clone(), turns.clone(), blob.clone());
        work.spawn(async move {
            // The semaphore is never closed, and it only limits the load.
            let _turn = turns.acquire_owned().await.ok();
            let made = one(&containerd, layer, &cache, &converter, &read).await?;
            read.done.store(read.bytes, Relaxed);
            Ok::<_, LayerError>((position, made))
        });
    }
    let mut made: Vec<Option<ReadyLayer>> = Vec::new();
    made.resize_with(blobs.len(), || None);
    let mut ticks = interval(TOLD);
    loop {
        tokio::select! {
            done = work.join_next() => match done {
                None => break,
                Some(done) => {
                    let (position, layer) = done.map_err(|_| LayerError::Panicked)??;
                    made[position] = Some(layer);
                    progress.ready += 1;
                }
            },
            _ = ticks.tick() => {}
        }
        progress.read = blobs.iter().map(|blob| blob.done.load(Relaxed)).sum();
        tell(progress);
    }
    Ok(made.into_iter().flatten().collect())
}

/// How much of a blob was read.
struct Read {
    bytes: u64,
    done: AtomicU64,
}

impl Read {
    /// `size`: none where containerd has no such blob.
    fn new(size: Option<i64>) -> Self {
        Self {
            bytes: size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
            done: AtomicU64::new(0),
        }
    }
}

async fn one(
    containerd: &Containerd,
    layer: ImageLayer,
    cache: &Cache,
    converter: &Converter,
    read: &Arc<Read>,
) -> Result<ReadyLayer, LayersError> {
    let wanted = Wanted {
        diff_id: layer.diff_id,
        blob: layer.blob,
    };
    // It is asked for the blob only if nobody else has made the layer.
    let converted = AtomicBool::new(false);
    let blob = || async {
        converted.store(true, Relaxed);
        let read = read.clone();
        let count = move |bytes| {
            read.done.fetch_add(bytes, Relaxed);
        };
        let found = containerd.blob(layer.blob, count).await.map_err(|error| unread(&layer, error))?;
        found.ok_or_else(|| missing(layer.blob))
    };
    let made = layers::one(cache, &wanted, converter, blob).await?;
    Ok(ReadyLayer {
        layer: made,
        converted: converted.into_inner(),
    })
}

fn unread(layer: &ImageLayer, error: impl std::error::Error + Send + Sync + 'static) -> LayersError {
    LayersError::Convert(layer.diff_id, ConverterError::Blob(io::Error::other(error)))
}

fn missing(blob: Digest) -> LayersError {
    ContentError::NoBlob { digest: blob.to_string() }.into()
}
