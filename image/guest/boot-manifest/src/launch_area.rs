//! The pages that a guest with stage0 is launched with, and the boot page among them, which stage0 reads first.
//!
//! ```text
//! 0x0020_0000  stage0: its program, then zeros up to 0x0020_e000 (rest of its data, stack)
//! 0x0020_e000  page tables: every GiB of RAM at its own address, staging in the last one
//! 0x0021_0000  boot page
//! 0x0021_1000  ACPI tables, two pages
//! 0x0021_3000  secrets page and CPUID page of SNP; zeros without it
//! 0x0021_5000  end
//! 0x7f_c000_0000  staging: kernel, initramfs and host page in memory that the host can change
//! ```
//! All addresses are fixed: the measurement depends on the image and the number of vCPUs only.

use crate::{MANIFEST_BYTES, Manifest, ReadError, SETUP_DATA_MANIFEST, manifest::u32_at};

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;

/// First byte of stage0's program, and its entry.
pub const STAGE0: u64 = 0x20_0000;
/// Longest program.
pub const STAGE0_MAX_BYTES: usize = 12 * PAGE_BYTES;
/// First page table: level 4, with level 3 in the page after it.
pub const STAGE0_PAGE_TABLES: u64 = 0x20_e000;
/// The boot page; its address is the argument of stage0 (RSI).
pub const BOOT_PAGE: u64 = 0x21_0000;
/// ACPI tables, RSDP first.
pub const STAGE0_ACPI: u64 = 0x21_1000;
/// Pages of ACPI tables.
pub const STAGE0_ACPI_PAGES: usize = 2;
/// Secrets page (SNP firmware ABI, 8.14.2.5).
pub const SECRETS_PAGE: u64 = 0x21_3000;
/// CPUID page (SNP firmware ABI, 8.14.2.6).
pub const CPUID_PAGE: u64 = 0x21_4000;
/// First byte after the launched pages; stage0 accepts every other page of RAM itself.
pub const LAUNCH_AREA_END: u64 = 0x21_5000;
/// Memory that the host can change, one GiB at most; RAM ends below it.
pub const STAGING: u64 = 511 << 30;

/// The C-bit of page tables on every processor with SNP so far (CPUID 0x8000_001f, EBX bits 5:0). It is measured: on a processor
/// with another position the guest faults at its first instruction.
pub const ENCRYPTION_BIT: u32 = 51;

/// Longest command line with its NUL: `COMMAND_LINE_SIZE` of x86 Linux.
pub const CMDLINE_MAX_BYTES: usize = 2048;

/// Bytes before the data of a `setup_data` node: next, type, length.
const NODE_HEADER_BYTES: usize = 16;
/// Where the command line begins in the boot page.
pub const BOOT_PAGE_CMDLINE: usize = PAGE_BYTES - CMDLINE_MAX_BYTES;

/// What the measured boot page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootPage<'a> {
    /// Mode, and what kernel and initramfs must be.
    pub manifest: Manifest,
    /// Kernel command line without its NUL.
    pub cmdline: &'a str,
}

/// Why a command line cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CmdlineError {
    /// With its NUL it is longer than [`CMDLINE_MAX_BYTES`].
    Long(usize),
    /// A NUL would end it early.
    Nul,
}

impl<'a> BootPage<'a> {
    /// The layout: a `setup_data` node (next 0, so that it is the list's end) with the manifest, zeros, and the command line with
    /// its NUL in the second half; little endian.
    pub fn to_bytes(&self) -> Result<[u8; PAGE_BYTES], CmdlineError> {
        let cmdline = self.cmdline.as_bytes();
        if cmdline.len() >= CMDLINE_MAX_BYTES {
            return Err(CmdlineError::Long(cmdline.len()));
        }
        if cmdline.contains(&0) {
            return Err(CmdlineError::Nul);
        }
        let mut page = [0; PAGE_BYTES];
        page[8..12].copy_from_slice(&SETUP_DATA_MANIFEST.to_le_bytes());
        page[12..16].copy_from_slice(&(MANIFEST_BYTES as u32).to_le_bytes());
        page[NODE_HEADER_BYTES..NODE_HEADER_BYTES + MANIFEST_BYTES].copy_from_slice(&self.manifest.to_bytes());
        page[BOOT_PAGE_CMDLINE..BOOT_PAGE_CMDLINE + cmdline.len()].copy_from_slice(cmdline);
        Ok(page)
    }

    /// Reads the layout of [`BootPage::to_bytes`], and nothing else: every byte has one meaning.
    pub fn from_bytes(page: &'a [u8; PAGE_BYTES]) -> Result<Self, ReadError> {
        let (next, kind, length) = (&page[..8], u32_at(page, 8), u32_at(page, 12));
        if kind != SETUP_DATA_MANIFEST {
            return Err(ReadError::Magic);
        }
        if length != MANIFEST_BYTES as u32 {
            return Err(ReadError::Short);
        }
        let manifest = Manifest::from_bytes(&page[NODE_HEADER_BYTES..])?;
        let (text, rest) = page[BOOT_PAGE_CMDLINE..].split_at(
            page[BOOT_PAGE_CMDLINE..]
                .iter()
                .position(|&byte| byte == 0)
                .ok_or(ReadError::Cmdline)?,
        );
        let between = &page[NODE_HEADER_BYTES + MANIFEST_BYTES..BOOT_PAGE_CMDLINE];
        if next.iter().chain(between).chain(rest).any(|&byte| byte != 0) {
            return Err(ReadError::Reserved);
        }
        let cmdline = core::str::from_utf8(text).map_err(|_| ReadError::Cmdline)?;
        Ok(Self { manifest, cmdline })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mode;
    use proptest::prelude::*;

    const MANIFEST: Manifest = Manifest {
        mode: Mode::Snp,
        kernel_sha256: [1; 32],
        initrd_sha256: [2; 32],
    };

    fn page(cmdline: &str) -> Result<[u8; PAGE_BYTES], CmdlineError> {
        let manifest = MANIFEST;
        BootPage { manifest, cmdline }.to_bytes()
    }

    #[test]
    fn the_longest_command_line_ends_the_page() {
        let longest = "x".repeat(CMDLINE_MAX_BYTES - 1);
        assert_eq!(BootPage::from_bytes(&page(&longest).unwrap()).unwrap().cmdline, longest);
        assert_eq!(page(&"x".repeat(CMDLINE_MAX_BYTES)), Err(CmdlineError::Long(CMDLINE_MAX_BYTES)));
        assert_eq!(page("a\0b"), Err(CmdlineError::Nul));
    }

    #[test]
    fn each_damage_has_its_error() {
        let good = page("quiet").unwrap();
        let damaged = |at: usize, value: u8| {
            let mut bytes = good;
            bytes[at] = value;
            BootPage::from_bytes(&bytes).map(|page| page.cmdline.len())
        };
        assert_eq!(damaged(0, 1), Err(ReadError::Reserved), "a node that follows");
        assert_eq!(damaged(8, 9), Err(ReadError::Magic));
        assert_eq!(damaged(12, 127), Err(ReadError::Short));
        assert_eq!(damaged(16, 0), Err(ReadError::Magic));
        assert_eq!(damaged(NODE_HEADER_BYTES + MANIFEST_BYTES, 1), Err(ReadError::Reserved));
        assert_eq!(damaged(BOOT_PAGE_CMDLINE + 1, 0xff), Err(ReadError::Cmdline));
        assert_eq!(damaged(PAGE_BYTES - 1, 1), Err(ReadError::Reserved));
        let mut endless = good;
        endless[BOOT_PAGE_CMDLINE..].fill(b'x');
        assert_eq!(BootPage::from_bytes(&endless), Err(ReadError::Cmdline));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(cmdline in "[ -~é]{0,900}") {
            let bytes = page(&cmdline).unwrap();
            prop_assert_eq!(BootPage::from_bytes(&bytes), Ok(BootPage { manifest: MANIFEST, cmdline: &cmdline }));
        }

        /// What is read writes the same bytes: no two pages mean the same.
        #[test]
        fn a_changed_byte_is_refused_or_seen(at in 0..PAGE_BYTES, value: u8) {
            let mut bytes = page("quiet panic=-1").unwrap();
            bytes[at] = value;
            if let Ok(read) = BootPage::from_bytes(&bytes) {
                prop_assert_eq!(read.to_bytes().unwrap(), bytes);
            }
        }
    }
}
