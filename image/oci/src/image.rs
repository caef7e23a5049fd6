//! An image: its manifest and its config, joined layer by layer.

use crate::layer_type::{self, Closed};
use crate::limits::LAYERS_MAX;
use crate::{Config, Digest, DocumentError, ImageConfig, Manifest};

/// One image for one platform.
#[derive(Clone, Debug)]
pub struct Image {
    /// How to run it.
    pub config: ImageConfig,
    /// Its layers, bottom first.
    pub layers: Vec<ImageLayer>,
}

/// One layer of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLayer {
    /// SHA-256 of the uncompressed tar (config.md, "Layer DiffID").
    pub diff_id: Digest,
    /// SHA-256 of the blob as it is stored.
    pub blob: Digest,
}

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// One of its documents cannot be used.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// Manifest and config disagree.
    #[error("its manifest has {blobs} layers, its config {diff_ids}")]
    Layers {
        /// Layers of the manifest.
        blobs: usize,
        /// Diff ids of the config.
        diff_ids: usize,
    },
    /// More layers than [`LAYERS_MAX`].
    #[error("it has {0} layers, more than {LAYERS_MAX}")]
    TooManyLayers(usize),
    /// A layer that no registry gives out, or that nobody can read.
    #[error("its layer {digest} of type {media_type:?} is {why}")]
    Closed {
        /// The layer's blob.
        digest: Digest,
        /// Its media type, cut to a length that can be shown.
        media_type: String,
        /// What the type says, and what to do.
        why: Closed,
    },
}

impl Image {
    /// Joins a manifest and its config.
    pub fn new(manifest: Manifest, config: Config) -> Result<Self, ImageError> {
        let (blobs, diff_ids) = (manifest.layers.len(), config.diff_ids().len());
        if blobs != diff_ids {
            return Err(ImageError::Layers { blobs, diff_ids });
        }
        if blobs > LAYERS_MAX {
            return Err(ImageError::TooManyLayers(blobs));
        }
        for layer in &manifest.layers {
            if let Some(why) = layer_type::closed(&layer.media_type) {
                return Err(ImageError::Closed {
                    digest: layer.digest,
                    media_type: layer_type::shown(&layer.media_type),
                    why,
                });
            }
        }
        let layers = config.diff_ids().iter().zip(&manifest.layers);
        let layers = layers.map(|(diff_id, blob)| ImageLayer {
            diff_id: *diff_id,
            blob: blob.digest,
        });
        Ok(Self {
            layers: layers.collect(),
            config: config.config,
        })
    }

    /// Chain id of the topmost layer (config.md, "Layer ChainID"), by which snapshotters name it; `None` without layers.
    pub fn chain_id(&self) -> Option<Digest> {
        self.chain_ids().last().copied()
    }

    /// Chain ids of all layers, bottom first: a layer's is the name of what it unpacks to over those below it.
    pub fn chain_ids(&self) -> Vec<Digest> {
        let mut chain: Vec<Digest> = Vec::with_capacity(self.layers.len());
        for ImageLayer { diff_id, .. } in &self.layers {
            let over = chain.last().map(|below| Digest::of(format!("{below} {diff_id}").as_bytes()));
            chain.push(over.unwrap_or(*diff_id));
        }
        chain
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Document;
    use serde_json::json;

    fn digest(fill: char) -> String {
        format!("sha256:{}", fill.to_string().repeat(64))
    }

    fn image(diff_ids: &[String], blobs: usize) -> Result<Image, ImageError> {
        image_of_type(diff_ids, blobs, "")
    }

    fn image_of_type(diff_ids: &[String], blobs: usize, media_type: &str) -> Result<Image, ImageError> {
        let layer = json!({"digest": digest('b'), "size": 1, "mediaType": media_type});
        let layers = vec![layer; blobs];
        let manifest = json!({"schemaVersion": 2, "config": {"digest": digest('c')}, "layers": layers}).to_string();
        let Document::Manifest(manifest) = Document::parse(manifest.as_bytes())? else {
            panic!("no manifest")
        };
        let config = json!({"architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}}).to_string();
        Image::new(manifest, Config::parse(config.as_bytes())?)
    }

    /// Diff ids and chain ids of docker.io/library/redis:5.0.9, linux/amd64. The first and the last chain id are what containerd
    /// named its snapshots by (containerd, docs/content-flow.md); `printf '%s %s' CHAIN_ID DIFF_ID | sha256sum` gives each of them.
    const REDIS: [(&str, &str); 6] = [
        (
            "sha256:b60e5c3bcef2f42ec42648b3acf7baf6de1fa780ca16d9180f3b4a3f266fe7bc",
            "sha256:b60e5c3bcef2f42ec42648b3acf7baf6de1fa780ca16d9180f3b4a3f266fe7bc",
        ),
        (
            "sha256:b5a8df342567aa93d568b263b25c1eaf52655f0952e1911742ffb4f7a521e044",
            "sha256:c2cba74b5b43db78068241279a3225ca4f9639c17a5f0ce019489ee71b4382a5",
        ),
        (
            "sha256:c03c7e9701eb61f1e2232f6d19faa699cd9d346207aaf4f50d84b1e37bbad3e2",
            "sha256:315768cd0d297e3cb707360f8dde646419940b42e055845a160880cf98b5a242",
        ),
        (
            "sha256:367024e4e00618a9ada3203b5922d3186a0aa6136a1c4cbf5ed380171e1afe48",
            "sha256:13aa829f25ce405c1c5f40e0449b9270ce162ac7e4c2a81359df6fe09f939afd",
        ),
        (
            "sha256:60ef3ee42de712ef7748cc8e92192e926180b1be6fec9580933f1347fb6b2747",
            "sha256:814ff1c8753c9cd3942089a2401f1806a1133f27b6875bcad7b7e68846e205e4",
        ),
        (
            "sha256:bab68e5155b7010010964bf3aadc30e4a9c625701314ff6fa3c143c72f0aeb9c",
            "sha256:87806a591ce894ff5c699c28fe02093d6cdadd6b1ad86819acea05ccb212ff3d",
        ),
    ];

    #[test]
    fn chain_ids_are_those_of_containerds_snapshots() {
        let diff_ids: Vec<_> = REDIS.iter().map(|(diff_id, _)| (*diff_id).to_owned()).collect();
        for (top, (_, chain_id)) in REDIS.iter().enumerate() {
            let image = image(&diff_ids[..=top], top + 1).unwrap();
            assert_eq!(image.chain_id().unwrap().to_string(), *chain_id, "layer {top}");
            assert_eq!(image.chain_ids().len(), top + 1);
        }
        assert_eq!(image(&[], 0).unwrap().chain_id(), None);
    }

    #[test]
    fn manifest_and_config_must_have_the_same_layers() {
        assert!(matches!(
            image(&[digest('a')], 2),
            Err(ImageError::Layers { blobs: 2, diff_ids: 1 })
        ));
    }

    #[test]
    fn layers_are_counted() {
        assert!(image(&vec![digest('a'); LAYERS_MAX], LAYERS_MAX).is_ok());
        let over = LAYERS_MAX + 1;
        assert!(matches!(image(&vec![digest('a'); over], over), Err(ImageError::TooManyLayers(layers)) if layers == over));
    }

    #[test]
    fn a_layer_that_is_not_given_out_is_named_with_its_type() {
        for (media_type, word) in [
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "foreign"),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", "foreign"),
            ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "encrypted"),
        ] {
            let error = image_of_type(&[digest('a')], 1, media_type).unwrap_err().to_string();
            assert!(
                error.contains(&digest('b')) && error.contains(media_type) && error.contains(word),
                "{error}"
            );
        }
        let plain = "application/vnd.docker.image.rootfs.diff.tar.gzip";
        assert!(image_of_type(&[digest('a')], 1, plain).is_ok());
    }
}
