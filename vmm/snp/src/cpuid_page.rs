//! The page of CPUID leaves that an SNP guest is offered, and what the firmware corrected.

use crate::platform::Source;
use boot_manifest::cpuid_page::{LEAVES_MAX, Leaf, leaves, to_bytes};
use std::fmt;

/// Extended state, whose sizes depend on XCR0.
const EXTENDED_STATE: u32 = 0xd;
/// Bytes of the legacy area and header: the size that leaf 0xd reports before the guest enables more.
const FIRST_STATE_BYTES: u32 = 0x240;
/// XCR0 at entry.
const X87: u64 = 1;
/// Bits that the firmware clears, or whose MSRs an SNP guest must not use: (leaf, sub-leaf, register, bits).
const CLEARED: [(u32, u32, usize, u32); 5] = [
    (1, 0, 2, 1 << 24),            // TSC deadline timer
    (7, 0, 1, 1 << 1),             // TSC_ADJUST
    (7, 0, 3, u32::MAX),           // speculation controls that KVM emulates
    (0x8000_0008, 0, 1, 1 << 25),  // VIRT_SSBD
    (0x8000_0021, 0, 2, u32::MAX), // reserved
];

/// More leaves than the page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this host offers {0} CPUID leaves; an SNP guest can have {LEAVES_MAX}")]
pub struct TooManyLeaves(pub usize);

/// A register that the firmware changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Correction {
    /// Leaf as it was offered.
    pub offered: Leaf,
    /// Registers as the firmware wants them.
    pub corrected: [u32; 4],
}

impl fmt::Display for Correction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Leaf {
            function,
            index,
            registers,
            ..
        } = self.offered;
        write!(f, "{function:#x}.{index:#x} from {registers:08x?} to {:08x?}", self.corrected)
    }
}

/// The page. Leaves of zeros are left out, as Linux takes an absent leaf for zeros.
pub fn cpuid_page(leaves: &[Leaf]) -> Result<Source, TooManyLeaves> {
    let leaves: Vec<_> = leaves.iter().map(for_snp).filter(|leaf| leaf.registers != [0; 4]).collect();
    match leaves.len() {
        0..=LEAVES_MAX => Ok(Source(to_bytes(&leaves))),
        many => Err(TooManyLeaves(many)),
    }
}

fn for_snp(leaf: &Leaf) -> Leaf {
    let mut leaf = *leaf;
    for (_, _, register, bits) in CLEARED.iter().filter(|(f, i, ..)| (*f, *i) == (leaf.function, leaf.index)) {
        leaf.registers[*register] &= !bits;
    }
    if leaf.function == EXTENDED_STATE && leaf.index <= 1 {
        leaf.registers[1] = FIRST_STATE_BYTES;
        leaf.xcr0 = X87;
    }
    leaf
}

/// What differs between the page that was offered and the one that came back.
pub fn corrections(offered: &Source, returned: &Source) -> Vec<Correction> {
    let leaves = leaves(&offered.0).zip(leaves(&returned.0));
    let changed = leaves.filter(|(before, after)| before.registers != after.registers);
    changed
        .map(|(offered, after)| Correction {
            offered,
            corrected: after.registers,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, index: u32, registers: [u32; 4]) -> Leaf {
        Leaf {
            function,
            index,
            xcr0: 0,
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
        let [one, seven] = [0, 1].map(|n| leaves(&page.0).nth(n).unwrap());
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
        assert_eq!(
            corrections(&offered, &returned)[0].to_string(),
            "0x8000001f.0x0 from [0000ffff, 00000033, 000001fd, 00000000] to [0000fffe, 00000033, 000001fd, 00000000]"
        );
        assert!(corrections(&offered, &offered).is_empty());
    }

    #[test]
    fn too_many_leaves_are_refused() {
        let many = vec![leaf(2, 0, [1; 4]); LEAVES_MAX + 1];
        assert_eq!(cpuid_page(&many).unwrap_err(), TooManyLeaves(65));
        assert!(cpuid_page(&many[1..]).is_ok());
    }
}
