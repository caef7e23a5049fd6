//! The launch plan: all pages that the VMM writes before the guest runs, in order, and the first vCPU's registers; here without stage0.
//!
//! A pure function of the spec and the sizes of files, so that what is measured is what is loaded. Kernel and initrd are not
//! pages of the plan; the VMM reads them from their files.

use crate::{
    Payload, Tee, VmSpec, acpi,
    layout::{
        ACPI_TABLES, CMDLINE, CMDLINE_MAX_BYTES, GDT, GpaRange, HIGH_MEMORY, PAGE_BYTES, PAGE_DIRECTORY, PDPT, PML4, RESET_PORT,
        RESET_VALUE, RESET_VECTOR, SETUP_DATA_HOST_PAGE_NODE, SETUP_DATA_MANIFEST_NODE, ZERO_PAGE, e820, ram_ranges,
    },
    page::{Page, PageKind, in_pages},
    registers::{Entry, GDT_ENTRIES, Registers},
};
use boot_manifest::{
    HostPage, Manifest, Mode, SETUP_DATA_HOST_PAGE, SETUP_DATA_MANIFEST,
    boot_params::{BootParams, node_header},
    launch_area::STAGE0_MAX_BYTES,
};

/// Present and writable, in any page table entry.
const PRESENT_WRITABLE: u64 = 0b11;
/// A page directory entry that maps 2 MiB.
const LARGE_PAGE: u64 = 1 << 7;
const LARGE_PAGE_BYTES: u64 = 2 << 20;
/// What the page directory maps: the first GiB. The entry point must lie in it.
const MAPPED_BYTES: u64 = 1 << 30;

/// What the plan needs of an ELF kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// From its first to its last segment, uninitialised data included.
    pub occupies: GpaRange,
    /// Physical address of its 64-bit entry.
    pub entry: u64,
}

/// All pages of a guest and its entry point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchPlan {
    /// In order of guest address, then the save areas of the vCPUs. A TEE measures them in this order.
    pub pages: Vec<Page>,
    /// Where the VMM loads the initrd.
    pub initrd: Option<GpaRange>,
    /// Registers of the first vCPU.
    pub first: Registers,
}

/// Why a spec has no launch plan.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// SNP needs measured boot.
    #[error("a guest with tee `snp` cannot boot a kernel directly: nothing would verify the kernel in the guest")]
    DirectUnderSnp,
    /// The kernel is outside RAM, or below 1 MiB.
    #[error("the kernel occupies {:#x} to {:#x}, which is not RAM above 1 MiB of this guest", .0.start, .0.end())]
    KernelOutsideRam(GpaRange),
    /// The entry point is outside the kernel or not mapped by the boot page tables.
    #[error("the kernel's entry point {0:#x} is outside the kernel or above the first GiB")]
    Entry(u64),
    /// No room between the kernel's end and the end of low RAM.
    #[error("an initrd of {bytes} bytes does not fit after the kernel, which ends at {kernel_end:#x}; give the guest more memory")]
    InitrdTooLarge {
        /// Bytes of the file.
        bytes: u64,
        /// First address after the kernel.
        kernel_end: u64,
    },
    /// Longer than `COMMAND_LINE_SIZE`.
    #[error("the command line has {0} bytes; Linux reads at most {max}", max = CMDLINE_MAX_BYTES - 1)]
    CmdlineTooLong(usize),
    /// A NUL byte would end it early.
    #[error("the command line contains a NUL byte")]
    CmdlineNul,
    /// Empty, or longer than the launch area has room for.
    #[error("stage0 has {0} bytes; 1 to {STAGE0_MAX_BYTES} are possible")]
    Stage0(usize),
    /// Longer than the pages of the launch area.
    #[error("the ACPI tables have {0} bytes, more than the launch area has room for")]
    Acpi(usize),
    /// RAM would reach into the range of memory that the host can change.
    #[error("with {0} MiB, RAM does not end below 511 GiB, where a guest with stage0 has its staging memory; 522240 MiB are possible")]
    RamInStaging(u32),
}

impl LaunchPlan {
    /// The plan of a VM whose kernel the VMM loads itself; `initrd_bytes` is zero without an initrd.
    pub fn direct(spec: &VmSpec, kernel: Kernel, initrd_bytes: u64) -> Result<Self, PlanError> {
        let Payload {
            kernel_sha256,
            initrd_sha256,
            cmdline,
            ..
        } = spec.boot.payload();
        let mode = match spec.tee {
            Tee::Plain => Mode::Plain,
            Tee::Simulated => Mode::Simulated,
            Tee::Snp => return Err(PlanError::DirectUnderSnp),
        };
        let cmdline = cmdline_bytes(cmdline)?;
        let low_ram = ram_ranges(spec.memory)[0];
        check_kernel(kernel, low_ram)?;
        let initrd = place_initrd(initrd_bytes, kernel.occupies.end(), low_ram)?;

        let manifest = Manifest {
            mode,
            kernel_sha256: kernel_sha256.0,
            initrd_sha256: initrd_sha256.0,
        };
        let host_page = HostPage {
            host_data: spec.host_data.0,
        };
        let zero_page = BootParams {
            cmdline: CMDLINE..CMDLINE + cmdline.len() as u64,
            initrd: initrd.map(|initrd| initrd.start..initrd.end()),
            setup_data: SETUP_DATA_MANIFEST_NODE,
            rsdp: ACPI_TABLES,
            cc_blob: None,
        }
        .to_bytes(e820(spec.memory).into_iter().map(|(range, kind)| (range.start..range.end(), kind)));

        let mut pages = vec![Page {
            gpa: ZERO_PAGE,
            kind: PageKind::Normal,
            bytes: Box::new(zero_page),
        }];
        let mut put = |gpa, kind, bytes: &[u8]| pages.extend(in_pages(gpa, kind, bytes));
        put(GDT, PageKind::Normal, &qwords(GDT_ENTRIES));
        put(PML4, PageKind::Normal, &qwords([PDPT | PRESENT_WRITABLE]));
        put(PDPT, PageKind::Normal, &qwords([PAGE_DIRECTORY | PRESENT_WRITABLE]));
        put(PAGE_DIRECTORY, PageKind::Normal, &qwords(identity_map()));
        put(CMDLINE, PageKind::Normal, &cmdline);
        // Linux follows the list before any code of ours runs, so only a plain guest has a node in it that is not measured.
        let host_page_node = if mode == Mode::Plain { SETUP_DATA_HOST_PAGE_NODE } else { 0 };
        let node = setup_data_node(host_page_node, SETUP_DATA_MANIFEST, &manifest.to_bytes());
        put(SETUP_DATA_MANIFEST_NODE, PageKind::Normal, &node);
        if mode == Mode::Plain {
            let node = setup_data_node(0, SETUP_DATA_HOST_PAGE, &host_page.to_bytes());
            put(SETUP_DATA_HOST_PAGE_NODE, PageKind::Unmeasured, &node);
        }
        put(
            ACPI_TABLES,
            PageKind::Normal,
            &acpi::tables(spec.vcpus, spec.volumes.slots, ACPI_TABLES),
        );
        put(RESET_VECTOR - RESET_VECTOR % PAGE_BYTES, PageKind::Normal, &reset_page());
        Ok(Self {
            pages,
            initrd,
            first: Registers::linux(Entry {
                rip: kernel.entry,
                rsi: ZERO_PAGE,
                cr3: PML4,
            }),
        })
    }
}

/// Appends the terminating NUL.
fn cmdline_bytes(cmdline: &str) -> Result<Vec<u8>, PlanError> {
    if cmdline.len() >= CMDLINE_MAX_BYTES {
        return Err(PlanError::CmdlineTooLong(cmdline.len()));
    }
    if cmdline.bytes().any(|b| b == 0) {
        return Err(PlanError::CmdlineNul);
    }
    let mut bytes = cmdline.as_bytes().to_vec();
    bytes.push(0);
    Ok(bytes)
}

fn check_kernel(kernel: Kernel, low_ram: GpaRange) -> Result<(), PlanError> {
    let above_1_mib = GpaRange {
        start: HIGH_MEMORY,
        length: low_ram.length - HIGH_MEMORY,
    };
    if !above_1_mib.contains(kernel.occupies) {
        return Err(PlanError::KernelOutsideRam(kernel.occupies));
    }
    let entry = GpaRange {
        start: kernel.entry,
        length: 1,
    };
    if !kernel.occupies.contains(entry) || kernel.entry >= MAPPED_BYTES {
        return Err(PlanError::Entry(kernel.entry));
    }
    Ok(())
}

/// At the top of low RAM, away from the kernel's early allocations.
fn place_initrd(bytes: u64, kernel_end: u64, low_ram: GpaRange) -> Result<Option<GpaRange>, PlanError> {
    if bytes == 0 {
        return Ok(None);
    }
    let too_large = PlanError::InitrdTooLarge { bytes, kernel_end };
    let Some(start) = low_ram.end().checked_sub(bytes) else {
        return Err(too_large);
    };
    let start = start - start % PAGE_BYTES;
    if start < kernel_end {
        return Err(too_large);
    }
    Ok(Some(GpaRange { start, length: bytes }))
}

/// Page directory entries that identity-map the first GiB.
fn identity_map() -> [u64; 512] {
    std::array::from_fn(|i| (i as u64 * LARGE_PAGE_BYTES) | LARGE_PAGE | PRESENT_WRITABLE)
}

/// The page of the real-mode reset vector. With hardware-reduced ACPI, Linux restarts through EFI, or without EFI through
/// real mode and this vector, unless its command line has a `reboot=`.
fn reset_page() -> Vec<u8> {
    let [low, high] = RESET_PORT.to_le_bytes();
    let mut page = vec![0; (RESET_VECTOR % PAGE_BYTES) as usize];
    // mov al, RESET_VALUE; mov dx, RESET_PORT; out dx, al; hlt
    page.extend_from_slice(&[0xb0, RESET_VALUE, 0xba, low, high, 0xee, 0xf4]);
    page
}

/// A `setup_data` node.
fn setup_data_node(next: u64, kind: u32, data: &[u8]) -> Vec<u8> {
    [&node_header(next, kind, data.len() as u32), data].concat()
}

fn qwords<const N: usize>(entries: [u64; N]) -> Vec<u8> {
    entries.iter().flat_map(|e| e.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests;
