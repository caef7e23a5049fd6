//! What the CPUID page says of the processor. The instruction itself would fault under SNP.

use boot_manifest::{cpuid_page::registers, launch_area::PAGE_BYTES};

/// Leaf 1, ECX: SSSE3 and SSE4.1.
const SSE: u32 = 1 << 9 | 1 << 19;
/// Leaf 7, EBX: SHA extensions.
const SHA: u32 = 1 << 29;
/// Leaf 0x8000001f, EAX: caches are coherent with pages that were just validated (Linux `X86_FEATURE_COHERENCY_SFW_NO`).
const COHERENT: u32 = 1 << 31;

/// The features that stage0 uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Whether SHA instructions can be used.
    pub sha: bool,
    /// Whether validated pages need no eviction.
    pub coherent: bool,
}

impl Cpu {
    /// Of the CPUID page. A page without leaves is a processor without features.
    pub fn of_page(page: &[u8; PAGE_BYTES]) -> Self {
        let [_, _, features, _] = registers(page, 1, 0);
        let [_, structured, _, _] = registers(page, 7, 0);
        let [encryption, _, _, _] = registers(page, 0x8000_001f, 0);
        Self {
            sha: features & SSE == SSE && structured & SHA != 0,
            coherent: encryption & COHERENT != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use boot_manifest::cpuid_page::{Leaf, to_bytes};

    #[test]
    fn sha_needs_the_moves_around_it() {
        let cpu = |ecx, ebx, eax| {
            let leaf = |function, registers| Leaf {
                function,
                registers,
                ..Leaf::default()
            };
            let leaves = [leaf(1, [0, 0, ecx, 0]), leaf(7, [0, ebx, 0, 0]), leaf(0x8000_001f, [eax, 0, 0, 0])];
            let Cpu { sha, coherent } = Cpu::of_page(&to_bytes(&leaves));
            (sha, coherent)
        };
        assert_eq!(cpu(SSE, SHA, 0), (true, false));
        assert_eq!(cpu(SSE, !SHA, COHERENT), (false, true));
        assert_eq!(cpu(1 << 9, SHA, 0), (false, false));
        assert_eq!(cpu(1 << 19, SHA, 0), (false, false));
        assert_eq!(
            Cpu::of_page(&[0; PAGE_BYTES]),
            Cpu {
                sha: false,
                coherent: false
            }
        );
    }
}
