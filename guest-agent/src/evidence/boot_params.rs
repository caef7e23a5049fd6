//! `setup_data` nodes as Linux shows them (`Documentation/ABI/testing/sysfs-kernel-boot_params`).

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use super::EvidenceError;

/// One numbered directory for each node, with the files `type` and `data`.
pub const SETUP_DATA: &str = "/sys/kernel/boot_params/setup_data";

/// Upper bound on the number of nodes; no boot loader adds so many.
const NODES: usize = 64;
/// Longest node that is read, in bytes; manifest and host page are far smaller.
const NODE_BYTES: u64 = 4096;

/// The data of the only node of type `wanted`.
pub fn node(directory: &Path, wanted: u32) -> Result<Vec<u8>, EvidenceError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(EvidenceError::BootParams)?.take(NODES) {
        let path = entry.map_err(EvidenceError::BootParams)?.path();
        let kind = read(&path.join("type")).map_err(EvidenceError::BootParams)?;
        if parse_type(&kind) == Some(wanted) {
            found.push(read(&path.join("data")).map_err(EvidenceError::BootParams)?);
        }
    }
    match found.pop() {
        Some(data) if found.is_empty() => Ok(data),
        last => Err(EvidenceError::Nodes {
            node: wanted,
            count: found.len() + usize::from(last.is_some()),
        }),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(NODE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The kernel writes `0x%x\n`.
fn parse_type(text: &[u8]) -> Option<u32> {
    let text = str::from_utf8(text).ok()?.trim_end();
    u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}
