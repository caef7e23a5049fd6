//! QEMU's table of kernel hashes (`target/i386/sev.c`, `sev_add_kernel_loader_hashes`), which OVMF compares with what it loads.

use crate::guid::{Guid, guid};
use sha2::{Digest, Sha256};

const TABLE: Guid = guid("9438d606-4f22-4cc9-b479-a793d411fd21");
const CMDLINE: Guid = guid("97d02dd8-bd20-4c94-aa78-e7714d36ab2a");
const INITRD: Guid = guid("44baf731-3a2f-4bd7-9af1-41e29169781d");
const KERNEL: Guid = guid("4de79437-abd2-427f-b835-d5b172d2045b");
/// GUID, length and SHA-256.
const ENTRY_BYTES: usize = 16 + 2 + 32;
const TABLE_BYTES: usize = 16 + 2 + 3 * ENTRY_BYTES;
const ALIGNMENT: usize = 16;

/// SHA-256 of what the firmware loads.
pub struct Hashes {
    pub kernel: [u8; 32],
    pub initrd: [u8; 32],
    pub cmdline: [u8; 32],
}

impl Hashes {
    /// The command line is hashed with its NUL.
    pub fn new(kernel: [u8; 32], initrd: [u8; 32], cmdline: &str) -> Self {
        let cmdline = Sha256::new().chain_update(cmdline).chain_update([0]).finalize().into();
        Self { kernel, initrd, cmdline }
    }

    /// The table, padded.
    pub fn to_table(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(TABLE_BYTES.next_multiple_of(ALIGNMENT));
        bytes.extend_from_slice(&TABLE);
        bytes.extend_from_slice(&(TABLE_BYTES as u16).to_le_bytes());
        for (guid, hash) in [(CMDLINE, self.cmdline), (INITRD, self.initrd), (KERNEL, self.kernel)] {
            bytes.extend_from_slice(&guid);
            bytes.extend_from_slice(&(ENTRY_BYTES as u16).to_le_bytes());
            bytes.extend_from_slice(&hash);
        }
        bytes.resize(TABLE_BYTES.next_multiple_of(ALIGNMENT), 0);
        bytes
    }

    /// The page that holds the table at `offset`, if it fits.
    pub fn to_page(&self, offset: usize) -> Option<Box<[u8; 4096]>> {
        let table = self.to_table();
        let mut page = Box::new([0; 4096]);
        page.get_mut(offset..offset.checked_add(table.len())?)?.copy_from_slice(&table);
        Some(page)
    }
}
