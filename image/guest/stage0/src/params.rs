//! The boot parameters, which stage0 writes itself: nothing that Linux follows at boot is the host's, but for a plain guest's host page.

use crate::machine::Machine;
use boot_manifest::{
    BootPage, HOST_PAGE_BYTES, HostPage, Mode, SETUP_DATA_HOST_PAGE,
    boot_page::BOOT_PAGE_CMDLINE,
    boot_params::{BootParams, NODE_HEADER_BYTES, node_header},
    launch_area::{BOOT_PAGE, CPUID_PAGE, PAGE_BYTES, SECRETS_PAGE, STAGE0_ACPI},
    ram::Ram,
};
use core::ops::Range;

/// The zero page. Linux never uses the first 64 KiB of RAM for anything else.
pub const BOOT_PARAMS: u64 = 0x7000;
/// `setup_data` node with the host page, in mode `plain`.
const HOST_PAGE_NODE: u64 = 0x8000;
/// `struct cc_blob_sev_info`, in mode `snp`.
const CC_BLOB: u32 = 0x9000;

/// `CC_BLOB_SEV_HDR_MAGIC` (Linux `arch/x86/include/asm/sev.h`).
const CC_BLOB_MAGIC: u32 = 0x4544_4d41;
const CC_BLOB_BYTES: usize = 40;

/// How the kernel starts: its 64-bit entry, with the zero page as argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// First instruction.
    pub entry: u64,
    /// The zero page.
    pub boot_params: u64,
}

/// Writes the zero page and what it refers to outside of the launched pages.
pub fn write(machine: &mut impl Machine, page: &BootPage<'_>, ram: Ram, initrd: Range<u64>, host_page: &HostPage) -> Start {
    let mode = page.manifest.mode;
    // The chain ends in the measured node. Linux walks it before any code of ours runs.
    let setup_data = if mode == Mode::Plain {
        machine.write(
            HOST_PAGE_NODE,
            &node_header(BOOT_PAGE, SETUP_DATA_HOST_PAGE, HOST_PAGE_BYTES as u32),
        );
        machine.write(HOST_PAGE_NODE + NODE_HEADER_BYTES as u64, &host_page.to_bytes());
        HOST_PAGE_NODE
    } else {
        BOOT_PAGE
    };
    if mode == Mode::Snp {
        machine.write(CC_BLOB.into(), &cc_blob());
    }
    let cmdline = BOOT_PAGE + BOOT_PAGE_CMDLINE as u64;
    let params = BootParams {
        cmdline: cmdline..cmdline + page.cmdline.len() as u64 + 1,
        initrd: Some(initrd).filter(|initrd| !initrd.is_empty()),
        setup_data,
        rsdp: STAGE0_ACPI,
        cc_blob: (mode == Mode::Snp).then_some(CC_BLOB),
    };
    machine.write(BOOT_PARAMS, &params.to_bytes(ram.e820()));
    Start {
        entry: page.load.entry(),
        boot_params: BOOT_PARAMS,
    }
}

/// `struct cc_blob_sev_info`: where Linux finds secrets and CPUID page.
fn cc_blob() -> [u8; CC_BLOB_BYTES] {
    let mut blob = [0; CC_BLOB_BYTES];
    blob[..4].copy_from_slice(&CC_BLOB_MAGIC.to_le_bytes());
    for (at, page) in [(8, SECRETS_PAGE), (24, CPUID_PAGE)] {
        blob[at..at + 8].copy_from_slice(&page.to_le_bytes());
        blob[at + 8..at + 12].copy_from_slice(&(PAGE_BYTES as u32).to_le_bytes());
    }
    blob
}
