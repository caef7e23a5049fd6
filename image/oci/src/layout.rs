//! An OCI image layout on disk (image specification, image-layout.md): from a tag to the image and its layer files.

use crate::limits::{DOCUMENT_MAX_BYTES, INDEXES_MAX};
use crate::{Config, Digest, Document, DocumentError, Image, ImageError, Index, Manifest, Platform, document};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The annotation that holds a manifest's tag (image specification, annotations.md).
const TAG: &str = "org.opencontainers.image.ref.name";

/// A layout directory.
pub struct OciLayout {
    dir: PathBuf,
}

/// Why an image cannot be read from a layout.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A file cannot be read.
    #[error("cannot read {path}", path = .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// Larger than [`DOCUMENT_MAX_BYTES`].
    #[error("{path} is larger than {DOCUMENT_MAX_BYTES} bytes", path = .0.display())]
    TooLarge(PathBuf),
    /// The content of a blob does not have the digest in its name.
    #[error("{path} does not have the digest in its name", path = .0.display())]
    Content(PathBuf),
    /// Not the document that it should be.
    #[error("{path} cannot be used", path = .0.display())]
    Document(PathBuf, #[source] DocumentError),
    /// No such tag, or no linux/amd64 image.
    #[error("{dir} holds no linux/amd64 image{wanted}", dir = .dir.display(), wanted = .tag.as_ref().map(|t| format!(" tagged {t:?}")).unwrap_or_default())]
    NotFound {
        /// The layout.
        dir: PathBuf,
        /// The requested tag.
        tag: Option<String>,
    },
    /// Manifest and config do not make an image.
    #[error("the image in {dir} cannot be used", dir = .0.display())]
    Image(PathBuf, #[source] ImageError),
}

impl OciLayout {
    /// A layout directory; nothing is read yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The linux/amd64 image with a tag, or the first image when `tag` is `None`. Index, manifest and config are checked against
    /// their digests; layers are not read.
    pub fn image(&self, tag: Option<&str>) -> Result<Image, LayoutError> {
        let path = self.dir.join("index.json");
        let index: Index = document::parse(&read(&path)?).map_err(|e| LayoutError::Document(path, e))?;
        let not_found = || LayoutError::NotFound {
            dir: self.dir.clone(),
            tag: tag.map(str::to_owned),
        };
        let named = index
            .manifests
            .iter()
            .find(|entry| tag.is_none_or(|tag| entry.annotations.get(TAG).is_some_and(|name| name == tag)));
        let manifest = self.manifest(named.ok_or_else(not_found)?.digest)?.ok_or_else(not_found)?;
        let config = self.document(manifest.config.digest, Config::parse)?;
        Image::new(manifest, config).map_err(|e| LayoutError::Image(self.dir.clone(), e))
    }

    /// The file of a blob.
    pub fn blob(&self, digest: Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    /// Follows indexes to the manifest for the guest. An entry that names no platform is taken for the guest's.
    fn manifest(&self, mut digest: Digest) -> Result<Option<Manifest>, LayoutError> {
        for _ in 0..=INDEXES_MAX {
            let index = match self.document(digest, Document::parse)? {
                Document::Manifest(manifest) => return Ok(Some(manifest)),
                Document::Index(index) => index,
            };
            let fits = |platform: &Option<Platform>| platform.as_ref().is_none_or(Platform::is_guest);
            match index.manifests.iter().find(|entry| fits(&entry.platform)) {
                Some(next) => digest = next.digest,
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Reads a document, checks its digest and parses it.
    fn document<T>(&self, digest: Digest, parse: fn(&[u8]) -> Result<T, DocumentError>) -> Result<T, LayoutError> {
        let path = self.blob(digest);
        let bytes = read(&path)?;
        if Digest::of(&bytes) != digest {
            return Err(LayoutError::Content(path));
        }
        parse(&bytes).map_err(|e| LayoutError::Document(path, e))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, LayoutError> {
    let error = |e| LayoutError::Read(path.to_owned(), e);
    let file = std::fs::File::open(path).map_err(error)?;
    let mut bytes = Vec::new();
    file.take(DOCUMENT_MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(error)?;
    if bytes.len() > DOCUMENT_MAX_BYTES {
        return Err(LayoutError::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
