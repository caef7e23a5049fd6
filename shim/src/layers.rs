//! From a container's id to its image's layers as verity images on this host.
//!
//! ```text
//! containerd: container → image → manifest → config (diff ids) and blobs ─► cache: one ext4 + tree per diff id
//! ```
//! Nothing is configured for it: the default snapshotter does, whose mounts name no image. That the image still is
//! the one the container was made from is checked by the chain id of its snapshot.

mod cache;
mod content;
mod image;

pub use cache::{Cache, CacheError, CachedLayer};

use content::{Content, ContentError};
use image::{Image, ImageError};
use std::{path::Path, sync::Arc};
use tokio::{sync::Semaphore, task::JoinSet};

/// Most layers of an image: what one overlay in the guest takes.
const LAYERS_MAX: usize = agent_protocol::limits::OVERLAY_LAYERS;

/// Why the layers of a container cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LayersError {
    /// containerd does not have what is needed.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The image is not one that we can read.
    #[error("image {image} cannot be used")]
    Image {
        /// Its name.
        image: String,
        /// Why.
        source: ImageError,
    },
    /// The container has no image (`ctr run --rootfs`).
    #[error("container {0} was not made from an image; its root file system cannot be taken into the VM")]
    NoImage(String),
    /// The name of the image was given to another one since.
    #[error(
        "image {image} is not the one that container {container} was made from: its chain id is {actual}, the snapshot's is {expected}"
    )]
    Retagged {
        /// The image's name.
        image: String,
        /// The container's id.
        container: String,
        /// What the snapshot was made from.
        expected: String,
        /// What the image now is.
        actual: String,
    },
    /// More layers than an overlay takes.
    #[error("image {image} has {layers} layers, more than {LAYERS_MAX}")]
    Many {
        /// The image's name.
        image: String,
        /// Its layers.
        layers: usize,
    },
    /// A layer could not be converted.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl LayersError {
    /// Whether something must be put right outside of the shim first.
    pub fn is_precondition(&self) -> bool {
        matches!(
            self,
            Self::NoImage(_) | Self::Retagged { .. } | Self::Content(ContentError::NoBlob { .. } | ContentError::NoImage(_))
        )
    }
}

/// The layers of `container`'s image, lowest first, each converted once per node.
///
/// # Errors
/// See [`LayersError`].
pub async fn of_container(address: &str, namespace: &str, container: &str, cache_dir: &Path) -> Result<Vec<CachedLayer>, LayersError> {
    let content = Arc::new(Content::connect(address, namespace).await?);
    let found = content.container(container).await?;
    if found.image.is_empty() {
        return Err(LayersError::NoImage(container.to_owned()));
    }
    let image = read_image(&content, &found.image).await?;
    let expected = content.snapshot_parent(&found).await?;
    let actual = image.chain_id();
    if actual != expected {
        return Err(LayersError::Retagged {
            image: found.image,
            container: container.to_owned(),
            expected,
            actual,
        });
    }
    convert_all(&content, image, Cache::open(cache_dir)?).await
}

async fn read_image(content: &Content, name: &str) -> Result<Image, LayersError> {
    let bad = |source| LayersError::Image {
        image: name.to_owned(),
        source,
    };
    let mut digest = content.image_target(name).await?;
    let manifest = loop {
        let document = content.document(&digest, name).await?;
        match image::parse(&document).map_err(bad)? {
            image::Document::Manifest(manifest) => break manifest,
            image::Document::Index(index) => digest = index.choose().map_err(bad)?,
        }
    };
    let config = content.document(manifest.config(), name).await?;
    let image = Image::new(manifest, &config).map_err(bad)?;
    match image.layers.len() {
        n if n > LAYERS_MAX => Err(LayersError::Many {
            image: name.to_owned(),
            layers: n,
        }),
        _ => Ok(image),
    }
}

/// Converts what the cache does not hold, as many at once as there are processors.
async fn convert_all(content: &Arc<Content>, image: Image, cache: Cache) -> Result<Vec<CachedLayer>, LayersError> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let slots = Arc::new(Semaphore::new(processors));
    let mut work = JoinSet::new();
    for (position, layer) in image.layers.into_iter().enumerate() {
        let (content, cache, slots) = (content.clone(), cache.clone(), slots.clone());
        work.spawn(async move {
            // Nobody closes the semaphore, and a missing permit would only cost speed.
            let _slot = slots.acquire_owned().await.ok();
            if let Some(hit) = cache.get(&layer.diff_id)? {
                return Ok((position, hit));
            }
            let blob = content.blob(&layer.blob).await?;
            let made = tokio::task::spawn_blocking(move || cache.make(&layer.diff_id, blob));
            let made = made.await.map_err(|_| CacheError::Panicked)??;
            Ok::<_, LayersError>((position, made))
        });
    }
    let mut layers = Vec::with_capacity(work.len());
    while let Some(done) = work.join_next().await {
        layers.push(done.map_err(|_| CacheError::Panicked)??);
    }
    layers.sort_by_key(|(position, _)| *position);
    Ok(layers.into_iter().map(|(_, layer)| layer).collect())
}
