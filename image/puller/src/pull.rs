//! The pull: configuration, documents once the registry is there, room, then each layer from its connection through the conversion into its file.
//!
//! ```text
//! BlobStream ─ digest and size of the blob ─► Feed ─► decompress ─► digest of the tar ─► ext4 and tree ─► file
//! ```
//! No part of a blob is kept in between. A layer counts once its blob was read to the end and is the one that the manifest names,
//! and the tar in it is the one that the config names.

mod patience;

use crate::{
    feed::feed,
    limits::{BLOCKING_THREADS, LAYERS_AT_ONCE},
};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use layer::{ConvertError, Converted, Limits};
use oci::Digest;
use puller_protocol::{Blob, PulledLayer, Stored};
use registry_client::{
    AccessError, Config, ConfigError, Environment, PinError, PinnedReference, PullError, RemoteLayer, Repository,
    device::{self, DeviceError},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufWriter},
    net::IpAddr,
    time::Duration,
};

/// Size of the output buffer in bytes.
const BUFFER_BYTES: usize = 256 << 10;

/// What to pull, and where to.
pub struct Order {
    /// `REGISTRY/REPOSITORY@sha256:…`.
    pub image: String,
    /// The disk with the operator's configuration.
    pub configuration: Option<File>,
    /// An empty file for each layer that the image may have.
    pub files: Vec<File>,
    /// Layers that are there already.
    pub known: BTreeSet<Blob>,
    /// Room for layers in bytes.
    pub free_bytes: u64,
    /// Who is asked for addresses of registries.
    pub nameservers: Vec<IpAddr>,
    /// For how long a registry that is not there is asked again.
    pub wait: Duration,
}

/// Why an image was not pulled.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The runtime cannot be made.
    #[error("cannot start the puller's runtime")]
    Runtime(#[source] io::Error),
    /// The image is not named by a digest.
    #[error("the guest pulls no image that its request does not name by digest")]
    Reference(#[from] PinError),
    /// The disk with the configuration holds none.
    #[error("the operator's configuration of registries cannot be used")]
    Disk(#[from] DeviceError),
    /// The configuration is none.
    #[error("the operator's configuration of registries cannot be used")]
    Config(#[from] ConfigError),
    /// The registry cannot be reached as configured.
    #[error("the operator's configuration of registries cannot be used for {registry}")]
    Access {
        /// The registry.
        registry: String,
        /// Why not.
        source: AccessError,
    },
    /// A document or a blob cannot be had, or is another.
    #[error(transparent)]
    Pull(#[from] PullError),
    /// The registry is not there.
    #[error("the registry was not there for {} s{}", waited.as_secs(), patience::asked(nameservers))]
    Absent {
        /// For how long it was asked.
        waited: Duration,
        /// Who was asked for its address; none if it is one itself.
        nameservers: Vec<IpAddr>,
        /// The last failure, which names the registry.
        source: PullError,
    },
    /// More layers than an overlay mount of the guest takes.
    #[error("the image has {layers} layers, more than {most}")]
    TooMany {
        /// Layers of the image.
        layers: usize,
        /// Layers that a guest mounts.
        most: usize,
    },
    /// The scratch has no room, even for the compressed layers.
    #[error("the image's layers have {needed} bytes before they are unpacked, and the guest's scratch has room for {free}")]
    NoRoom {
        /// Bytes of the blobs that are not there yet.
        needed: u64,
        /// Bytes of room.
        free: u64,
    },
    /// A blob that is no layer.
    #[error("layer {blob} cannot be converted")]
    Convert {
        /// The blob.
        blob: Digest,
        /// Why not.
        source: ConvertError,
    },
    /// The tar in a blob is another than the config says.
    #[error("layer {blob} holds the tar {found}, and the image's config says {expected}")]
    DiffId {
        /// The blob.
        blob: Digest,
        /// Diff id in the config.
        expected: Digest,
        /// Digest of the tar.
        found: Digest,
    },
    /// A decoder's bug.
    #[error("the conversion of layer {0} failed within the puller")]
    Panicked(Digest),
}

/// Pulls the image; its layers, bottom first. The files of a pull that failed hold parts of layers.
///
/// # Errors
/// See [`OrderError`].
pub fn pull(order: Order) -> Result<Vec<PulledLayer>, OrderError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(OrderError::Runtime)?;
    runtime.block_on(image(order))
}

async fn image(order: Order) -> Result<Vec<PulledLayer>, OrderError> {
    let reference: PinnedReference = order.image.parse()?;
    let config = match order.configuration {
        Some(disk) => Config::from_bytes(&device::decode(disk)?)?,
        None => Config::default(),
    };
    let registry = reference.registry();
    let access = config
        .access(registry, &Environment::default())
        .map_err(|source| OrderError::Access {
            registry: registry.to_string(),
            source,
        })?;
    let repository = Repository::new(access, reference.repository())?;
    let nameservers = match patience::is_address(registry) {
        true => Vec::new(),
        false => order.nameservers,
    };
    // Without anybody to ask, a name never gets an address.
    let wait = match nameservers.is_empty() && !patience::is_address(registry) {
        true => Duration::ZERO,
        false => order.wait,
    };
    let documents = patience::while_absent(wait, || repository.image(reference.digest(), None));
    let remote = documents
        .await
        .map_err(|source| match source.cause.is_absence() && !wait.is_zero() {
            true => OrderError::Absent {
                waited: wait,
                nameservers,
                source,
            },
            false => source.into(),
        })?;
    let most = order.files.len();
    if remote.layers.len() > most {
        return Err(OrderError::TooMany {
            layers: remote.layers.len(),
            most,
        });
    }
    let missing = missing(&remote.layers, &order.known);
    check_room(&missing, order.free_bytes)?;
    let pulls = missing.iter().zip(order.files).enumerate().map(|(position, (remote, file))| {
        let repository = &repository;
        async move {
            let converted = one(repository, remote, file).await?;
            let stored = Stored {
                file: position,
                root_hash: converted.root_hash,
                data_blocks: converted.data_blocks,
                total_blocks: converted.total_blocks,
            };
            Ok::<_, OrderError>((named(remote), stored))
        }
    });
    let stored: BTreeMap<Blob, Stored> = stream::iter(pulls).buffered(LAYERS_AT_ONCE).try_collect().await?;
    let layers = remote.layers.iter().map(|remote| {
        let blob = named(remote);
        PulledLayer {
            blob,
            stored: stored.get(&blob).copied(),
        }
    });
    Ok(layers.collect())
}

fn named(remote: &RemoteLayer) -> Blob {
    Blob {
        digest: remote.digest,
        diff_id: remote.diff_id,
    }
}

/// What is not there yet, each once.
fn missing<'a>(layers: &'a [RemoteLayer], known: &BTreeSet<Blob>) -> Vec<&'a RemoteLayer> {
    let mut seen = known.clone();
    layers.iter().filter(|remote| seen.insert(named(remote))).collect()
}

fn check_room(missing: &[&RemoteLayer], free: u64) -> Result<(), OrderError> {
    let needed = missing.iter().fold(0u64, |sum, remote| sum.saturating_add(remote.size));
    if needed > free {
        return Err(OrderError::NoRoom { needed, free });
    }
    Ok(())
}

/// One layer. A conversion that fails does not end the stream: if the blob is not the one that was asked for, that is the cause.
async fn one(repository: &Repository, remote: &RemoteLayer, file: File) -> Result<Converted, OrderError> {
    let (sender, input) = feed();
    let conversion = tokio::task::spawn_blocking(move || {
        let mut output = BufWriter::with_capacity(BUFFER_BYTES, file);
        layer::convert(input, &mut output, &Limits::default())
    });
    let mut stream = repository.blob(remote.digest, remote.size);
    while let Some(chunk) = stream.chunk().await? {
        let _ = sender.send(chunk).await;
    }
    drop(sender);
    let converted = conversion.await.map_err(|_| OrderError::Panicked(remote.digest))?;
    let converted = converted.map_err(|source| OrderError::Convert {
        blob: remote.digest,
        source,
    })?;
    if converted.diff_id != remote.diff_id {
        return Err(OrderError::DiffId {
            blob: remote.digest,
            expected: remote.diff_id,
            found: converted.diff_id,
        });
    }
    Ok(converted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str, size: u64) -> RemoteLayer {
        RemoteLayer {
            diff_id: Digest::of(b"tar"),
            digest: Digest::of(name.as_bytes()),
            size,
            media_type: String::new(),
        }
    }

    #[test]
    fn a_blob_is_pulled_once_and_not_if_it_is_there() {
        let layers = [layer("a", 1), layer("b", 2), layer("a", 1), layer("c", 3)];
        let known = [named(&layers[1])].into();
        let missing = missing(&layers, &known);
        assert_eq!(missing, [&layers[0], &layers[3]]);
        assert!(check_room(&missing, 4).is_ok());
        let full = check_room(&missing, 3).unwrap_err().to_string();
        assert!(full.contains("4 bytes") && full.contains("room for 3"), "{full}");
        let huge = [layer("x", u64::MAX), layer("y", u64::MAX)];
        assert!(check_room(&huge.iter().collect::<Vec<_>>(), u64::MAX - 1).is_err());
    }

    #[test]
    fn a_blob_with_another_tar_is_another_layer() {
        let known = [Blob {
            digest: Digest::of(b"a"),
            diff_id: Digest::of(b"another tar"),
        }];
        assert_eq!(missing(&[layer("a", 1)], &known.into()).len(), 1);
    }
}
