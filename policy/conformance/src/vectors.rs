//! Vector files: JSON lines, plain or compressed with zstd.

use std::io::{Error, ErrorKind, Read};
use std::path::Path;

use ruzstd::decoding::StreamingDecoder;

/// The recorded decisions that the repository carries.
pub const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/policy.jsonl.zst");
/// Largest vector file in bytes, after decompression.
pub const MAX_VECTOR_BYTES: u64 = 64 << 20;
/// First bytes of a zstd frame (RFC 8878, section 3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Reads a vector file. Its first bytes, not its name, show whether it is compressed.
///
/// # Errors
/// The file cannot be read or decompressed, is not UTF-8, or is longer than [`MAX_VECTOR_BYTES`].
pub fn read(path: &Path) -> Result<String, Error> {
    let bytes = std::fs::read(path)?;
    let mut text = String::new();
    if bytes.starts_with(&ZSTD_MAGIC) {
        let decoder = StreamingDecoder::new(bytes.as_slice()).map_err(|error| Error::new(ErrorKind::InvalidData, error.to_string()))?;
        decoder.take(MAX_VECTOR_BYTES + 1).read_to_string(&mut text)?;
    } else {
        bytes.as_slice().take(MAX_VECTOR_BYTES + 1).read_to_string(&mut text)?;
    }
    if text.len() as u64 > MAX_VECTOR_BYTES {
        return Err(ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressed_and_plain_files_are_distinguished_by_content() {
        let text = read(Path::new(VECTORS)).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let plain = directory.path().join("plain.zst");
        std::fs::write(&plain, &text).unwrap();
        assert_eq!(read(&plain).unwrap(), text);
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let damaged = directory.path().join("damaged.zst");
        let whole = std::fs::read(VECTORS).unwrap();
        std::fs::write(&damaged, &whole[..whole.len() / 2]).unwrap();
        assert!(read(&damaged).is_err());
    }
}
