//! The staging memory, which the host can change at any time: the host's claims about this guest, then kernel and initramfs.
//!
//! Its first page is the staging page; the kernel file begins in the next one, the initramfs at the first page boundary after it.

use crate::{
    HOST_PAGE_BYTES, HostPage, LoadMap,
    launch_area::{PAGE_BYTES, STAGING},
    load_map::u64_at,
    manifest::{ReadError, u32_at},
};

/// Where the kernel file begins.
pub const STAGED_KERNEL: u64 = STAGING + PAGE_BYTES as u64;

const MAGIC: &[u8; 8] = b"CASESTAG";
const VERSION: u32 = 1;
const HOST_PAGE_AT: usize = 64;

/// Where the initramfs begins.
pub fn staged_initrd(map: &LoadMap) -> u64 {
    STAGED_KERNEL + map.kernel_bytes().next_multiple_of(PAGE_BYTES as u64)
}

/// First address after the initramfs.
pub fn staging_end(map: &LoadMap) -> u64 {
    staged_initrd(map) + map.initrd_bytes()
}

/// The host's claims. stage0 checks the amount of RAM; host data counts in mode `plain` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StagingPage {
    /// Bytes of RAM.
    pub ram_bytes: u64,
    /// For the guest's agent.
    pub host_page: HostPage,
}

impl StagingPage {
    /// The layout: magic 8, version u32, zeros 4, bytes of RAM u64, zeros up to 64, the host page, zeros; little endian.
    pub fn to_bytes(&self) -> [u8; PAGE_BYTES] {
        let mut b = [0; PAGE_BYTES];
        b[..8].copy_from_slice(MAGIC);
        b[8..12].copy_from_slice(&VERSION.to_le_bytes());
        b[16..24].copy_from_slice(&self.ram_bytes.to_le_bytes());
        b[HOST_PAGE_AT..HOST_PAGE_AT + HOST_PAGE_BYTES].copy_from_slice(&self.host_page.to_bytes());
        b
    }

    /// Reads the layout of [`StagingPage::to_bytes`], and nothing else.
    pub fn from_bytes(b: &[u8; PAGE_BYTES]) -> Result<Self, ReadError> {
        if &b[..8] != MAGIC {
            return Err(ReadError::Magic);
        }
        let version = u32_at(b, 8);
        if version != VERSION {
            return Err(ReadError::Version(version));
        }
        let page = Self {
            ram_bytes: u64_at(b, 16),
            host_page: HostPage::from_bytes(&b[HOST_PAGE_AT..HOST_PAGE_AT + HOST_PAGE_BYTES])?,
        };
        if page.to_bytes() != *b {
            return Err(ReadError::Reserved);
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page(ram_bytes: u64) -> StagingPage {
        let host_page = HostPage { host_data: [7; 32] };
        StagingPage { ram_bytes, host_page }
    }

    proptest! {
        #[test]
        fn bytes_round_trip(ram_bytes: u64) {
            prop_assert_eq!(StagingPage::from_bytes(&page(ram_bytes).to_bytes()), Ok(page(ram_bytes)));
        }
    }

    #[test]
    fn every_changed_byte_is_refused_or_seen() {
        let good = page(64 << 20).to_bytes();
        for at in 0..PAGE_BYTES {
            let mut bytes = good;
            bytes[at] ^= 0x11;
            match StagingPage::from_bytes(&bytes) {
                Err(ReadError::Magic) => assert!(at < 8 || (64..72).contains(&at), "{at}"),
                Err(ReadError::Version(_)) => assert!((8..12).contains(&at) || (72..76).contains(&at), "{at}"),
                Err(error) => assert_eq!(error, ReadError::Reserved, "{at}"),
                Ok(read) => {
                    assert!((16..24).contains(&at) || (80..112).contains(&at), "{at}");
                    assert_eq!(read.to_bytes(), bytes);
                }
            }
        }
    }
}
