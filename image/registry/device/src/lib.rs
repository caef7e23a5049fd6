//! The configuration as a disk that the host attaches to the guest (virtio serial `imagepuller`): 8 bytes of magic, 8 bytes of length in
//! little endian, gzip of the text, padding. A guest without the disk pulls without credentials; with a damaged one it pulls nothing.
#![forbid(unsafe_code)]

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use std::io::{self, Read, Write};
use zeroize::Zeroizing;

/// Largest configuration in bytes.
pub const CONFIG_MAX_BYTES: usize = 16 << 20;
/// Serial number of the disk.
pub const SERIAL: &str = "imagepuller";
/// First bytes of the disk.
const MAGIC: &[u8; 8] = b"imgpullr";
/// Disks end with a whole sector.
const SECTOR_BYTES: usize = 512;
/// Most compressed bytes: gzip adds little to what it cannot compress.
const COMPRESSED_MAX_BYTES: u64 = CONFIG_MAX_BYTES as u64;

/// Why a disk holds no configuration.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// It cannot be read.
    #[error("cannot read the disk with the registry configuration")]
    Read(#[source] io::Error),
    /// It starts otherwise.
    #[error("the disk with the registry configuration does not start as one")]
    Magic,
    /// Longer than the limit, compressed or not.
    #[error("the registry configuration is larger than {CONFIG_MAX_BYTES} bytes")]
    TooLarge,
    /// The disk ends, the compressed text is damaged, or something follows it.
    #[error("the disk with the registry configuration is damaged")]
    Damaged,
}

/// Writes a disk.
///
/// # Errors
/// The text is too large.
pub fn encode(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, DeviceError> {
    if text.len() > CONFIG_MAX_BYTES {
        return Err(DeviceError::TooLarge);
    }
    let mut disk = [MAGIC.as_slice(), &[0; 8]].concat();
    let start = disk.len();
    let mut encoder = GzEncoder::new(&mut disk, Compression::default());
    encoder
        .write_all(text)
        .and_then(|()| encoder.try_finish())
        .map_err(DeviceError::Read)?;
    drop(encoder);
    let length = (disk.len() - start) as u64;
    if length > COMPRESSED_MAX_BYTES {
        return Err(DeviceError::TooLarge);
    }
    disk[MAGIC.len()..start].copy_from_slice(&length.to_le_bytes());
    disk.resize(disk.len().next_multiple_of(SECTOR_BYTES), 0);
    Ok(Zeroizing::new(disk))
}

/// Reads a disk; the caller parses the text.
///
/// # Errors
/// It holds no configuration.
pub fn decode(mut disk: impl Read) -> Result<Zeroizing<Vec<u8>>, DeviceError> {
    let mut magic = [0; 8];
    let mut length = [0; 8];
    exact(&mut disk, &mut magic)?;
    if magic != *MAGIC {
        return Err(DeviceError::Magic);
    }
    exact(&mut disk, &mut length)?;
    let length = u64::from_le_bytes(length);
    if length > COMPRESSED_MAX_BYTES {
        return Err(DeviceError::TooLarge);
    }
    let mut compressed = Zeroizing::new(Vec::new());
    let read = disk.take(length).read_to_end(&mut compressed).map_err(DeviceError::Read)?;
    if read as u64 != length {
        return Err(DeviceError::Damaged);
    }
    let mut decoder = GzDecoder::new(compressed.as_slice());
    let mut text = Zeroizing::new(Vec::new());
    let unpacked = (&mut decoder).take(CONFIG_MAX_BYTES as u64 + 1).read_to_end(&mut text);
    unpacked.map_err(|_| DeviceError::Damaged)?;
    if text.len() > CONFIG_MAX_BYTES {
        return Err(DeviceError::TooLarge);
    }
    if !decoder.into_inner().is_empty() {
        return Err(DeviceError::Damaged);
    }
    Ok(text)
}

fn exact(disk: &mut impl Read, bytes: &mut [u8]) -> Result<(), DeviceError> {
    disk.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => DeviceError::Damaged,
        _ => DeviceError::Read(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_damaged_disk_is_refused() {
        let disk = encode(b"[extra-env]\n").unwrap();
        let changed = |at: usize, to: u8| {
            let mut disk = disk.to_vec();
            disk[at] = to;
            decode(disk.as_slice())
        };
        assert!(matches!(changed(0, b'I'), Err(DeviceError::Magic)));
        assert!(matches!(changed(15, 1), Err(DeviceError::TooLarge)));
        assert!(matches!(changed(16, 0), Err(DeviceError::Damaged)));
        // The length takes the padding in, or leaves the end out.
        assert!(matches!(changed(8, disk[8] + 1), Err(DeviceError::Damaged)));
        assert!(matches!(changed(8, disk[8] - 1), Err(DeviceError::Damaged)));
        assert!(matches!(changed(9, 255), Err(DeviceError::Damaged)));
        assert!(matches!(decode(&disk[..4]), Err(DeviceError::Damaged)));
        assert!(matches!(decode(&disk[..20]), Err(DeviceError::Damaged)));
        assert!(matches!(decode(&b""[..]), Err(DeviceError::Damaged)));
    }

    #[test]
    fn both_lengths_are_limited() {
        let bomb = {
            let mut packed = GzEncoder::new(Vec::new(), Compression::best());
            packed.write_all(&vec![b'#'; CONFIG_MAX_BYTES + 1]).unwrap();
            packed.finish().unwrap()
        };
        let disk = [MAGIC.as_slice(), &(bomb.len() as u64).to_le_bytes(), &bomb].concat();
        assert!(matches!(decode(disk.as_slice()), Err(DeviceError::TooLarge)));
        assert!(matches!(encode(&vec![0; CONFIG_MAX_BYTES + 1]), Err(DeviceError::TooLarge)));
    }

    proptest! {
        #[test]
        fn texts_round_trip(text: Vec<u8>) {
            let disk = encode(&text).unwrap();
            prop_assert_eq!(disk.len() % SECTOR_BYTES, 0);
            prop_assert_eq!(decode(disk.as_slice()).unwrap().to_vec(), text);
        }

        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = decode(bytes.as_slice());
            let _ = decode([MAGIC.as_slice(), &bytes].concat().as_slice());
        }
    }
}
