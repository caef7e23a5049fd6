//! The machine that stage0 runs on: memory by its addresses, since the page tables map every address to itself.
//!
//! Copies and fills are string instructions, so that staging is read once, and address 0 can be written.

use super::sha_ni;
use boot_manifest::launch_area::PAGE_BYTES;
use core::{arch::asm, ops::Range, ptr, slice};
use stage0::{Cpu, Machine, PageSize, Validation, soft};

/// `PVALIDATE`'s return code for a page of another size.
const FAIL_SIZE_MISMATCH: u32 = 6;

/// The processor's features; the rest of the machine has no state here.
pub struct Hardware(Cpu);

impl Hardware {
    /// The machine. There must be one only, which has all memory outside of stage0's own program and stack.
    pub fn new(cpu: Cpu) -> Self {
        Self(cpu)
    }
}

/// A page of the launch area.
pub fn launched_page(address: u64) -> &'static [u8; PAGE_BYTES] {
    // SAFETY: the page is mapped, launched before the program starts, and nothing writes it.
    unsafe { &*ptr::with_exposed_provenance(address as usize) }
}

/// Copies `bytes` bytes.
///
/// # Safety
/// Both ranges must be mapped, and the destination must be nobody else's.
unsafe fn copy(from: u64, to: u64, bytes: u64) {
    // SAFETY: by the caller.
    unsafe {
        asm!(
            "rep movsq",
            "mov ecx, {rest:e}",
            "rep movsb",
            rest = in(reg) bytes % 8,
            inout("rcx") bytes / 8 => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
}

impl Machine for Hardware {
    fn validate(&mut self, address: u64, size: PageSize) -> Validation {
        let (code, unchanged): (u64, u8);
        // SAFETY: changes the validity of a page that stage0 has not used yet.
        unsafe {
            asm!(
                // pvalidate; the mnemonic is newer than some assemblers
                ".byte 0xf2, 0x0f, 0x01, 0xff",
                "setc {unchanged}",
                unchanged = lateout(reg_byte) unchanged,
                inout("rax") address => code,
                in("ecx") size as u32,
                in("edx") 1,
                options(nostack),
            );
        }
        match (code as u32, unchanged) {
            (0, 0) => Validation::Validated,
            (0, _) => Validation::Unchanged,
            (FAIL_SIZE_MISMATCH, _) => Validation::SizeMismatch,
            _ => Validation::Failed,
        }
    }

    fn evict(&mut self, address: u64) {
        if self.0.coherent {
            return;
        }
        // SAFETY: reads the first and the last byte of a mapped page.
        unsafe {
            asm!(
                "mov {byte}, byte ptr [{page}]",
                "mov {byte}, byte ptr [{page} + 4095]",
                byte = out(reg_byte) _,
                page = in(reg) address,
                options(nostack, preserves_flags),
            );
        }
    }

    fn read_staging(&mut self, from: u64, to: &mut [u8]) {
        // SAFETY: `to` is borrowed for writing; staging is mapped.
        unsafe { copy(from, to.as_mut_ptr().expose_provenance() as u64, to.len() as u64) }
    }

    fn load_staging(&mut self, from: u64, to: Range<u64>) {
        // SAFETY: the library loads to RAM outside of the launch area only, which this machine has alone.
        unsafe { copy(from, to.start, to.end - to.start) }
    }

    fn zero(&mut self, range: Range<u64>) {
        // SAFETY: as for `load_staging`.
        unsafe {
            asm!(
                "rep stosq",
                "mov ecx, {rest:e}",
                "rep stosb",
                rest = in(reg) (range.end - range.start) % 8,
                inout("rcx") (range.end - range.start) / 8 => _,
                inout("rdi") range.start => _,
                in("rax") 0,
                options(nostack, preserves_flags),
            );
        }
    }

    fn ram(&self, range: Range<u64>) -> &[u8] {
        // SAFETY: RAM is mapped, and is written through `&mut self` only while nobody has the slice.
        unsafe {
            slice::from_raw_parts(
                ptr::with_exposed_provenance(range.start as usize),
                (range.end - range.start) as usize,
            )
        }
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        // SAFETY: as for `load_staging`; `bytes` is borrowed.
        unsafe { copy(bytes.as_ptr().expose_provenance() as u64, at, bytes.len() as u64) }
    }

    fn compress(&self, state: &mut [u32; 8], blocks: &[[u8; 64]]) {
        if self.0.sha {
            sha_ni::compress(state, blocks);
        } else {
            soft(state, blocks);
        }
    }
}
