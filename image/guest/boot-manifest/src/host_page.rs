//! The unmeasured part: the host's claims about one guest.

use crate::manifest::{ReadError, hash_at, u32_at};

/// Size of an encoded host page in bytes.
pub const HOST_PAGE_BYTES: usize = 64;

const MAGIC: &[u8; 8] = b"CASEHOST";
const VERSION: u32 = 1;

/// The host's claims; the guest uses this host data in mode `plain` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPage {
    /// SHA-256 of the policy text that the host will send.
    pub host_data: [u8; 32],
}

impl HostPage {
    /// The layout: magic 8, version u32, reserved u32, host data 32, zeros; little endian.
    pub fn to_bytes(&self) -> [u8; HOST_PAGE_BYTES] {
        let mut b = [0u8; HOST_PAGE_BYTES];
        b[..8].copy_from_slice(MAGIC);
        b[8..12].copy_from_slice(&VERSION.to_le_bytes());
        b[16..48].copy_from_slice(&self.host_data);
        b
    }

    /// Reads the layout of [`HostPage::to_bytes`]; bytes after it are ignored.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ReadError> {
        let b: &[u8; HOST_PAGE_BYTES] = bytes.first_chunk().ok_or(ReadError::Short)?;
        if &b[..8] != MAGIC {
            return Err(ReadError::Magic);
        }
        let version = u32_at(b, 8);
        if version != VERSION {
            return Err(ReadError::Version(version));
        }
        if b[12..16].iter().chain(&b[48..]).any(|&x| x != 0) {
            return Err(ReadError::Reserved);
        }
        Ok(Self { host_data: hash_at(b, 16) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_round_trip(host_data: [u8; 32]) {
            let page = HostPage { host_data };
            prop_assert_eq!(HostPage::from_bytes(&page.to_bytes()), Ok(page));
        }

        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = HostPage::from_bytes(&bytes);
        }
    }

    #[test]
    fn a_manifest_is_not_a_host_page() {
        let manifest = crate::Manifest {
            mode: crate::Mode::Plain,
            kernel_sha256: [0; 32],
            initrd_sha256: [0; 32],
        };
        assert_eq!(HostPage::from_bytes(&manifest.to_bytes()), Err(ReadError::Magic));
    }
}
