//! The CPUID page (SNP firmware ABI, 8.14.2.6; Linux `struct snp_cpuid_table`), from which stage0 and Linux read instead of executing
//! CPUID.

use crate::{launch_area::PAGE_BYTES, manifest::u32_at};

/// Most leaves.
pub const LEAVES_MAX: usize = 64;
const HEADER_BYTES: usize = 16;
const LEAF_BYTES: usize = 48;

/// One leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaf {
    /// EAX at the instruction.
    pub function: u32,
    /// ECX at the instruction; 0 for a leaf without sub-leaves.
    pub index: u32,
    /// XCR0 for which sub-leaves 0 and 1 of leaf 0xd were computed; 0 for others.
    pub xcr0: u64,
    /// EAX, EBX, ECX, EDX.
    pub registers: [u32; 4],
}

/// The page with the first [`LEAVES_MAX`] of `leaves`.
pub fn to_bytes(leaves: &[Leaf]) -> [u8; PAGE_BYTES] {
    let mut page = [0; PAGE_BYTES];
    let leaves = leaves.get(..LEAVES_MAX).unwrap_or(leaves);
    page[..4].copy_from_slice(&(leaves.len() as u32).to_le_bytes());
    for (bytes, leaf) in page[HEADER_BYTES..].chunks_exact_mut(LEAF_BYTES).zip(leaves) {
        bytes[..4].copy_from_slice(&leaf.function.to_le_bytes());
        bytes[4..8].copy_from_slice(&leaf.index.to_le_bytes());
        bytes[8..16].copy_from_slice(&leaf.xcr0.to_le_bytes());
        for (bytes, register) in bytes[24..40].chunks_exact_mut(4).zip(leaf.registers) {
            bytes.copy_from_slice(&register.to_le_bytes());
        }
    }
    page
}

/// The leaves of a page, as far as it counts them.
pub fn leaves(page: &[u8; PAGE_BYTES]) -> impl Iterator<Item = Leaf> {
    let count = (u32_at(page, 0) as usize).min(LEAVES_MAX);
    page[HEADER_BYTES..].chunks_exact(LEAF_BYTES).take(count).map(|leaf| Leaf {
        function: u32_at(leaf, 0),
        index: u32_at(leaf, 4),
        xcr0: u64::from(u32_at(leaf, 8)) | u64::from(u32_at(leaf, 12)) << 32,
        registers: [24, 28, 32, 36].map(|at| u32_at(leaf, at)),
    })
}

/// EAX, EBX, ECX and EDX of a leaf; zeros for one that the page does not have.
pub fn registers(page: &[u8; PAGE_BYTES], function: u32, index: u32) -> [u32; 4] {
    let found = leaves(page).find(|leaf| (leaf.function, leaf.index) == (function, index));
    found.map_or([0; 4], |leaf| leaf.registers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_leaf_is_where_linux_reads_it() {
        let leaf = Leaf {
            function: 7,
            index: 0,
            xcr0: 0,
            registers: [1, 2, 3, 4],
        };
        let page = to_bytes(&[Leaf::default(), leaf]);
        assert_eq!((page[0], page[16 + 48], page[16 + 48 + 28]), (2, 7, 2));
        assert_eq!(registers(&page, 7, 0), [1, 2, 3, 4]);
        assert_eq!((registers(&page, 7, 1), registers(&page, 8, 0)), ([0; 4], [0; 4]));
    }

    proptest! {
        #[test]
        fn no_page_panics_and_leaves_above_the_limit_are_left_out(count: u32, number in 0u32..100) {
            let leaves: Vec<Leaf> = (0..number).map(|function| Leaf { function, registers: [function + 1; 4], ..Leaf::default() }).collect();
            let mut page = to_bytes(&leaves);
            for function in 0..number {
                let expected = if function < LEAVES_MAX as u32 { function + 1 } else { 0 };
                prop_assert_eq!(registers(&page, function, 0), [expected; 4]);
            }
            page[..4].copy_from_slice(&count.to_le_bytes());
            registers(&page, u32::MAX, 0);
        }
    }
}
