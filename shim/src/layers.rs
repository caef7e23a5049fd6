//! The layers of a container's image, as dm-verity images on this host.
//!
//! ```text
//! containerd: container → image → manifest → config (diff ids) and blobs ─► converter ─► cache: one ext4 + tree per blob
//! ```
//! It needs no special snapshotter: the mounts of the default one do not name the image, so containerd's API is asked.
//! The chain id of the container's snapshot shows that the image's name still points to the same image.

mod content;
pub mod converter;

pub use content::ContentError;
pub use layer_cache::CachedLayer;
pub use oci::Digest;

use content::Content;
use converter::{Blob, Converter, ConverterError};
use layer_cache::{Cache, CacheError, SLOTS, Slot, Turn, Wanted};
use oci::{ChoiceError, Chosen, Image, ImageError, Pick, Search};
use std::{future::Future, path::Path, sync::Arc, time::Duration};
use tokio::{sync::Semaphore, task::JoinSet, time::sleep};

/// Most layers of an image: the limit of one overlay mount in the guest.
const LAYERS_MAX: usize = agent_protocol::limits::OVERLAY_LAYERS;

/// Pause between attempts to get a lock that another shim has: a lock of the kernel's cannot be waited for and given up.
const LOCKED: Duration = Duration::from_millis(50);

/// Why the layers of a container are not available.
#[derive(Debug, thiserror::Error)]
pub enum LayersError {
    /// containerd does not provide the image.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The image's documents cannot be used.
    #[error("image {image} cannot be used")]
    Image {
        /// Its name.
        image: String,
        /// Why.
        source: ImageError,
    },
    /// The image's name leads to no image for the guest, or to several.
    #[error("image {image} cannot be used")]
    Choice {
        /// Its name.
        image: String,
        /// Why.
        source: ChoiceError,
    },
    /// The container has no image (`ctr run --rootfs`).
    #[error("container {0} was not created from an image; its root file system cannot be used in the VM")]
    NoImage(String),
    /// The image's name now points to another image.
    #[error(
        "image {image} is not the one that container {container} was created from: its chain id is {actual}, the snapshot's is {expected}"
    )]
    Retagged {
        /// The image's name.
        image: String,
        /// The container's id.
        container: String,
        /// Chain id of the snapshot's parent.
        expected: String,
        /// Chain id of the image.
        actual: String,
    },
    /// containerd has changed the owners of the image's files for a user namespace.
    #[error(
        "the root file system of container {0} is remapped for a user namespace, which is not offered: it is the VM that separates the container from the host"
    )]
    Remapped(String),
    /// More layers than an overlay mount supports.
    #[error("image {image} has {layers} layers, more than {LAYERS_MAX}")]
    Many {
        /// The image's name.
        image: String,
        /// Its layers.
        layers: usize,
    },
    /// A layer could not be converted.
    #[error("layer {0} cannot be converted")]
    Convert(Digest, #[source] ConverterError),
    /// A layer cannot be read from the cache or put there.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A part of the shim panicked.
    #[error("preparing a layer failed within the shim")]
    Panicked,
}

impl LayersError {
    /// Whether the user must correct something outside of the shim first.
    pub fn is_precondition(&self) -> bool {
        matches!(
            self,
            Self::NoImage(_)
                | Self::Choice { .. }
                | Self::Retagged { .. }
                | Self::Remapped(_)
                | Self::Content(ContentError::NoBlob { .. } | ContentError::NoImage(_))
        )
    }
}

/// The layers of `container`'s image, bottom first, each converted once per node.
///
/// # Errors
/// See [`LayersError`].
pub async fn of_container(
    address: &str,
    namespace: &str,
    container: &str,
    cache_dir: &Path,
    converter: &Converter,
) -> Result<Vec<CachedLayer>, LayersError> {
    let content = Arc::new(Content::connect(address, namespace).await?);
    let found = content.container(container).await?;
    if found.image.is_empty() {
        return Err(LayersError::NoImage(container.to_owned()));
    }
    let image = read_image(&content, &found.image).await?;
    let expected = content.snapshot_parent(&found).await?;
    let actual = image.chain_id().map(|id| id.to_string()).unwrap_or_default();
    if actual != expected && content.is_changed(&found, &expected, &actual).await {
        return Err(LayersError::Remapped(container.to_owned()));
    }
    if actual != expected {
        return Err(LayersError::Retagged {
            image: found.image,
            container: container.to_owned(),
            expected,
            actual,
        });
    }
    convert_all(&content, image, Cache::open(cache_dir)?, converter).await
}

/// Removes those of `layers` from the cache that are damaged there; returns their blobs.
///
/// # Errors
/// When a file of the cache cannot be read or removed.
pub async fn remove_damaged(cache_dir: &Path, layers: Vec<CachedLayer>) -> Result<Vec<Digest>, LayersError> {
    let cache = Cache::open(cache_dir)?;
    let checked = tokio::task::spawn_blocking(move || {
        let mut damaged = Vec::new();
        for layer in &layers {
            if cache.remove_damaged(layer)? {
                damaged.push(layer.blob);
            }
        }
        Ok::<_, CacheError>(damaged)
    });
    Ok(checked.await.map_err(|_| LayersError::Panicked)??)
}

/// Reads the image's manifest and config.
async fn read_image(content: &Content, name: &str) -> Result<Image, LayersError> {
    let Chosen { manifest, config, .. } = choose(content, name).await?;
    let image = Image::new(manifest, config).map_err(|source| LayersError::Image {
        image: name.to_owned(),
        source,
    })?;
    match image.layers.len() {
        n if n > LAYERS_MAX => Err(LayersError::Many {
            image: name.to_owned(),
            layers: n,
        }),
        _ => Ok(image),
    }
}

/// Follows indexes from the image's name to the image for the guest, by the rule that policies are made with.
async fn choose(content: &Content, name: &str) -> Result<Chosen, LayersError> {
    let bad = |source| LayersError::Choice {
        image: name.to_owned(),
        source,
    };
    let target = content.image_target(name).await?;
    let target: Digest = target.parse().map_err(|_| ContentError::NoBlob { digest: target })?;
    let mut search = Search::document(target, Pick::Only);
    while let Some(digest) = search.wanted().map_err(bad)? {
        match content.document(&digest.to_string(), name).await {
            Ok(document) => search.take(&document).map_err(bad)?,
            Err(ContentError::NoBlob { .. }) => search.absent(),
            Err(error) => return Err(error.into()),
        }
    }
    search.finish().map_err(|error| match error {
        ChoiceError::Missing(digest) => ContentError::NoBlob {
            digest: digest.to_string(),
        }
        .into(),
        other => bad(other),
    })
}

/// Converts the layers that the cache lacks, no more of them at once than the node has slots.
async fn convert_all(content: &Arc<Content>, image: Image, cache: Cache, converter: &Converter) -> Result<Vec<CachedLayer>, LayersError> {
    let turns = Arc::new(Semaphore::new(SLOTS.into()));
    let mut work = JoinSet::new();
    for (position, layer) in image.layers.into_iter().enumerate() {
        let (content, cache, converter, turns) = (content.clone(), cache.clone(), converter.clone(), turns.clone());
        work.spawn(async move {
            // The semaphore is never closed, and it only limits the load.
            let _turn = turns.acquire_owned().await.ok();
            let wanted = Wanted {
                diff_id: layer.diff_id,
                blob: layer.blob,
            };
            let blob = || async { Ok(content.blob(&layer.blob).await?) };
            Ok::<_, LayersError>((position, one(&cache, &wanted, &converter, blob).await?))
        });
    }
    let mut layers = Vec::with_capacity(work.len());
    while let Some(done) = work.join_next().await {
        layers.push(done.map_err(|_| LayersError::Panicked)??);
    }
    layers.sort_by_key(|(position, _)| *position);
    Ok(layers.into_iter().map(|(_, layer)| layer).collect())
}

/// One layer, from the cache or converted. Dropping the future gives the conversion up: the converter is killed, its file is
/// removed, and whoever else wants the layer can convert it.
///
/// # Errors
/// When the blob cannot be opened or is not the layer, or a file cannot be written.
pub async fn one<F>(cache: &Cache, wanted: &Wanted, converter: &Converter, blob: impl FnOnce() -> F) -> Result<CachedLayer, LayersError>
where
    F: Future<Output = Result<Blob, LayersError>>,
{
    let conversion = loop {
        match cache.begin(wanted)? {
            Turn::Made(layer) => return Ok(layer),
            Turn::Ours(conversion) => break conversion,
            Turn::Theirs => sleep(LOCKED).await,
        }
    };
    let blob = blob().await?;
    // After the lock of the blob, so that nobody who has a slot waits for another.
    let slot = slot(cache).await?;
    let converted = converter.convert(blob, conversion.image()?, slot).await;
    let converted = converted.map_err(|e| LayersError::Convert(wanted.diff_id, e))?;
    // Flushes gigabytes to the disk.
    let made = tokio::task::spawn_blocking(move || conversion.finish(&converted));
    Ok(made.await.map_err(|_| LayersError::Panicked)??)
}

/// A slot of the node, when there is one.
async fn slot(cache: &Cache) -> Result<Slot, LayersError> {
    loop {
        match cache.try_slot()? {
            Some(slot) => return Ok(slot),
            None => sleep(LOCKED).await,
        }
    }
}
