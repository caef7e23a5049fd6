//! The zero page (`struct boot_params`, `arch/x86/include/uapi/asm/bootparam.h`) and `setup_data` nodes.
//!
//! Offsets are those of Documentation/arch/x86/{boot,zero-page}.rst. Only fields that the 64-bit entry point reads are set.

use crate::layout::{E820Type, GpaRange, PAGE_BYTES};

/// Entries of `boot_params.e820_table`.
const E820_MAX_ENTRIES: usize = 128;
const E820_ENTRY_BYTES: usize = 20;

const ACPI_RSDP_ADDR: usize = 0x070;
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

/// Contents of the zero page.
pub(crate) struct BootParams<'a> {
    pub(crate) cmdline: GpaRange,
    /// Below 4 GiB.
    pub(crate) initrd: Option<GpaRange>,
    pub(crate) setup_data: u64,
    pub(crate) rsdp: u64,
    pub(crate) e820: &'a [(GpaRange, E820Type)],
}

impl BootParams<'_> {
    pub(crate) fn to_page(&self) -> Box<[u8; PAGE_BYTES as usize]> {
        let mut page = Box::new([0; PAGE_BYTES as usize]);
        let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
        put(ACPI_RSDP_ADDR, &self.rsdp.to_le_bytes());
        put(BOOT_FLAG, &0xaa55u16.to_le_bytes());
        put(HEADER_MAGIC, b"HdrS");
        put(PROTOCOL_VERSION, &0x020fu16.to_le_bytes());
        put(TYPE_OF_LOADER, &[LOADER_UNDEFINED]);
        put(LOADFLAGS, &[LOADED_HIGH]);
        put(CMD_LINE_PTR, &(self.cmdline.start as u32).to_le_bytes());
        put(CMDLINE_SIZE, &(self.cmdline.length as u32).to_le_bytes());
        put(SETUP_DATA, &self.setup_data.to_le_bytes());
        if let Some(initrd) = self.initrd {
            put(RAMDISK_IMAGE, &(initrd.start as u32).to_le_bytes());
            put(RAMDISK_SIZE, &(initrd.length as u32).to_le_bytes());
        }
        let entries = &self.e820[..self.e820.len().min(E820_MAX_ENTRIES)];
        put(E820_ENTRIES, &[entries.len() as u8]);
        for (i, (range, kind)) in entries.iter().enumerate() {
            let at = E820_TABLE + i * E820_ENTRY_BYTES;
            put(at, &range.start.to_le_bytes());
            put(at + 8, &range.length.to_le_bytes());
            put(at + 16, &(*kind as u32).to_le_bytes());
        }
        page
    }
}

/// A `setup_data` node: `next`, `type`, `len`, then the data.
pub(crate) fn setup_data_node(next: u64, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut node = Vec::with_capacity(16 + data.len());
    node.extend_from_slice(&next.to_le_bytes());
    node.extend_from_slice(&kind.to_le_bytes());
    node.extend_from_slice(&(data.len() as u32).to_le_bytes());
    node.extend_from_slice(data);
    node
}
