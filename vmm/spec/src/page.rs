//! A page of guest memory as the VMM launches it, and what its kind says about its measurement.

use crate::layout::PAGE_BYTES;

/// Kind of a launched page: the page types of SNP_LAUNCH_UPDATE (SNP firmware ABI, 8.17.2). Without a TEE that measures, only
/// [`PageKind::Unmeasured`] differs from the others: it is the host's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PageKind {
    /// Address and contents are measured.
    Normal = 1,
    /// The save area of a vCPU; address (the same for all) and contents are measured. KVM makes the page from the vCPU's registers.
    Vmsa = 2,
    /// Zeros; the address is measured.
    Zero = 3,
    /// The untrusted host's contents; SNP measures the address.
    Unmeasured = 4,
    /// Filled by the firmware with keys for its messages; the address is measured.
    Secrets = 5,
    /// CPUID leaves that the firmware checks; the address is measured. Zeros in the plan: leaves depend on the host.
    Cpuid = 6,
}

impl PageKind {
    /// Whether the contents are measured besides kind and address.
    pub fn measures_contents(self) -> bool {
        match self {
            Self::Normal | Self::Vmsa => true,
            Self::Zero | Self::Unmeasured | Self::Secrets | Self::Cpuid => false,
        }
    }
}

/// The initial contents of one page of guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Guest physical address, page-aligned.
    pub gpa: u64,
    /// What it is, and so what of it is measured.
    pub kind: PageKind,
    /// Its contents.
    pub bytes: Box<[u8; PAGE_BYTES as usize]>,
}

/// Consecutive pages from `gpa` with `bytes`, the last one padded with zeros.
pub(crate) fn in_pages(gpa: u64, kind: PageKind, bytes: &[u8]) -> impl Iterator<Item = Page> {
    bytes
        .chunks(PAGE_BYTES as usize)
        .zip((gpa..).step_by(PAGE_BYTES as usize))
        .map(move |(chunk, gpa)| {
            let mut bytes = Box::new([0; PAGE_BYTES as usize]);
            bytes[..chunk.len()].copy_from_slice(chunk);
            Page { gpa, kind, bytes }
        })
}
