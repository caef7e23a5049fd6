//! The layers of a container's image, as dm-verity images on this host.
//!
//! ```text
//! containerd: container → image → manifest → config (diff ids) and blobs ─► converter ─► cache: one ext4 + tree per blob
//! ```
//! It needs no special snapshotter: the mounts of the default one do not name the image, so containerd's API is asked.
//! The chain id of the container's snapshot shows that the image's name still points to the same image.
//!
//! Where containerd has discarded a blob, the files that it has unpacked can take its place ([`unpacked`]), unless the policy names root
//! hashes of layers.

mod content;
pub mod converter;
pub mod guest;
mod unpacked;

pub use content::ContentError;
pub use layer_cache::CachedLayer;
pub use oci::Digest;

use content::{Content, FoundContainer};
use converter::{Blob, Converter, ConverterError};
use layer_cache::{Cache, CacheError, SLOTS, Slot, Turn, Wanted};
use oci::{ChoiceError, Chosen, Image, ImageError, ImageLayer, Pick, Search};
use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{sync::Semaphore, task::JoinSet, time::sleep};

/// Most layers of an image: the limit of one overlay mount in the guest.
const LAYERS_MAX: usize = agent_protocol::limits::OVERLAY_LAYERS;

/// Pause between attempts to get a lock that another shim has: a lock of the kernel's cannot be waited for and given up.
const LOCKED: Duration = Duration::from_millis(50);

/// The snapshotter whose mounts name a directory of plain files for each layer.
const SNAPSHOTTER: &str = "overlayfs";

/// What becomes of a layer whose blob containerd has discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithoutBlob {
    /// Its unpacked files are converted.
    Files,
    /// It is refused: the policy names root hashes, and none can be that of unpacked files.
    Refused,
}

/// The layers of a container.
#[derive(Debug, Default)]
pub struct Layers {
    /// Bottom first.
    pub cached: Vec<CachedLayer>,
    /// Diff ids of those that were made of unpacked files, so that no policy can name their root hashes.
    pub unpacked: Vec<Digest>,
}

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
    /// A layer without a blob, under a policy that names root hashes.
    #[error(
        "the blob {blob} of layer {layer} is not in containerd's content store, and the policy names root hashes of layers, which come from \
         blobs alone: pull the image again, with discard_unpacked_layers = false in containerd's configuration"
    )]
    Pinned {
        /// The layer's diff id.
        layer: Digest,
        /// The blob that is missing.
        blob: Digest,
    },
    /// A layer without a blob, whose files are not where they can be read.
    #[error(
        "the blob {blob} of the image is not in containerd's content store, and snapshotter {snapshotter} has no directories of files that \
         could take its place: pull the image again, with discard_unpacked_layers = false in containerd's configuration"
    )]
    Snapshotter {
        /// The blob that is missing.
        blob: Digest,
        /// The snapshotter.
        snapshotter: String,
    },
    /// The mount of a container names other directories than its image has layers.
    #[error("the mount of the container's snapshot names {directories} directories for {layers} layers")]
    Directories {
        /// Directories.
        directories: usize,
        /// Layers.
        layers: usize,
    },
    /// A converter that says that it is done before it can be.
    #[error("the converter of layer {0} ended before it had read the layer's files")]
    Unread(Digest),
    /// The files of a layer cannot be fed to the converter.
    #[error("cannot make a pipe for an unpacked layer")]
    Pipe(#[source] io::Error),
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
                | Self::Pinned { .. }
                | Self::Snapshotter { .. }
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
    without_blob: WithoutBlob,
) -> Result<Layers, LayersError> {
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
    let files = Files {
        without_blob,
        chain_ids: image.chain_ids(),
        container: found,
    };
    convert_all(&content, image, Cache::open(cache_dir)?, converter, files).await
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

/// What is known of the unpacked files of a container's layers.
struct Files {
    without_blob: WithoutBlob,
    /// Of each layer, bottom first.
    chain_ids: Vec<Digest>,
    container: FoundContainer,
}

/// Converts the layers that the cache lacks, no more of them at once than the node has slots.
async fn convert_all(
    content: &Arc<Content>,
    image: Image,
    cache: Cache,
    converter: &Converter,
    files: Files,
) -> Result<Layers, LayersError> {
    let turns = Arc::new(Semaphore::new(SLOTS.into()));
    let files = Arc::new(files);
    let mut work = JoinSet::new();
    for (position, layer) in image.layers.into_iter().enumerate() {
        let (content, cache, converter, turns, files) = (content.clone(), cache.clone(), converter.clone(), turns.clone(), files.clone());
        work.spawn(async move {
            // The semaphore is never closed, and it only limits the load.
            let _turn = turns.acquire_owned().await.ok();
            let wanted = Wanted {
                diff_id: layer.diff_id,
                blob: layer.blob,
            };
            let blob = || async { Ok(content.blob(&layer.blob).await?) };
            match one(&cache, &wanted, &converter, blob).await {
                Err(LayersError::Content(ContentError::NoBlob { .. })) => {
                    let made = without_blob(&content, &cache, &converter, &files, position, layer).await?;
                    Ok((position, made, true))
                }
                made => made.map(|made| (position, made, false)),
            }
        });
    }
    let mut layers = Vec::with_capacity(work.len());
    while let Some(done) = work.join_next().await {
        layers.push(done.map_err(|_| LayersError::Panicked)??);
    }
    layers.sort_by_key(|(position, ..)| *position);
    let unpacked = layers.iter().filter(|(.., unpacked)| *unpacked).map(|(_, layer, _)| layer.diff_id);
    Ok(Layers {
        unpacked: unpacked.collect(),
        cached: layers.into_iter().map(|(_, layer, _)| layer).collect(),
    })
}

/// A layer of a container, from its unpacked files.
async fn without_blob(
    content: &Content,
    cache: &Cache,
    converter: &Converter,
    files: &Files,
    position: usize,
    ImageLayer { diff_id, blob }: ImageLayer,
) -> Result<CachedLayer, LayersError> {
    if files.without_blob == WithoutBlob::Refused {
        return Err(LayersError::Pinned { layer: diff_id, blob });
    }
    let snapshotter = &files.container.snapshotter;
    if snapshotter != SNAPSHOTTER {
        return Err(LayersError::Snapshotter {
            blob,
            snapshotter: snapshotter.clone(),
        });
    }
    let options = content.mount_options(&files.container).await?;
    let unpacked::Lower { directories, user_xattr } = unpacked::lower(&options);
    let (Some(directory), true) = (directories.get(position), directories.len() == files.chain_ids.len()) else {
        return Err(LayersError::Directories {
            directories: directories.len(),
            layers: files.chain_ids.len(),
        });
    };
    log::warn!(
        "layer {diff_id} is not precomputable: its blob {blob} is not in containerd's content store, so its root hash is that of the files \
         in {}, which no policy names in advance",
        directory.display()
    );
    let wanted = Wanted {
        diff_id,
        blob: unpacked::key(&files.chain_ids[position]),
    };
    of_files(cache, &wanted, converter, directory.clone(), user_xattr).await
}

/// One layer made of the files in a directory, from the cache or converted; given up as [`one`] is. `wanted.blob` is its name in the
/// cache. `user_xattr`: whether overlayfs's own attributes of the files are `user.overlay.*`.
///
/// # Errors
/// When a file cannot be read or has no place in a layer, or one cannot be written.
pub async fn of_files(
    cache: &Cache,
    wanted: &Wanted,
    converter: &Converter,
    directory: PathBuf,
    user_xattr: bool,
) -> Result<CachedLayer, LayersError> {
    let blob = || async {
        let (blob, digest) = unpacked::blob(directory, user_xattr).map_err(LayersError::Pipe)?;
        Ok((blob, Tar::Fed(digest)))
    };
    made(cache, wanted, converter, blob).await
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
    made(cache, wanted, converter, || async { Ok((blob().await?, Tar::Layer)) }).await
}

/// The tar that a converter reads, by whose digest it is known that it has read it.
enum Tar {
    /// The image's.
    Layer,
    /// One that is made while it is read; unset if it was not read to its end.
    Fed(Arc<OnceLock<Digest>>),
}

async fn made<F>(cache: &Cache, wanted: &Wanted, converter: &Converter, blob: impl FnOnce() -> F) -> Result<CachedLayer, LayersError>
where
    F: Future<Output = Result<(Blob, Tar), LayersError>>,
{
    let conversion = loop {
        match cache.begin(wanted)? {
            Turn::Made(layer) => return Ok(layer),
            Turn::Ours(conversion) => break conversion,
            Turn::Theirs => sleep(LOCKED).await,
        }
    };
    let (blob, tar) = blob().await?;
    // After the lock of the blob, so that nobody who has a slot waits for another.
    let slot = slot(cache).await?;
    let converted = converter.convert(blob, conversion.image()?, slot).await;
    let converted = converted.map_err(|e| LayersError::Convert(wanted.diff_id, e))?;
    let read = match tar {
        Tar::Layer => wanted.diff_id,
        Tar::Fed(digest) => *digest.get().ok_or(LayersError::Unread(wanted.diff_id))?,
    };
    // Flushes gigabytes to the disk.
    let made = tokio::task::spawn_blocking(move || conversion.finish_of(&converted, read));
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
