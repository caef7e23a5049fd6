//! Registers at entry into the guest, from the launch plan's form to KVM's.
//!
//! KVM's reset state is right for everything else: FPU and SSE control words, XCR0 = 1, PAT, the local APIC with every LVT
//! masked (Linux programs LINT0 and LINT1 itself, and no interrupt line of this VM reaches LINT0). Other vCPUs wait for INIT
//! and SIPI in the in-kernel local APIC.

use kvm_bindings::{Msrs, kvm_dtable, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};
use vm_spec::{Registers, Segment, Table};

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

/// General registers.
pub fn general(registers: &Registers) -> kvm_regs {
    kvm_regs {
        rip: registers.rip,
        rsi: registers.rsi,
        rdx: registers.rdx,
        rflags: registers.rflags,
        ..Default::default()
    }
}

/// Segments and control registers, on top of KVM's reset state of what a plan has no word for (CR2, CR8, the APIC's base).
pub fn special(mut sregs: kvm_sregs, registers: &Registers) -> kvm_sregs {
    sregs.cs = segment(registers.cs);
    sregs.ds = segment(registers.ds);
    sregs.es = segment(registers.es);
    sregs.fs = segment(registers.fs);
    sregs.gs = segment(registers.gs);
    sregs.ss = segment(registers.ss);
    sregs.ldt = segment(registers.ldtr);
    sregs.tr = segment(registers.tr);
    sregs.gdt = table(registers.gdtr);
    sregs.idt = table(registers.idtr);
    sregs.cr0 = registers.cr0;
    sregs.cr3 = registers.cr3;
    sregs.cr4 = registers.cr4;
    sregs.efer = registers.efer;
    sregs
}

fn table(table: Table) -> kvm_dtable {
    kvm_dtable {
        base: table.base,
        limit: table.limit,
        padding: [0; 3],
    }
}

fn segment(segment: Segment) -> kvm_segment {
    let bit = |n: u32| (segment.attributes >> n & 1) as u8;
    kvm_segment {
        base: segment.base,
        limit: segment.limit,
        selector: segment.selector,
        type_: (segment.attributes & 0xf) as u8,
        s: bit(4),
        dpl: (segment.attributes >> 5 & 3) as u8,
        present: bit(7),
        avl: bit(8),
        l: bit(9),
        db: bit(10),
        g: bit(11),
        unusable: 0,
        padding: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_spec::Entry;

    const ENTRY: Entry = Entry {
        rip: 0x100_0000,
        rsi: 0x7000,
        cr3: 0x9000,
    };

    #[test]
    fn segments_are_flat_64_bit_code_and_writable_data() {
        let sregs = special(kvm_sregs::default(), &Registers::linux(ENTRY));
        let (cs, ds) = (sregs.cs, sregs.ds);
        assert_eq!(
            (cs.base, cs.limit, cs.type_, cs.l, cs.db, cs.s, cs.present, cs.g),
            (0, u32::MAX, 0xb, 1, 0, 1, 1, 1)
        );
        assert_eq!(
            (ds.base, ds.limit, ds.type_, ds.l, ds.db, ds.s, ds.present, ds.g),
            (0, u32::MAX, 0x3, 0, 1, 1, 1, 1)
        );
        assert_eq!((cs.dpl, ds.dpl, cs.selector, ds.selector), (0, 0, 0x10, 0x18));
        assert_eq!((sregs.gdt.base, sregs.gdt.limit), (0x8000, 31));
        assert_eq!((sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer), (0x8001_0031, 0x9000, 0x20, 0x500));
    }

    /// The inverse of [`segment`], as KVM fills a save area (`svm_set_segment`): what is set is what is measured.
    #[test]
    fn no_attribute_is_lost_on_the_way_to_kvm() {
        let registers = Registers::stage0(ENTRY);
        let reset = Registers::reset();
        for expected in [registers.cs, registers.ds, registers.tr, registers.ldtr, reset.cs, reset.ss] {
            let set = segment(expected);
            let attributes = [
                (set.type_, 0),
                (set.s, 4),
                (set.dpl, 5),
                (set.present, 7),
                (set.avl, 8),
                (set.l, 9),
                (set.db, 10),
                (set.g, 11),
            ];
            let attributes = attributes.iter().map(|(value, shift)| u16::from(*value) << shift).sum::<u16>();
            let (selector, limit, base) = (set.selector, set.limit, set.base);
            assert_eq!(
                Segment {
                    selector,
                    attributes,
                    limit,
                    base
                },
                expected
            );
        }
        let set = general(&registers);
        assert_eq!((set.rip, set.rsi, set.rdx, set.rflags), (0x100_0000, 0x7000, 0, 2));
    }
}
