//! The zero page (`struct boot_params`, `arch/x86/include/uapi/asm/bootparam.h`) and `setup_data` nodes.
//!
//! Offsets are those of Documentation/arch/x86/{boot,zero-page}.rst. Only fields that the 64-bit entry point reads are set.

use crate::launch_area::PAGE_BYTES;
use core::ops::Range;

/// Entries of `boot_params.e820_table`.
const E820_MAX_ENTRIES: usize = 128;
const E820_ENTRY_BYTES: usize = 20;

const ACPI_RSDP_ADDR: usize = 0x070;
const CC_BLOB_ADDRESS: usize = 0x13c;
const E820_ENTRIES: usize = 0x1e8;
const BOOT_FLAG: usize = 0x1fe;
const HEADER_MAGIC: usize = 0x202;
const PROTOCOL_VERSION: usize = 0x206;
const TYPE_OF_LOADER: usize = 0x210;
const LOADFLAGS: usize = 0x211;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21c;
const CMD_LINE_PTR: usize = 0x228;
const CMDLINE_SIZE: usize = 0x238;
const SETUP_DATA: usize = 0x250;
const E820_TABLE: usize = 0x2d0;

/// Undefined: a boot loader without an assigned id.
const LOADER_UNDEFINED: u8 = 0xff;
/// `LOADED_HIGH`: the kernel is above 1 MiB.
const LOADED_HIGH: u8 = 1;

/// Bytes before the data of a `setup_data` node: next, type, length.
pub const NODE_HEADER_BYTES: usize = 16;

/// Kind of an E820 range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum E820Type {
    /// Usable RAM.
    Ram = 1,
    /// Reserved. An encrypted guest maps it without encryption, as if it were a device.
    Reserved = 2,
    /// ACPI tables.
    Acpi = 3,
}

/// Contents of the zero page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootParams {
    /// The command line with its NUL, below 4 GiB.
    pub cmdline: Range<u64>,
    /// The initramfs, below 4 GiB.
    pub initrd: Option<Range<u64>>,
    /// First `setup_data` node.
    pub setup_data: u64,
    /// ACPI's root pointer.
    pub rsdp: u64,
    /// `struct cc_blob_sev_info` of an SNP guest.
    pub cc_blob: Option<u32>,
}

impl BootParams {
    /// The page, with the first 128 ranges of `e820`.
    pub fn to_bytes(&self, e820: impl IntoIterator<Item = (Range<u64>, E820Type)>) -> [u8; PAGE_BYTES] {
        let mut page = [0; PAGE_BYTES];
        let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
        let length = |range: &Range<u64>| (range.end - range.start) as u32;
        put(ACPI_RSDP_ADDR, &self.rsdp.to_le_bytes());
        put(CC_BLOB_ADDRESS, &self.cc_blob.unwrap_or(0).to_le_bytes());
        put(BOOT_FLAG, &0xaa55u16.to_le_bytes());
        put(HEADER_MAGIC, b"HdrS");
        put(PROTOCOL_VERSION, &0x020fu16.to_le_bytes());
        put(TYPE_OF_LOADER, &[LOADER_UNDEFINED]);
        put(LOADFLAGS, &[LOADED_HIGH]);
        put(CMD_LINE_PTR, &(self.cmdline.start as u32).to_le_bytes());
        put(CMDLINE_SIZE, &length(&self.cmdline).to_le_bytes());
        put(SETUP_DATA, &self.setup_data.to_le_bytes());
        if let Some(initrd) = &self.initrd {
            put(RAMDISK_IMAGE, &(initrd.start as u32).to_le_bytes());
            put(RAMDISK_SIZE, &length(initrd).to_le_bytes());
        }
        let mut entries = 0;
        for (range, kind) in e820.into_iter().take(E820_MAX_ENTRIES) {
            let at = E820_TABLE + usize::from(entries) * E820_ENTRY_BYTES;
            put(at, &range.start.to_le_bytes());
            put(at + 8, &(range.end - range.start).to_le_bytes());
            put(at + 16, &(kind as u32).to_le_bytes());
            entries += 1u8;
        }
        put(E820_ENTRIES, &[entries]);
        page
    }
}

/// The header of a `setup_data` node: `next`, `type`, `len`.
pub fn node_header(next: u64, kind: u32, length: u32) -> [u8; NODE_HEADER_BYTES] {
    let mut header = [0; NODE_HEADER_BYTES];
    header[..8].copy_from_slice(&next.to_le_bytes());
    header[8..12].copy_from_slice(&kind.to_le_bytes());
    header[12..].copy_from_slice(&length.to_le_bytes());
    header
}
