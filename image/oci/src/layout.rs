//! An OCI image layout on disk (image specification, image-layout.md): from a tag to config and layer files, every
//! document checked against its digest.

use crate::Digest;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest index, manifest or config read, in bytes.
const DOCUMENT_MAX_BYTES: u64 = 4 << 20;
/// Most layers of an image (overlayfs takes 500 lower directories).
const LAYERS_MAX: usize = 500;
/// Most indexes inside indexes.
const NESTING_MAX: usize = 4;

/// A layout directory.
pub struct OciLayout {
    dir: PathBuf,
}

/// One image of a layout.
#[derive(Clone, Debug)]
pub struct Image {
    /// What the image says of itself.
    pub config: ImageConfig,
    /// SHA-256 of each layer's uncompressed tar, bottom first.
    pub diff_ids: Vec<Digest>,
    /// The layer files, bottom first; their content is not checked here, whoever reads them checks the diff id.
    pub layers: Vec<PathBuf>,
}

/// The `config` object of an image config (image specification, config.md).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// `user`, `uid`, `user:group` or `uid:gid`.
    pub user: String,
    /// `NAME=VALUE`.
    pub env: Option<Vec<String>>,
    /// First part of the command.
    pub entrypoint: Option<Vec<String>>,
    /// Second part of the command.
    pub cmd: Option<Vec<String>>,
    /// Working directory, empty for `/`.
    pub working_dir: String,
}

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A file cannot be read.
    #[error("cannot read {path}", path = .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// Over [`DOCUMENT_MAX_BYTES`].
    #[error("{path} is larger than {DOCUMENT_MAX_BYTES} bytes", path = .0.display())]
    TooLarge(PathBuf),
    /// Content does not have the digest it is filed under.
    #[error("{path} does not have the digest it is named by", path = .0.display())]
    Content(PathBuf),
    /// Not the JSON document it should be.
    #[error("{path} is not valid", path = .0.display())]
    Json(PathBuf, #[source] serde_json::Error),
    /// A digest that is not one.
    #[error(transparent)]
    Digest(#[from] crate::DigestError),
    /// No such tag, or no linux/amd64 image.
    #[error("{dir} holds no linux/amd64 image{wanted}", dir = .dir.display(), wanted = .tag.as_ref().map(|t| format!(" tagged {t:?}")).unwrap_or_default())]
    NotFound {
        /// The layout.
        dir: PathBuf,
        /// What was asked for.
        tag: Option<String>,
    },
    /// Layers and diff ids do not pair, or there are too many.
    #[error("the image has {layers} layers and {diff_ids} diff ids; they must be as many, and at most {LAYERS_MAX}")]
    Layers {
        /// In the manifest.
        layers: usize,
        /// In the config.
        diff_ids: usize,
    },
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    config: ImageConfig,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

impl OciLayout {
    /// A layout directory; nothing is read yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The linux/amd64 image with a tag (`org.opencontainers.image.ref.name`), or the first one when `tag` is `None`.
    pub fn image(&self, tag: Option<&str>) -> Result<Image, LayoutError> {
        let path = self.dir.join("index.json");
        let index: Index = parse(&path, &read(&path)?)?;
        let not_found = || LayoutError::NotFound {
            dir: self.dir.clone(),
            tag: tag.map(str::to_owned),
        };
        let named = index.manifests.into_iter().find(|d| match tag {
            Some(tag) => d
                .annotations
                .get("org.opencontainers.image.ref.name")
                .is_some_and(|name| name == tag),
            None => true,
        });
        let manifest = self.manifest(named.ok_or_else(not_found)?, NESTING_MAX)?.ok_or_else(not_found)?;
        let config: Config = self.document(&manifest.config)?;
        if manifest.layers.len() != config.rootfs.diff_ids.len() || manifest.layers.len() > LAYERS_MAX {
            return Err(LayoutError::Layers {
                layers: manifest.layers.len(),
                diff_ids: config.rootfs.diff_ids.len(),
            });
        }
        let diff_ids = config
            .rootfs
            .diff_ids
            .iter()
            .map(|d| Ok(d.parse()?))
            .collect::<Result<_, LayoutError>>()?;
        let layers = manifest
            .layers
            .iter()
            .map(|d| Ok(self.blob(d.digest.parse()?)))
            .collect::<Result<_, LayoutError>>()?;
        Ok(Image {
            config: config.config,
            diff_ids,
            layers,
        })
    }

    fn manifest(&self, descriptor: Descriptor, depth: usize) -> Result<Option<Manifest>, LayoutError> {
        if !descriptor.media_type.ends_with(".image.index.v1+json") && !descriptor.media_type.ends_with(".manifest.list.v2+json") {
            return self.document(&descriptor).map(Some);
        }
        let index: Index = self.document(&descriptor)?;
        let ours = index
            .manifests
            .into_iter()
            .find(|d| d.platform.as_ref().is_none_or(|p| p.os == "linux" && p.architecture == "amd64"));
        match ours {
            Some(next) if depth > 0 => self.manifest(next, depth - 1),
            _ => Ok(None),
        }
    }

    fn blob(&self, digest: Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    fn document<T: serde::de::DeserializeOwned>(&self, descriptor: &Descriptor) -> Result<T, LayoutError> {
        let digest: Digest = descriptor.digest.parse()?;
        let path = self.blob(digest);
        let bytes = read(&path)?;
        if Digest::from_sha256(Sha256::digest(&bytes).into()) != digest {
            return Err(LayoutError::Content(path));
        }
        parse(&path, &bytes)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, LayoutError> {
    let error = |e| LayoutError::Read(path.to_owned(), e);
    let file = std::fs::File::open(path).map_err(error)?;
    let mut bytes = Vec::new();
    file.take(DOCUMENT_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(error)?;
    if bytes.len() as u64 > DOCUMENT_MAX_BYTES {
        return Err(LayoutError::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, LayoutError> {
    serde_json::from_slice(bytes).map_err(|e| LayoutError::Json(path.to_owned(), e))
}

#[cfg(test)]
mod tests;
