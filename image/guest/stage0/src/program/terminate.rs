//! Tells the VMM why the kernel does not start, and never returns.

use boot_manifest::{REFUSAL_CODE_SET, REFUSAL_PORT, Refusal};
use core::arch::asm;

/// The GHCB MSR, and its termination request (GHCB specification, 2.3.1): code set in bits 15:12, code in bits 23:16.
const GHCB_MSR: u32 = 0xc001_0130;
const TERMINATE: u32 = 0x100;

/// For a guest that is not encrypted: the only port that stage0 writes.
#[inline(never)]
pub fn terminate_plain(refusal: Refusal) -> ! {
    // SAFETY: the VMM ends the guest; the loop is for one that does not.
    unsafe { asm!("out dx, al", "2: hlt", "jmp 2b", in("dx") REFUSAL_PORT, in("al") refusal.code(), options(noreturn)) }
}

/// For an SNP guest.
#[inline(never)]
pub fn terminate_encrypted(refusal: Refusal) -> ! {
    let request = TERMINATE | u32::from(REFUSAL_CODE_SET) << 12 | u32::from(refusal.code()) << 16;
    // SAFETY: the last bytes are VMGEXIT, which leaves the guest for good; the loop is for a VMM that enters it again.
    unsafe {
        asm!(
            "2: wrmsr",
            ".byte 0xf3, 0x0f, 0x01, 0xd9",
            "jmp 2b",
            in("ecx") GHCB_MSR,
            in("eax") request,
            in("edx") 0,
            options(noreturn),
        )
    }
}
