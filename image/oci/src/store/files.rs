//! Named files of a directory or of a tar file. Names come from the image's author, so they lead nowhere else.

use super::tarball::Tarball;
use crate::limits::DOCUMENT_MAX_BYTES;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

/// Files by name.
pub(super) enum Files {
    Directory(PathBuf),
    Tar(PathBuf, Tarball),
}

/// Why a file of an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// A file that is given as an image and is no tar file.
    #[error("{} is neither a directory nor a tar file", .0.display())]
    NoTar(PathBuf, #[source] io::Error),
    /// A document is larger than [`DOCUMENT_MAX_BYTES`].
    #[error("{} is larger than {DOCUMENT_MAX_BYTES} bytes", .0.display())]
    TooLarge(PathBuf),
    /// A name that leads out of the image.
    #[error("the image names a file {0:?} outside of it")]
    Outside(String),
}

impl Files {
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        let error = |e| FileError::Read(path.to_owned(), e);
        if std::fs::metadata(path).map_err(error)?.is_dir() {
            return Ok(Files::Directory(path.to_owned()));
        }
        Self::from_tar(File::open(path).map_err(error)?, path)
    }

    pub(super) fn from_tar(tar: File, shown: &Path) -> Result<Self, FileError> {
        let tarball = Tarball::index(tar).map_err(|e| FileError::NoTar(shown.to_owned(), e))?;
        Ok(Files::Tar(shown.to_owned(), tarball))
    }

    /// The directory or the tar file.
    pub(super) fn root(&self) -> &Path {
        match self {
            Files::Directory(path) | Files::Tar(path, _) => path,
        }
    }

    /// The path of a file, for messages.
    pub(super) fn shown(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub(super) fn missing(&self, name: &str) -> FileError {
        FileError::Read(self.shown(name), io::ErrorKind::NotFound.into())
    }

    /// A whole document; `None` if there is no such file.
    pub(super) fn document(&self, name: &str) -> Result<Option<Vec<u8>>, FileError> {
        let Some(reader) = self.find(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        let read = reader.take(DOCUMENT_MAX_BYTES as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|e| FileError::Read(self.shown(name), e))?;
        if bytes.len() > DOCUMENT_MAX_BYTES {
            return Err(FileError::TooLarge(self.shown(name)));
        }
        Ok(Some(bytes))
    }

    /// The content of a file.
    pub(super) fn reader(&self, name: &str) -> Result<Box<dyn Read + Send>, FileError> {
        self.find(name)?.ok_or_else(|| self.missing(name))
    }

    fn find(&self, name: &str) -> Result<Option<Box<dyn Read + Send>>, FileError> {
        if !Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        {
            return Err(FileError::Outside(name.to_owned()));
        }
        let directory = match self {
            Files::Directory(directory) => directory,
            Files::Tar(_, tarball) => return Ok(tarball.reader(name).map(|reader| Box::new(reader) as Box<dyn Read + Send>)),
        };
        let path = directory.join(name);
        let error = |e| FileError::Read(path.clone(), e);
        match std::fs::metadata(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(error(e)),
            // Opening a pipe would wait for its writer.
            Ok(found) if !found.is_file() => return Err(error(io::Error::other("not a regular file"))),
            Ok(_) => {}
        }
        Ok(Some(Box::new(File::open(&path).map_err(error)?)))
    }
}
