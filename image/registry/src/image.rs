//! An image of a repository: found through its indexes, checked document by document, and its layers, pulled several at a time.

use crate::blob::BlobStream;
use crate::error::{Cause, PullError, Step};
use crate::repository::Repository;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use oci::{Descriptor, Digest, Image, ImageConfig, Pick, Platform, Search};
use std::collections::BTreeMap;

/// Most layers of an image that are pulled at the same time.
pub const PARALLEL: usize = 4;

/// Most bytes of the documents of one search, all of which are kept. An index that says for whom each image is leads to three.
const SEARCH_MAX_BYTES: usize = 16 << 20;

/// Media types of layers, OCI's and Docker's.
const LAYER_TYPES: [&str; 6] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
];

/// An image in a registry.
#[derive(Clone, Debug)]
pub struct RemoteImage {
    /// Digest of its manifest.
    pub digest: Digest,
    /// How to run it.
    pub config: ImageConfig,
    /// Its layers, bottom first.
    pub layers: Vec<RemoteLayer>,
    /// The documents that were read to choose it: indexes, its manifest, its config, and those of images that it might have been.
    pub documents: BTreeMap<Digest, Vec<u8>>,
}

/// A layer in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteLayer {
    /// SHA-256 of the uncompressed tar, for whoever unpacks it to check.
    pub diff_id: Digest,
    /// SHA-256 of the blob.
    pub digest: Digest,
    /// Length of the blob in bytes.
    pub size: u64,
    /// How the tar is compressed.
    pub media_type: String,
}

impl Repository {
    /// The guest's image of a manifest or an index. `known` is its content, if it was read before.
    ///
    /// # Errors
    /// A document cannot be had or is another, there is no image for the guest, or a layer is of a kind that no guest can use.
    pub async fn image(&self, digest: Digest, known: Option<&[u8]>) -> Result<RemoteImage, PullError> {
        let kept = |wanted: Digest| known.filter(|_| wanted == digest).map(<[u8]>::to_vec);
        self.image_asking(digest, None, &kept).await
    }

    /// The same for a platform that is asked for, if it is not what every guest runs. `kept` is asked for each document before the registry
    /// is; what it has and is another counts for nothing.
    ///
    /// # Errors
    /// As [`Self::image`].
    pub async fn image_asking(
        &self,
        digest: Digest,
        asked: Option<Platform>,
        kept: &(dyn Fn(Digest) -> Option<Vec<u8>> + Sync),
    ) -> Result<RemoteImage, PullError> {
        let choice = |error| self.failed(Step::Choice, Cause::Choice(error));
        let mut search = Search::document(digest, Pick::Only).asking(asked);
        let mut documents = BTreeMap::new();
        let mut read = 0;
        while let Some(wanted) = search.wanted().map_err(choice)? {
            let about = search.about_wanted();
            let size = about.and_then(|about| about.size);
            let bytes = match kept(wanted).filter(|kept| Digest::of(kept) == wanted) {
                Some(kept) => kept,
                None if about.is_some_and(|about| about.is_config) => self.config(wanted, size).await?,
                None => self.manifest(wanted, size).await?,
            };
            read += bytes.len();
            if read > SEARCH_MAX_BYTES {
                return Err(self.failed(Step::Choice, Cause::Search(SEARCH_MAX_BYTES as u64)));
            }
            search.take(&bytes).map_err(choice)?;
            documents.insert(wanted, bytes);
        }
        let chosen = search.finish().map_err(choice)?;
        let blobs = chosen.manifest.layers.clone();
        let image = Image::new(chosen.manifest, chosen.config).map_err(|error| self.failed(Step::Choice, Cause::Image(error)))?;
        let layers = image.layers.iter().zip(blobs).map(|(layer, blob)| self.layer(layer.diff_id, blob));
        Ok(RemoteImage {
            digest: chosen.digest,
            layers: layers.collect::<Result<_, _>>()?,
            config: image.config,
            documents,
        })
    }

    fn layer(&self, diff_id: Digest, blob: Descriptor) -> Result<RemoteLayer, PullError> {
        let failed = |cause| self.failed(Step::Layer(blob.digest), cause);
        if !LAYER_TYPES.contains(&blob.media_type.as_str()) {
            return Err(failed(Cause::MediaType(blob.media_type.chars().take(120).collect())));
        }
        Ok(RemoteLayer {
            diff_id,
            digest: blob.digest,
            size: blob.size.ok_or_else(|| failed(Cause::NoSize))?,
            media_type: blob.media_type,
        })
    }

    /// Gives the stream of each layer to `act`, for [`PARALLEL`] layers at a time; the results are in the layers' order. A layer that an
    /// image has several times is pulled once, and has the same result in each place. The first error ends all.
    ///
    /// # Errors
    /// Those of `act`.
    pub async fn each_layer<'a, T, E, F>(
        &'a self,
        layers: &'a [RemoteLayer],
        act: impl Fn(&'a RemoteLayer, BlobStream<'a>) -> F,
    ) -> Result<Vec<T>, E>
    where
        T: Clone,
        F: Future<Output = Result<T, E>>,
    {
        // Equal in all: of one blob, an image could state several contents, and each statement is for `act` to check.
        let first = |layer: &RemoteLayer| layers.iter().position(|other| other == layer);
        let mut pulls = Vec::new();
        for (place, layer) in layers.iter().enumerate() {
            if first(layer) == Some(place) {
                let pull = act(layer, self.blob(layer.digest, layer.size));
                pulls.push(async move { Ok((place, pull.await?)) });
            }
        }
        // In the order in which they end: a long one at the head would keep the others from starting.
        let pulled: BTreeMap<usize, T> = stream::iter(pulls).buffer_unordered(PARALLEL).try_collect().await?;
        Ok(layers.iter().filter_map(|layer| pulled.get(&first(layer)?).cloned()).collect())
    }
}

impl RemoteImage {
    /// Bytes of all its blobs; `None` if that is more than a number holds.
    pub fn compressed_bytes(&self) -> Option<u64> {
        self.layers.iter().try_fold(0u64, |sum, layer| sum.checked_add(layer.size))
    }
}
