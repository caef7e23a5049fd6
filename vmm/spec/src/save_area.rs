//! The save area of a vCPU (VMSA) as KVM hands it to SNP_LAUNCH_UPDATE: AMD64 APM 2, table B-4; Linux `struct sev_es_save_area`.

use crate::{
    layout::PAGE_BYTES,
    registers::{Registers, Segment, Table},
};

/// The address that the firmware records for every save area: the highest page of 48 bits (SNP firmware ABI, 8.17).
pub const VMSA_GPA: u64 = 0xffff_ffff_f000;
/// `SEV_FEATURES.SNPActive`, which KVM sets for every SNP guest.
pub const SNP_ACTIVE: u64 = 1;
/// `SEV_FEATURES.DebugSwap`.
pub const DEBUG_SWAP: u64 = 1 << 5;

/// SVM needs EFER.SVME in the guest's state (AMD64 APM 2, 15.5.1), which KVM sets behind the guest's back.
const EFER_SVME: u64 = 1 << 12;
/// KVM sets CR4.MCE as long as the host has it set.
const CR4_MCE: u64 = 1 << 6;
const DR6_RESET: u64 = 0xffff_0ff0;
const DR7_RESET: u64 = 0x400;
const PAT_RESET: u64 = 0x0007_0406_0007_0406;
const XCR0_X87: u64 = 1;
const MXCSR_RESET: u32 = 0x1f80;
/// FCW of `fninit`, which KVM's guest FPU begins with.
const FCW_INIT: u16 = 0x37f;

/// Offsets of the segment registers, each of 16 bytes, in the order of [`SaveArea::to_page`].
const SEGMENTS: usize = 0x000;
const EFER: usize = 0x0d0;
const CR4: usize = 0x148;
const CR3: usize = 0x150;
const CR0: usize = 0x158;
const DR7: usize = 0x160;
const DR6: usize = 0x168;
const RFLAGS: usize = 0x170;
const RIP: usize = 0x178;
const G_PAT: usize = 0x268;
const RDX: usize = 0x310;
const RSI: usize = 0x330;
const SEV_FEATURES: usize = 0x3b0;
const XCR0: usize = 0x3e8;
const MXCSR: usize = 0x408;
const FCW: usize = 0x410;

/// What a save area holds; everything else in it is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaveArea {
    /// Registers as the processor will find them.
    pub registers: Registers,
    /// PAT MSR of the guest.
    pub pat: u64,
    /// SSE control and status.
    pub mxcsr: u32,
    /// x87 control word.
    pub fcw: u16,
    /// SEV_FEATURES.
    pub sev_features: u64,
}

impl SaveArea {
    /// Of a vCPU whose registers were set to `registers`: with what KVM adds. `features` are those of `KVM_SEV_INIT2`.
    pub fn by_kvm(registers: &Registers, features: u64) -> Self {
        Self {
            registers: Registers {
                efer: registers.efer | EFER_SVME,
                cr4: registers.cr4 | CR4_MCE,
                ..*registers
            },
            pat: PAT_RESET,
            mxcsr: MXCSR_RESET,
            fcw: FCW_INIT,
            sev_features: features | SNP_ACTIVE,
        }
    }

    /// The page.
    pub fn to_page(&self) -> Box<[u8; PAGE_BYTES as usize]> {
        let mut page = Box::new([0; PAGE_BYTES as usize]);
        let mut put = |at: usize, bytes: &[u8]| page[at..at + bytes.len()].copy_from_slice(bytes);
        let r = &self.registers;
        let table = |table: Table| Segment {
            limit: table.limit.into(),
            base: table.base,
            ..Segment::default()
        };
        let segments = [r.es, r.cs, r.ss, r.ds, r.fs, r.gs, table(r.gdtr), r.ldtr, table(r.idtr), r.tr];
        for (segment, at) in segments.iter().zip((SEGMENTS..).step_by(16)) {
            put(at, &segment.selector.to_le_bytes());
            put(at + 2, &segment.attributes.to_le_bytes());
            put(at + 4, &segment.limit.to_le_bytes());
            put(at + 8, &segment.base.to_le_bytes());
        }
        for (at, value) in [
            (EFER, r.efer),
            (CR4, r.cr4),
            (CR3, r.cr3),
            (CR0, r.cr0),
            (DR7, DR7_RESET),
            (DR6, DR6_RESET),
            (RFLAGS, r.rflags),
            (RIP, r.rip),
            (G_PAT, self.pat),
            (RDX, r.rdx),
            (RSI, r.rsi),
            (SEV_FEATURES, self.sev_features),
            (XCR0, XCR0_X87),
        ] {
            put(at, &value.to_le_bytes());
        }
        put(MXCSR, &self.mxcsr.to_le_bytes());
        put(FCW, &self.fcw.to_le_bytes());
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Change = fn(&mut SaveArea);

    fn reset() -> SaveArea {
        SaveArea::by_kvm(&Registers::reset(), 0)
    }

    /// Each field alone changes its own bytes: `pahole -C sev_es_save_area vmlinux` gives these offsets.
    #[test]
    fn every_field_has_its_place() {
        let fields: [(&str, usize, usize, Change); 21] = [
            ("es", 0x000, 16, |s| s.registers.es.base = u64::MAX),
            ("cs", 0x010, 16, |s| s.registers.cs.base = u64::MAX),
            ("ss", 0x020, 16, |s| s.registers.ss.limit = 1),
            ("ds", 0x030, 16, |s| s.registers.ds.selector = 1),
            ("fs", 0x040, 16, |s| s.registers.fs.attributes = 1),
            ("gs", 0x050, 16, |s| s.registers.gs.base = 1),
            ("gdtr", 0x060, 16, |s| s.registers.gdtr.base = 1),
            ("ldtr", 0x070, 16, |s| s.registers.ldtr.base = 1),
            ("idtr", 0x080, 16, |s| s.registers.idtr.limit = 1),
            ("tr", 0x090, 16, |s| s.registers.tr.base = 1),
            ("efer", 0x0d0, 8, |s| s.registers.efer = u64::MAX),
            ("cr4", 0x148, 8, |s| s.registers.cr4 = u64::MAX),
            ("cr3", 0x150, 8, |s| s.registers.cr3 = u64::MAX),
            ("cr0", 0x158, 8, |s| s.registers.cr0 = u64::MAX),
            ("rflags", 0x170, 8, |s| s.registers.rflags = u64::MAX),
            ("rip", 0x178, 8, |s| s.registers.rip = u64::MAX),
            ("g_pat", 0x268, 8, |s| s.pat = u64::MAX),
            ("rdx", 0x310, 8, |s| s.registers.rdx = u64::MAX),
            ("rsi", 0x330, 8, |s| s.registers.rsi = u64::MAX),
            ("sev_features", 0x3b0, 8, |s| s.sev_features = u64::MAX),
            ("mxcsr", 0x408, 4, |s| s.mxcsr = u32::MAX),
        ];
        let before = reset().to_page();
        for (name, at, length, change) in fields {
            let mut area = reset();
            change(&mut area);
            let after = area.to_page();
            let changed: Vec<usize> = (0..before.len()).filter(|&i| before[i] != after[i]).collect();
            assert!(
                !changed.is_empty() && changed.iter().all(|i| (at..at + length).contains(i)),
                "{name}: {changed:x?}"
            );
        }
    }

    #[test]
    fn kvm_adds_svme_machine_checks_and_snp() {
        let area = SaveArea::by_kvm(&Registers::reset(), DEBUG_SWAP);
        assert_eq!(
            (area.registers.efer, area.registers.cr4, area.sev_features),
            (1 << 12, 1 << 6, 0x21)
        );
        assert_eq!(area.registers.cs, Registers::reset().cs);
    }

    proptest! {
        #[test]
        fn different_states_have_different_pages(a: [u64; 3], b: [u64; 3]) {
            let page = |[rip, rsi, cr3]: [u64; 3]| {
                SaveArea::by_kvm(&Registers { rip, rsi, cr3, ..Registers::reset() }, 0).to_page()
            };
            prop_assert_eq!(a == b, page(a) == page(b));
        }
    }
}
