//! The launch digest: the hash over one PAGE_INFO structure for each page, each of which holds the digest before it.

use sha2::{Digest, Sha384};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use vm_spec::{Page, PageKind, VMSA_GPA, layout::PAGE_BYTES};

/// Bytes of a SHA-384.
const DIGEST_BYTES: usize = 48;
/// Bytes of PAGE_INFO (SNP firmware ABI, 8.17.2, table 67).
const PAGE_INFO_BYTES: u16 = 0x70;
/// Not a page of an initial migration image.
const IMI_PAGE: u8 = 0;
/// Permissions of VMPL 3, 2 and 1: Linux launches pages with none.
const VMPL_PERMISSIONS: [u8; 3] = [0; 3];

/// The digest of a guest's launch: MEASUREMENT of its attestation reports.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LaunchDigest(pub [u8; DIGEST_BYTES]);

impl LaunchDigest {
    /// Before the first page.
    pub const INITIAL: Self = Self([0; DIGEST_BYTES]);

    /// The digest after one more page.
    fn extended(self, kind: PageKind, gpa: u64, bytes: &[u8; PAGE_BYTES as usize]) -> Self {
        let contents: [u8; DIGEST_BYTES] = match kind.measures_contents() {
            true => Sha384::digest(bytes).into(),
            false => [0; DIGEST_BYTES],
        };
        let page_info = Sha384::new()
            .chain_update(self.0)
            .chain_update(contents)
            .chain_update(PAGE_INFO_BYTES.to_le_bytes())
            .chain_update([kind as u8, IMI_PAGE])
            .chain_update(VMPL_PERMISSIONS)
            .chain_update([0])
            .chain_update(gpa.to_le_bytes());
        Self(page_info.finalize().into())
    }
}

impl fmt::Display for LaunchDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for LaunchDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LaunchDigest({self})")
    }
}

/// Not 96 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a launch digest has 96 hex digits")]
pub struct NotADigest;

impl FromStr for LaunchDigest {
    type Err = NotADigest;
    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let mut bytes = [0; DIGEST_BYTES];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| NotADigest)?;
        Ok(Self(bytes))
    }
}

/// Why pages cannot be launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeasureError {
    /// Inside a page, or beyond the addresses that the firmware takes.
    #[error("{0:#x} is not the address of a page")]
    Address(u64),
    /// The firmware assigns a page to one address once.
    #[error("the page at {0:#x} is launched twice")]
    Twice(u64),
    /// A save area elsewhere, or another page there.
    #[error("{0:#x} is not for this kind of page: save areas, and nothing else, are at {VMSA_GPA:#x}")]
    SaveArea(u64),
}

/// A launch in progress: pages in order, each address once.
#[derive(Clone, Debug)]
pub struct Measurement {
    digest: LaunchDigest,
    launched: BTreeSet<u64>,
}

impl Default for Measurement {
    fn default() -> Self {
        Self {
            digest: LaunchDigest::INITIAL,
            launched: BTreeSet::new(),
        }
    }
}

impl Measurement {
    /// The digest so far.
    pub fn digest(&self) -> LaunchDigest {
        self.digest
    }

    /// Adds a page and returns the digest with it; a page that is refused changes nothing.
    pub fn add(&mut self, kind: PageKind, gpa: u64, bytes: &[u8; PAGE_BYTES as usize]) -> Result<LaunchDigest, MeasureError> {
        if !gpa.is_multiple_of(PAGE_BYTES) || gpa > VMSA_GPA {
            return Err(MeasureError::Address(gpa));
        }
        if (kind == PageKind::Vmsa) != (gpa == VMSA_GPA) {
            return Err(MeasureError::SaveArea(gpa));
        }
        if kind != PageKind::Vmsa && !self.launched.insert(gpa) {
            return Err(MeasureError::Twice(gpa));
        }
        self.digest = self.digest.extended(kind, gpa, bytes);
        Ok(self.digest)
    }
}

/// The digest of all pages of a plan.
pub fn measure(pages: &[Page]) -> Result<LaunchDigest, MeasureError> {
    let mut measurement = Measurement::default();
    for page in pages {
        measurement.add(page.kind, page.gpa, &page.bytes)?;
    }
    Ok(measurement.digest())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: [u8; 4096] = [7; 4096];

    fn fold(pages: &[(PageKind, u64, [u8; 4096])]) -> Result<LaunchDigest, MeasureError> {
        let pages: Vec<Page> = pages
            .iter()
            .map(|&(kind, gpa, bytes)| Page {
                gpa,
                kind,
                bytes: Box::new(bytes),
            })
            .collect();
        measure(&pages)
    }

    #[test]
    fn a_digest_is_read_as_it_is_written() {
        let digest = fold(&[(PageKind::Normal, 0x1000, PAGE)]).unwrap();
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!("00".parse::<LaunchDigest>(), Err(NotADigest));
        assert_eq!(fold(&[]), Ok(LaunchDigest::INITIAL));
    }

    #[test]
    fn contents_count_where_the_firmware_reads_them() {
        let kinds = [
            (PageKind::Normal, true),
            (PageKind::Vmsa, true),
            (PageKind::Zero, false),
            (PageKind::Unmeasured, false),
            (PageKind::Secrets, false),
            (PageKind::Cpuid, false),
        ];
        for (kind, counts) in kinds {
            let gpa = if kind == PageKind::Vmsa { VMSA_GPA } else { 0x1000 };
            let of = |bytes| fold(&[(kind, gpa, bytes)]).unwrap();
            assert_eq!(of([1; 4096]) != of([2; 4096]), counts, "{kind:?}");
        }
    }

    #[test]
    fn pages_that_the_firmware_refuses_are_refused_and_change_nothing() {
        let mut measurement = Measurement::default();
        let mut add = |kind, gpa| measurement.add(kind, gpa, &PAGE);
        add(PageKind::Normal, 0x1000).unwrap();
        assert_eq!(add(PageKind::Normal, 0x1001), Err(MeasureError::Address(0x1001)));
        assert_eq!(add(PageKind::Zero, 1 << 48), Err(MeasureError::Address(1 << 48)));
        assert_eq!(add(PageKind::Zero, 0x1000), Err(MeasureError::Twice(0x1000)));
        assert_eq!(add(PageKind::Vmsa, 0x2000), Err(MeasureError::SaveArea(0x2000)));
        assert_eq!(add(PageKind::Normal, VMSA_GPA), Err(MeasureError::SaveArea(VMSA_GPA)));
        assert_eq!(measurement.digest(), fold(&[(PageKind::Normal, 0x1000, PAGE)]).unwrap());
        let mut add = |kind, gpa| measurement.add(kind, gpa, &PAGE);
        add(PageKind::Zero, 0x2000).unwrap();
        add(PageKind::Vmsa, VMSA_GPA).unwrap();
        add(PageKind::Vmsa, VMSA_GPA).unwrap();
    }

    /// Kind, address, and the byte that fills the page.
    type Filled = (PageKind, u64, u8);

    fn pages() -> impl Strategy<Value = Vec<Filled>> {
        use PageKind::{Cpuid, Normal, Secrets, Unmeasured, Zero};
        let kind = prop::sample::select(vec![Normal, Zero, Unmeasured, Secrets, Cpuid]);
        prop::collection::btree_map(0u64..64, (kind, any::<u8>()), 2..8)
            .prop_map(|pages| pages.into_iter().map(|(n, (kind, byte))| (kind, n * 4096, byte)).collect())
    }

    fn of(pages: &[Filled]) -> LaunchDigest {
        let filled: Vec<_> = pages.iter().map(|&(kind, gpa, byte)| (kind, gpa, [byte; 4096])).collect();
        fold(&filled).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn order_kind_address_and_number_of_pages_count(pages in pages(), at: prop::sample::Index) {
            let (digest, at) = (of(&pages), at.index(pages.len()));
            let changed = |change: &dyn Fn(&mut Vec<Filled>)| {
                let mut other = pages.clone();
                change(&mut other);
                of(&other)
            };
            prop_assert_ne!(changed(&|p| { let first = p.remove(0); p.push(first) }), digest, "order");
            prop_assert_ne!(changed(&|p| { p.remove(at); }), digest, "a page less");
            prop_assert_ne!(changed(&|p| p[at].1 += 64 * 4096), digest, "address");
            let other_kind = if pages[at].0 == PageKind::Normal { PageKind::Zero } else { PageKind::Normal };
            prop_assert_ne!(changed(&|p| p[at].0 = other_kind), digest, "kind");
        }
    }
}
