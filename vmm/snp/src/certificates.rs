//! The table of certificates that a guest gets beside its report (GHCB specification, 4.1.8.1), and the answer to a request for it
//! (Linux `Documentation/virt/kvm/api.rst`, `KVM_EXIT_SNP_REQ_CERTS`).

use vm_spec::layout::{GpaRange, PAGE_BYTES};

/// Most bytes: what Linux' driver has room for (`SEV_FW_BLOB_MAX_SIZE`).
pub const CERTIFICATES_MAX_BYTES: usize = 16 << 10;
/// GUID, offset, length.
const ENTRY_BYTES: usize = 24;
const GUID_BYTES: usize = 16;

/// Why a file is no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificatesError {
    /// Linux would take none of it.
    #[error("the table of certificates has more than {CERTIFICATES_MAX_BYTES} bytes")]
    TooLong,
    /// No entry of zeros.
    #[error("the table of certificates has no end: its last entry must be zeros")]
    NoEnd,
    /// Not even one.
    #[error("the table of certificates is empty")]
    Empty,
    /// A certificate is in the table itself, or past the end of the file.
    #[error("certificate {entry} of the table is {length} bytes at {offset}, which is not within the {bytes} bytes after the table")]
    Outside {
        /// Counted from 0.
        entry: usize,
        /// Its offset in the file.
        offset: u32,
        /// Its length.
        length: u32,
        /// Of the file.
        bytes: usize,
    },
    /// A certificate begins before the end of another.
    #[error("certificates {0} and {1} of the table overlap")]
    Overlap(usize, usize),
}

/// A checked table with its certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateTable(Vec<u8>);

/// What the VMM does about a request, and then tells KVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Write the table here; done.
    Write(GpaRange),
    /// The guest's buffer is too small: this many pages are needed (`ENOSPC`).
    Pages(u64),
    /// The buffer is not memory of the guest (`EIO`).
    Refused,
}

impl TryFrom<Vec<u8>> for CertificateTable {
    type Error = CertificatesError;
    fn try_from(bytes: Vec<u8>) -> Result<Self, CertificatesError> {
        if bytes.len() > CERTIFICATES_MAX_BYTES {
            return Err(CertificatesError::TooLong);
        }
        let (entries, _) = bytes.as_chunks::<ENTRY_BYTES>();
        let count = entries.iter().position(|entry| *entry == [0; ENTRY_BYTES]);
        let count = count.ok_or(CertificatesError::NoEnd)?;
        if count == 0 {
            return Err(CertificatesError::Empty);
        }
        let table = (count + 1) * ENTRY_BYTES;
        let places: Vec<_> = entries[..count].iter().map(place).collect();
        for (entry, (offset, length)) in places.iter().copied().enumerate() {
            let end = u64::from(offset) + u64::from(length);
            if (offset as usize) < table || end > bytes.len() as u64 || length == 0 {
                let bytes = bytes.len();
                return Err(CertificatesError::Outside {
                    entry,
                    offset,
                    length,
                    bytes,
                });
            }
            let overlaps =
                |(start, length): &(u32, u32)| u64::from(*start) < end && u64::from(offset) < u64::from(*start) + u64::from(*length);
            if let Some(other) = places[..entry].iter().position(overlaps) {
                return Err(CertificatesError::Overlap(other, entry));
            }
        }
        Ok(Self(bytes))
    }
}

/// Offset and length of an entry.
fn place(entry: &[u8; ENTRY_BYTES]) -> (u32, u32) {
    let word = |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]);
    (word(GUID_BYTES), word(GUID_BYTES + 4))
}

impl CertificateTable {
    /// The file.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The answer to a request with a buffer of `pages` pages at `start`, both as the guest says; the buffer has to be in one range of
    /// `ram`.
    pub fn answer(&self, start: u64, pages: u64, ram: &[GpaRange]) -> Answer {
        let needed = (self.0.len() as u64).div_ceil(PAGE_BYTES);
        if pages < needed {
            return Answer::Pages(needed);
        }
        let buffer = GpaRange {
            start,
            length: self.0.len() as u64,
        };
        match ram.iter().any(|ram| ram.contains(buffer)) {
            true => Answer::Write(buffer),
            false => Answer::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A table of certificates at these places, of a file of `bytes` bytes.
    fn table(places: &[(u32, u32)], bytes: usize) -> Result<CertificateTable, CertificatesError> {
        let mut file: Vec<u8> = Vec::new();
        for (offset, length) in places {
            file.extend([7; GUID_BYTES]);
            file.extend(offset.to_le_bytes());
            file.extend(length.to_le_bytes());
        }
        file.resize(bytes, 0);
        CertificateTable::try_from(file)
    }

    #[test]
    fn each_fault_of_a_table_is_named() {
        assert!(table(&[(72, 100), (172, 28)], 200).is_ok());
        assert_eq!(table(&[(72, 1)], CERTIFICATES_MAX_BYTES + 1), Err(CertificatesError::TooLong));
        assert_eq!(table(&[(24, 1)], 47), Err(CertificatesError::NoEnd));
        assert_eq!(table(&[], 100), Err(CertificatesError::Empty));
        assert_eq!(table(&[], 0), Err(CertificatesError::NoEnd));
        for (offset, length) in [(47, 10), (150, 51), (u32::MAX, 1), (100, u32::MAX), (100, 0)] {
            let outside = CertificatesError::Outside {
                entry: 0,
                offset,
                length,
                bytes: 200,
            };
            assert_eq!(table(&[(offset, length)], 200), Err(outside), "{offset} {length}");
        }
        assert_eq!(table(&[(100, 50), (149, 10)], 200), Err(CertificatesError::Overlap(0, 1)));
        assert_eq!(table(&[(100, 50), (90, 100)], 200), Err(CertificatesError::Overlap(0, 1)));
    }

    #[test]
    fn a_buffer_is_large_enough_and_ram() {
        let table = table(&[(48, 5000)], 5048).unwrap();
        let ram = [GpaRange {
            start: 0,
            length: 0x10_0000,
        }];
        let whole = GpaRange {
            start: 0x1000,
            length: 5048,
        };
        assert_eq!(table.answer(0x1000, 2, &ram), Answer::Write(whole));
        assert_eq!(table.answer(0x1000, u64::MAX, &ram), Answer::Write(whole));
        assert_eq!(table.answer(0x1000, 1, &ram), Answer::Pages(2));
        assert_eq!(table.answer(0, 0, &ram), Answer::Pages(2));
        for outside in [0xf_f000, 0x10_0000, 0xffff_ffff_ffff_f000] {
            assert_eq!(table.answer(outside, 4, &ram), Answer::Refused);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(0u8..3, 0..400), start: u64, pages: u64) {
            if let Ok(table) = CertificateTable::try_from(bytes) {
                table.answer(start, pages, &[GpaRange { start: 0, length: 1 << 20 }]);
            }
        }
    }
}
