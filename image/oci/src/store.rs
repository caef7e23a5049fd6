//! Images in files: an OCI layout (image specification, image-layout.md), the archive of `docker save`, and skopeo's `dir:`; each as a
//! directory or as a tar file.
//!
//! | form | told by | blobs |
//! |---|---|---|
//! | OCI layout, oci-archive | `index.json` | `blobs/sha256/HEX` |
//! | `docker save` | `manifest.json` is a list | files that the list names |
//! | `dir:` | `manifest.json` is a manifest or an index | `HEX`, documents also `HEX.manifest.json` |
//!
//! Newer `docker save` archives are OCI layouts as well, and read as such.

mod docker;
mod files;
mod tarball;

use crate::limits::LAYERS_MAX;
use crate::select::{ChoiceError, Chosen, Pick, Search};
use crate::{Digest, Document, DocumentError, Image, ImageConfig, ImageError, Platform};
pub use files::FileError;
use files::Files;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Images in a directory or a tar file.
pub struct ImageStore {
    files: Files,
    form: Form,
    /// The platform of the image, if it is not what every guest runs.
    asked: Option<Platform>,
}

enum Form {
    Layout(Vec<u8>),
    Docker(Vec<u8>),
    Directory(Vec<u8>),
}

/// One image of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredImage {
    /// How to run it.
    pub config: ImageConfig,
    /// Its layers, bottom first.
    pub layers: Vec<StoredLayer>,
}

/// One layer of an image of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLayer {
    /// SHA-256 of the uncompressed tar.
    pub diff_id: Digest,
    /// SHA-256 of the file as it is stored; older `docker save` archives name none.
    pub blob: Option<Digest>,
    /// Name of its file in the store.
    file: String,
}

/// Why an image cannot be read from files.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Neither a layout, nor a `docker save` archive, nor a `dir:`.
    #[error("{} holds neither index.json nor manifest.json: give an OCI layout, a docker save archive or a skopeo dir:", .0.display())]
    Form(PathBuf),
    /// The content of a file does not have the digest in its name.
    #[error("{} does not have the digest in its name", .0.display())]
    Content(PathBuf),
    /// Not the document that it should be.
    #[error("{} cannot be used", .0.display())]
    Document(PathBuf, #[source] DocumentError),
    /// No image is chosen.
    #[error("no image of {} can be chosen", .0.display())]
    Choice(PathBuf, #[source] ChoiceError),
    /// An image without the manifest that a content store needs.
    #[error("{} is an archive of an older docker save, whose images have no manifest: `skopeo copy` makes an OCI layout of it", .0.display())]
    NoManifest(PathBuf),
    /// Manifest and config do not make an image.
    #[error("the image in {} cannot be used", .0.display())]
    Image(PathBuf, #[source] ImageError),
}

impl ImageStore {
    /// Opens a directory or a tar file, which is not compressed.
    ///
    /// # Errors
    /// It cannot be read, or has none of the three forms.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::of(Files::open(path)?)
    }

    /// Opens a tar file that messages call `shown`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn from_tar(tar: File, shown: &Path) -> Result<Self, StoreError> {
        Self::of(Files::from_tar(tar, shown)?)
    }

    fn of(files: Files) -> Result<Self, StoreError> {
        let form = match (files.document("index.json")?, files.document("manifest.json")?) {
            (Some(index), _) => Form::Layout(index),
            (None, Some(manifest)) if manifest.trim_ascii_start().starts_with(b"[") => Form::Docker(manifest),
            (None, Some(manifest)) => Form::Directory(manifest),
            (None, None) => return Err(StoreError::Form(files.root().to_owned())),
        };
        Ok(Self { files, form, asked: None })
    }

    /// The same images, of which only those for this platform may be chosen.
    #[must_use]
    pub fn asking(self, asked: Option<Platform>) -> Self {
        Self { asked, ..self }
    }

    /// The guest's image: the only one, or the one of a tag, a reference or a digest. Index, manifest and config are checked against
    /// their digests; layers are not read.
    ///
    /// # Errors
    /// There is no such image, or there are several that differ; a document cannot be used.
    pub fn image(&self, pick: Option<&str>) -> Result<StoredImage, StoreError> {
        if let Form::Docker(list) = &self.form {
            return docker::image(&self.files, list, &Pick::from(pick), self.asked.as_ref());
        }
        let chosen = self.chosen(pick)?;
        let image = Image::new(chosen.manifest, chosen.config).map_err(|e| StoreError::Image(self.files.root().to_owned(), e))?;
        let layer = |layer: crate::ImageLayer| StoredLayer {
            diff_id: layer.diff_id,
            blob: Some(layer.blob),
            file: self.blob(layer.blob),
        };
        Ok(StoredImage {
            config: image.config,
            layers: image.layers.into_iter().map(layer).collect(),
        })
    }

    /// The documents of the image that [`Self::image`] chooses, for who copies it to another store.
    ///
    /// # Errors
    /// As [`Self::image`]; the archive of an older `docker save` has no manifest.
    pub fn chosen(&self, pick: Option<&str>) -> Result<Chosen, StoreError> {
        let pick = Pick::from(pick);
        self.search(match &self.form {
            Form::Docker(_) => return Err(StoreError::NoManifest(self.files.root().to_owned())),
            Form::Layout(index) => {
                let unusable = |e| StoreError::Document(self.files.shown("index.json"), e);
                match Document::parse(index).map_err(unusable)? {
                    Document::Index(index) => Search::index(index, pick),
                    Document::Manifest(_) => return Err(unusable(DocumentError::NoIndex)),
                }
            }
            Form::Directory(manifest) => Search::document(Digest::of(manifest), pick),
        })
    }

    /// A manifest or config, checked against its digest.
    ///
    /// # Errors
    /// It is not there, cannot be read, or is another document.
    pub fn document_of(&self, digest: Digest) -> Result<Vec<u8>, StoreError> {
        let found = self.document(digest)?;
        found.ok_or_else(|| StoreError::File(self.files.missing(&self.blob(digest))))
    }

    /// The content of a blob, which nothing here has checked against its digest.
    ///
    /// # Errors
    /// The file is not there or cannot be read.
    pub fn blob_of(&self, digest: Digest) -> Result<Box<dyn Read + Send>, StoreError> {
        Ok(self.files.reader(&self.blob(digest))?)
    }

    /// The content of a layer as it is stored, which may be compressed.
    ///
    /// # Errors
    /// The file is not there or cannot be read.
    pub fn layer(&self, layer: &StoredLayer) -> Result<Box<dyn Read + Send>, StoreError> {
        Ok(self.files.reader(&layer.file)?)
    }

    /// The path of a layer for messages.
    pub fn shown(&self, layer: &StoredLayer) -> PathBuf {
        self.files.shown(&layer.file)
    }

    fn search(&self, mut search: Search) -> Result<Chosen, StoreError> {
        let chosen = |error| StoreError::Choice(self.files.root().to_owned(), error);
        search = search.asking(self.asked.clone());
        while let Some(digest) = search.wanted().map_err(chosen)? {
            match self.document(digest)? {
                Some(bytes) => search.take(&bytes).map_err(|error| match error {
                    ChoiceError::Document(error) => StoreError::Document(self.files.shown(&self.blob(digest)), error),
                    other => chosen(other),
                })?,
                None => search.absent(),
            }
        }
        search.finish().map_err(|error| match error {
            ChoiceError::Missing(digest) => StoreError::File(self.files.missing(&self.blob(digest))),
            other => chosen(other),
        })
    }

    /// Reads a document and checks its digest; `None` if it is not there.
    fn document(&self, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
        let name = self.blob(digest);
        let bytes = match &self.form {
            Form::Directory(top) if Digest::of(top) == digest => return Ok(Some(top.clone())),
            Form::Directory(_) => match self.files.document(&format!("{}.manifest.json", digest.hex()))? {
                None => self.files.document(&name)?,
                found => found,
            },
            Form::Layout(_) | Form::Docker(_) => self.files.document(&name)?,
        };
        match bytes {
            Some(bytes) if Digest::of(&bytes) != digest => Err(StoreError::Content(self.files.shown(&name))),
            bytes => Ok(bytes),
        }
    }

    /// Name of a blob's file.
    fn blob(&self, digest: Digest) -> String {
        match self.form {
            Form::Directory(_) => digest.hex(),
            Form::Layout(_) | Form::Docker(_) => format!("blobs/sha256/{}", digest.hex()),
        }
    }
}

/// Pairs layers with their files.
fn layers(diff_ids: &[Digest], files: Vec<String>) -> Result<Vec<StoredLayer>, ImageError> {
    let (blobs, count) = (files.len(), diff_ids.len());
    if blobs != count {
        return Err(ImageError::Layers { blobs, diff_ids: count });
    }
    if blobs > LAYERS_MAX {
        return Err(ImageError::TooManyLayers(blobs));
    }
    let pair = |(diff_id, file): (&Digest, String)| StoredLayer {
        diff_id: *diff_id,
        blob: None,
        file,
    };
    Ok(diff_ids.iter().zip(files).map(pair).collect())
}

#[cfg(test)]
mod tests;
