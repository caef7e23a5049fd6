//! Copies kernel and initramfs from staging to RAM, and compares what is there with the digests of the boot page.

use crate::{machine::Machine, params::BOOT_PARAMS, sha256::Sha256};
use boot_manifest::{BootPage, KERNEL_HEADER_BYTES, LoadMap, Refusal, STAGED_KERNEL, launch_area::PAGE_BYTES, ram::Ram, staged_initrd};
use core::ops::Range;

const PAGE: u64 = PAGE_BYTES as u64;
/// The digest of no initramfs.
const NONE: [u8; 32] = [0; 32];

/// Where the initramfs goes: at the top of low RAM, away from the kernel's early allocations. Empty without one.
pub fn place_initrd(map: &LoadMap, ram: Ram) -> Result<Range<u64>, Refusal> {
    let end = ram.low_end();
    let start = end.checked_sub(map.initrd_bytes()).ok_or(Refusal::Room)?;
    let start = start - start % PAGE;
    if start < map.kernel_end() {
        return Err(Refusal::Room);
    }
    Ok(start..start + map.initrd_bytes())
}

/// Loads both files. On an error RAM holds what nobody may run.
pub fn load(machine: &mut impl Machine, page: &BootPage<'_>, initrd: &Range<u64>) -> Result<(), Refusal> {
    if !same(&kernel(machine, &page.load), &page.manifest.kernel_sha256) {
        return Err(Refusal::Kernel);
    }
    for segment in page.load.segments() {
        machine.zero(segment.address + segment.bytes..segment.pages().end);
    }
    let digest = if initrd.is_empty() {
        NONE
    } else {
        machine.load_staging(staged_initrd(&page.load), initrd.clone());
        let mut hash = Sha256::new();
        hash.last(machine, machine.ram(initrd.clone()))
    };
    if same(&digest, &page.manifest.initrd_sha256) {
        Ok(())
    } else {
        Err(Refusal::Initrd)
    }
}

/// Loads the segments and returns the digest of the kernel file. Its headers and the padding between segments, which do not stay,
/// are hashed in RAM too: the headers where the boot parameters will be, padding in the last page of a segment.
fn kernel(machine: &mut impl Machine, map: &LoadMap) -> [u8; 32] {
    let headers = BOOT_PARAMS..BOOT_PARAMS + KERNEL_HEADER_BYTES;
    machine.load_staging(STAGED_KERNEL, headers.clone());
    let mut hash = Sha256::new();
    hash.blocks(machine, machine.ram(headers));
    let mut from = STAGED_KERNEL + KERNEL_HEADER_BYTES;
    let segments = map.segments();
    for (n, segment) in segments.iter().enumerate() {
        let is_last = n + 1 == segments.len();
        let bytes = if is_last {
            segment.bytes
        } else {
            segment.bytes.next_multiple_of(PAGE)
        };
        let to = segment.address..segment.address + bytes;
        machine.load_staging(from, to.clone());
        from += bytes;
        if is_last {
            return hash.last(machine, machine.ram(to));
        }
        hash.blocks(machine, machine.ram(to));
    }
    NONE
}

/// Compares in constant time.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_counts() {
        let hash = [0x5a; 32];
        for bit in 0..256 {
            let mut other = hash;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!same(&hash, &other));
        }
        assert!(same(&hash, &hash));
    }
}
