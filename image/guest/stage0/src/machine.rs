//! What stage0 does with the machine: memory, and the validation of pages.

use core::ops::Range;

/// Size of a page to validate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// 4 KiB.
    Small = 0,
    /// 2 MiB.
    Large = 1,
}

/// Outcome of PVALIDATE (AMD64 APM 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validation {
    /// The page was not valid, and is now.
    Validated,
    /// The page had been valid before (CF set): the host maps another page at an address that was validated, or one that was launched.
    Unchanged,
    /// The host has the page in pieces of another size.
    SizeMismatch,
    /// Any other error.
    Failed,
}

/// The machine as stage0 sees it. Addresses of RAM are mapped so that the host cannot change what is there; those of staging are not.
pub trait Machine {
    /// Makes the page at `address` valid.
    fn validate(&mut self, address: u64, size: PageSize) -> Validation;

    /// Evicts a page of 4 KiB, which has just been validated, from the caches of processors that need it (CVE-2025-38560).
    fn evict(&mut self, address: u64);

    /// Copies staging memory, each byte read once.
    fn read_staging(&mut self, from: u64, to: &mut [u8]);

    /// Copies staging memory to RAM, each byte read once.
    fn load_staging(&mut self, from: u64, to: Range<u64>);

    /// Fills RAM with zeros.
    fn zero(&mut self, range: Range<u64>);

    /// RAM.
    fn ram(&self, range: Range<u64>) -> &[u8];

    /// Writes RAM.
    fn write(&mut self, at: u64, bytes: &[u8]);

    /// SHA-256's compression function over consecutive blocks.
    fn compress(&self, state: &mut [u32; 8], blocks: &[[u8; 64]]);
}
