//! Images in files, also where the whole archive is compressed (`docker save app | gzip`).

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use oci::{FileError, ImageStore, StoreError};

use crate::GenerateError;

/// First bytes of gzip and of zstd.
const COMPRESSED: [&[u8]; 2] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd"];

/// Opens an image's directory or archive. A compressed archive is decompressed into a temporary file.
pub(crate) fn open(path: &Path, place: &str) -> Result<ImageStore, GenerateError> {
    let unusable = |source| GenerateError::Image {
        place: place.to_owned(),
        source,
    };
    let unreadable = |e| unusable(StoreError::File(FileError::Read(path.to_owned(), e)));
    let plain = decompressed(path).map_err(unreadable)?;
    match plain {
        None => ImageStore::open(path),
        Some(tar) => ImageStore::from_tar(tar, path),
    }
    .map_err(unusable)
}

/// The content of a compressed file; `None` for a directory and for a file that is not compressed.
fn decompressed(path: &Path) -> io::Result<Option<File>> {
    if std::fs::metadata(path)?.is_dir() {
        return Ok(None);
    }
    let mut file = File::open(path)?;
    let mut start = Vec::new();
    (&file).take(4).read_to_end(&mut start)?;
    if !COMPRESSED.iter().any(|magic| start.starts_with(magic)) {
        return Ok(None);
    }
    file.rewind()?;
    let limits = layer::Limits::default();
    let content = layer::decompress(file, &limits)?;
    let mut tar = tempfile::tempfile()?;
    let most = limits.max_tar_bytes;
    if io::copy(&mut content.take(most + 1), &mut tar)? > most {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("its content is larger than {most} bytes"),
        ));
    }
    tar.flush()?;
    Ok(Some(tar))
}
