//! The page of CPUID leaves that the firmware checks, and what it corrected.

use crate::platform::Source;
use vm_spec::layout::PAGE_BYTES;

/// Most leaves (SNP firmware ABI, 8.17.2.6; Linux `SNP_CPUID_COUNT_MAX`).
pub const CPUID_MAX_LEAVES: usize = 64;
/// Count and reserved words before the leaves.
const HEADER_BYTES: usize = 16;
/// One leaf: inputs EAX, ECX, XCR0, XSS; outputs EAX to EDX; a reserved word.
const LEAF_BYTES: usize = 48;
/// Extended state, whose sizes depend on XCR0.
const EXTENDED_STATE: u32 = 0xd;
/// Bytes of the legacy area and header: the size that leaf 0xd reports before the guest enables more.
const FIRST_STATE_BYTES: u32 = 0x240;
/// Bits that the firmware clears, or whose MSRs an SNP guest must not use: (leaf, sub-leaf, register, bits).
const CLEARED: [(u32, u32, usize, u32); 5] = [
    (1, 0, 2, 1 << 24),            // TSC deadline timer
    (7, 0, 1, 1 << 1),             // TSC_ADJUST
    (7, 0, 3, u32::MAX),           // speculation controls that KVM emulates
    (0x8000_0008, 0, 1, 1 << 25),  // VIRT_SSBD
    (0x8000_0021, 0, 2, u32::MAX), // reserved
];

/// One leaf, as the guest reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuidLeaf {
    /// EAX of the instruction.
    pub function: u32,
    /// ECX of the instruction.
    pub index: u32,
    /// EAX, EBX, ECX, EDX.
    pub registers: [u32; 4],
}

/// More leaves than the page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this host offers {0} CPUID leaves; an SNP guest can have {CPUID_MAX_LEAVES}")]
pub struct TooManyLeaves(pub usize);

/// A register that the firmware changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Correction {
    /// Leaf as it was offered.
    pub offered: CpuidLeaf,
    /// Registers as the firmware wants them.
    pub corrected: [u32; 4],
}

/// The page. Leaves of zeros are left out, as Linux takes an absent leaf for zeros.
pub fn cpuid_page(leaves: &[CpuidLeaf]) -> Result<Source, TooManyLeaves> {
    let leaves: Vec<_> = leaves.iter().map(for_snp).filter(|leaf| leaf.registers != [0; 4]).collect();
    if leaves.len() > CPUID_MAX_LEAVES {
        return Err(TooManyLeaves(leaves.len()));
    }
    let mut page = Source([0; PAGE_BYTES as usize]);
    page.0[..4].copy_from_slice(&(leaves.len() as u32).to_le_bytes());
    for (slot, leaf) in page.0[HEADER_BYTES..].chunks_exact_mut(LEAF_BYTES).zip(&leaves) {
        slot[..4].copy_from_slice(&leaf.function.to_le_bytes());
        slot[4..8].copy_from_slice(&leaf.index.to_le_bytes());
        if leaf.function == EXTENDED_STATE && leaf.index <= 1 {
            slot[8] = 1; // XCR0: x87 only, the state at entry
        }
        for (bytes, register) in slot[24..40].chunks_exact_mut(4).zip(leaf.registers) {
            bytes.copy_from_slice(&register.to_le_bytes());
        }
    }
    Ok(page)
}

fn for_snp(leaf: &CpuidLeaf) -> CpuidLeaf {
    let mut leaf = *leaf;
    for (_, _, register, bits) in CLEARED.iter().filter(|(f, i, ..)| (*f, *i) == (leaf.function, leaf.index)) {
        leaf.registers[*register] &= !bits;
    }
    if leaf.function == EXTENDED_STATE && leaf.index <= 1 {
        leaf.registers[1] = FIRST_STATE_BYTES;
    }
    leaf
}

/// What differs between the page that was offered and the one that came back.
pub fn corrections(offered: &Source, returned: &Source) -> Vec<Correction> {
    let leaves = leaves(offered).zip(leaves(returned));
    let changed = leaves.filter(|(before, after)| before.registers != after.registers);
    changed
        .map(|(offered, after)| Correction {
            offered,
            corrected: after.registers,
        })
        .collect()
}

fn leaves(page: &Source) -> impl Iterator<Item = CpuidLeaf> {
    let word = |slot: &[u8], at: usize| u32::from_le_bytes([slot[at], slot[at + 1], slot[at + 2], slot[at + 3]]);
    page.0[HEADER_BYTES..]
        .chunks_exact(LEAF_BYTES)
        .take(CPUID_MAX_LEAVES)
        .map(move |slot| CpuidLeaf {
            function: word(slot, 0),
            index: word(slot, 4),
            registers: [24, 28, 32, 36].map(|at| word(slot, at)),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, index: u32, registers: [u32; 4]) -> CpuidLeaf {
        CpuidLeaf {
            function,
            index,
            registers,
        }
    }

    #[test]
    fn a_leaf_lies_where_linux_reads_it() {
        let page = cpuid_page(&[leaf(0, 0, [0x10, 1, 2, 3]), leaf(5, 0, [0; 4]), leaf(0xd, 1, [0xf, 0x340, 0, 0])]).unwrap();
        assert_eq!(page.0[..4], 2u32.to_le_bytes());
        assert_eq!(page.0[16..24], [0; 8]);
        assert_eq!(page.0[40..44], 0x10u32.to_le_bytes());
        assert_eq!(page.0[64..80], [0xd, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(page.0[92..96], 0x240u32.to_le_bytes());
    }

    #[test]
    fn bits_that_the_firmware_clears_are_not_offered() {
        let page = cpuid_page(&[leaf(1, 0, [u32::MAX; 4]), leaf(7, 0, [u32::MAX; 4])]).unwrap();
        let [one, seven] = [0, 1].map(|n| leaves(&page).nth(n).unwrap());
        assert_eq!(one.registers[2], !(1 << 24));
        assert_eq!(seven.registers[1..], [!2, u32::MAX, 0]);
    }

    #[test]
    fn a_correction_names_its_leaf() {
        let offered = cpuid_page(&[leaf(0x8000_001f, 0, [0xffff, 51, 509, 0])]).unwrap();
        let mut returned = offered.clone();
        returned.0[40] = 0xfe;
        assert_eq!(
            corrections(&offered, &returned),
            [Correction {
                offered: leaf(0x8000_001f, 0, [0xffff, 51, 509, 0]),
                corrected: [0xfffe, 51, 509, 0],
            }]
        );
        assert!(corrections(&offered, &offered).is_empty());
    }

    #[test]
    fn too_many_leaves_are_refused() {
        let many = vec![leaf(2, 0, [1; 4]); CPUID_MAX_LEAVES + 1];
        assert_eq!(cpuid_page(&many).unwrap_err(), TooManyLeaves(65));
        assert!(cpuid_page(&many[1..]).is_ok());
    }
}
