//! The pages that a guest with stage0 is launched with.
//!
//! ```text
//! 0x0020_0000  stage0: its program, then zeros up to 0x0020_e000 (rest of its data, stack)
//! 0x0020_e000  page tables: every GiB of RAM at its own address, staging in the last one
//! 0x0021_0000  boot page
//! 0x0021_1000  ACPI tables, two pages
//! 0x0021_3000  secrets page and CPUID page of SNP; zeros without it
//! 0x0021_5000  end
//! 0x7f_c000_0000  staging: host page, kernel and initramfs in memory that the host can change
//! ```
//! All addresses are fixed: the measurement depends on the image and the number of vCPUs only.

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;

/// First byte of stage0's program, and its entry.
pub const STAGE0: u64 = 0x20_0000;
/// Longest program.
pub const STAGE0_MAX_BYTES: usize = 12 * PAGE_BYTES;
/// Four page tables of level 2 in a guest that is not encrypted, for processors without pages of 1 GiB; zeros in one that is.
pub const STAGE0_SMALLER_TABLES: u64 = 0x20_a000;
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
