//! Files of bounded size.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::GenerateError;

/// Reads a whole file of at most `max_bytes`.
pub(crate) fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>, GenerateError> {
    let error = |source| GenerateError::Read {
        path: PathBuf::from(path),
        source,
    };
    let file = File::open(path).map_err(error)?;
    let mut bytes = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(error)?;
    if bytes.len() as u64 > max_bytes {
        return Err(error(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            format!("larger than {max_bytes} bytes"),
        )));
    }
    Ok(bytes)
}
