//! Registers at entry into the guest (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol").
//!
//! KVM's reset state is right for everything else: FPU and SSE control words, XCR0 = 1, PAT, the local APIC with every LVT
//! masked (Linux programs LINT0 and LINT1 itself, and no interrupt line of this VM reaches LINT0). Other vCPUs wait for INIT
//! and SIPI in the in-kernel local APIC.

use kvm_bindings::{Msrs, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};
use vm_spec::{Entry, GDT_ENTRIES, layout::GDT};

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_NE: u64 = 1 << 5;
const CR0_WP: u64 = 1 << 16;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Bit 1 of RFLAGS is always set; interrupts are off.
const RFLAGS_RESERVED: u64 = 1 << 1;

/// `__BOOT_CS` and `__BOOT_DS` select these entries of the GDT.
const BOOT_CS: u16 = 0x10;
const BOOT_DS: u16 = 0x18;

/// `IA32_MISC_ENABLE` with fast string operations, as firmware leaves it.
const MISC_ENABLE: kvm_msr_entry = msr(0x1a0, 1);
/// `IA32_MTRR_DEF_TYPE`: MTRRs on, write-back everywhere, as firmware leaves it; without it Linux disables PAT.
const MTRR_DEF_TYPE: kvm_msr_entry = msr(0x2ff, 1 << 11 | 6);

const fn msr(index: u32, data: u64) -> kvm_msr_entry {
    kvm_msr_entry { index, reserved: 0, data }
}

/// Model-specific registers of every vCPU.
pub fn msrs() -> Result<Msrs, vmm_sys_util::fam::Error> {
    Msrs::from_entries(&[MISC_ENABLE, MTRR_DEF_TYPE])
}

/// General registers of the first vCPU.
pub fn entry(entry: Entry) -> kvm_regs {
    kvm_regs {
        rip: entry.rip,
        rsi: entry.rsi,
        rflags: RFLAGS_RESERVED,
        ..Default::default()
    }
}

/// Segments and control registers of the first vCPU, on top of KVM's reset state.
pub fn long_mode(mut sregs: kvm_sregs, entry: Entry) -> kvm_sregs {
    let data = segment(BOOT_DS);
    sregs.cs = segment(BOOT_CS);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.gdt.base = GDT;
    sregs.gdt.limit = size_of_val(&GDT_ENTRIES) as u16 - 1;
    (sregs.idt.base, sregs.idt.limit) = (0, 0);
    sregs.cr0 = CR0_PG | CR0_WP | CR0_NE | CR0_ET | CR0_PE;
    sregs.cr3 = entry.cr3;
    sregs.cr4 = CR4_PAE;
    sregs.efer = EFER_LME | EFER_LMA;
    sregs
}

/// The hidden part of a segment register, as loading `selector` from the GDT fills it (AMD64 APM 2, 4.7).
fn segment(selector: u16) -> kvm_segment {
    let descriptor = GDT_ENTRIES[usize::from(selector >> 3)];
    let bit = |n: u32| (descriptor >> n & 1) as u8;
    let limit = (descriptor & 0xffff | descriptor >> 32 & 0xf_0000) as u32;
    let granular = bit(55);
    kvm_segment {
        base: descriptor >> 16 & 0xff_ffff | descriptor >> 32 & 0xff00_0000,
        limit: if granular == 1 { limit << 12 | 0xfff } else { limit },
        selector,
        type_: (descriptor >> 40 & 0xf) as u8,
        present: bit(47),
        dpl: (descriptor >> 45 & 3) as u8,
        db: bit(54),
        s: bit(44),
        l: bit(53),
        g: granular,
        avl: bit(52),
        unusable: 0,
        padding: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_flat_64_bit_code_and_writable_data() {
        let (cs, ds) = (segment(BOOT_CS), segment(BOOT_DS));
        assert_eq!(
            (cs.base, cs.limit, cs.type_, cs.l, cs.db, cs.s, cs.present),
            (0, u32::MAX, 0xb, 1, 0, 1, 1)
        );
        assert_eq!(
            (ds.base, ds.limit, ds.type_, ds.l, ds.db, ds.s, ds.present),
            (0, u32::MAX, 0x3, 0, 1, 1, 1)
        );
        assert_eq!((cs.dpl, ds.dpl), (0, 0));
    }
}
