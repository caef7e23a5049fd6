//! Register states behind the save areas of the vectors: ours from the launch plan, those of other VMMs from what they set.

use boot_manifest::{BootPage, LoadMap, Manifest, Mode, launch_area::STAGE0_MAX_BYTES};
use vm_spec::{DEBUG_SWAP, LaunchPlan, PlanError, Registers, SNP_ACTIVE, SaveArea, Segment, SpecError, Stage0, Vcpus};

/// A save area's page.
pub type AreaPage = Box<[u8; 4096]>;

/// CR4.OSFXSR and CR4.OSXMMEXCPT: SSE instructions run.
const CR4_SSE: u64 = 3 << 9;
/// RDX after reset is CPUID leaf 1's EAX.
const MILAN: u64 = 0xa0_0f11;
const GENOA: u64 = 0xa1_0f10;
/// Reset vector of the first vCPU.
const RESET_EIP: u32 = 0xffff_fff0;
/// AP entry of Debian's OVMF.
const OVMF_AP_EIP: u32 = 0x80_b004;
const SVSM_RIP: u64 = 0xc000;

/// Why there is no plan of ours.
#[derive(Debug, thiserror::Error)]
pub enum OwnPlanError {
    /// Too many vCPUs, or none.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The plan's own limits.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

/// Plan of a guest whose stage0 fills its pages.
pub fn own_plan(vcpus: u8) -> Result<LaunchPlan, OwnPlanError> {
    let program = [0xcc; STAGE0_MAX_BYTES];
    let boot_page = BootPage {
        manifest: Manifest {
            mode: Mode::Snp,
            kernel_sha256: [0; 32],
            initrd_sha256: [0; 32],
        },
        load: LoadMap::SMALLEST,
        cmdline: "",
    };
    let stage0 = Stage0::try_from(&program[..])?;
    Ok(LaunchPlan::verified(Vcpus::try_from(vcpus)?, &boot_page, stage0)?)
}

/// The save area of that name, if the name is known.
pub fn by_name(name: &str, own: &LaunchPlan) -> Option<AreaPage> {
    let of_peer = |vmm, eip, rdx| Some(peer(vmm, eip, rdx, SNP_ACTIVE).to_page());
    match name {
        "own_bsp_dboot64" => Some(SaveArea::by_kvm(&own.first, 0).to_page()),
        "own_bsp_dboot64_debugswap" => Some(SaveArea::by_kvm(&own.first, DEBUG_SWAP).to_page()),
        "own_bsp_dboot64_sse" => {
            let registers = Registers {
                cr4: own.first.cr4 | CR4_SSE,
                ..own.first
            };
            Some(SaveArea::by_kvm(&registers, 0).to_page())
        }
        // The plan's last page is the save area of its last vCPU.
        "own_ap_reset_rdx0" => own.pages.last().map(|page| page.bytes.clone()),
        "qemu_bsp_reset_milan" => of_peer(Peer::Qemu, RESET_EIP, MILAN),
        "qemu_bsp_reset_genoa" => of_peer(Peer::Qemu, RESET_EIP, GENOA),
        "qemu_ap_ovmf_80b004_milan" => of_peer(Peer::Qemu, OVMF_AP_EIP, MILAN),
        "ec2_bsp_reset" => of_peer(Peer::Ec2, RESET_EIP, 0),
        "gce_bsp_reset" => of_peer(Peer::Gce, RESET_EIP, 0),
        "svsm_pm32_rip_c000" => Some(svsm().to_page()),
        _ => None,
    }
}

/// A VMM whose guests begin in real mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Qemu,
    Ec2,
    Gce,
}

impl Peer {
    /// By the name that `sev-snp-measure` gives it; QEMU if it gives none.
    pub fn by_name(name: Option<&str>) -> Option<Self> {
        match name {
            None | Some("qemu" | "QEMU") => Some(Self::Qemu),
            Some("ec2") => Some(Self::Ec2),
            Some("gce") => Some(Self::Gce),
            Some(_) => None,
        }
    }
}

/// A vCPU that begins at `eip` in real mode.
pub fn peer(peer: Peer, eip: u32, signature: u64, sev_features: u64) -> SaveArea {
    let reset = Registers::reset();
    let with = |segment: Segment, attributes| Segment { attributes, ..segment };
    let cs = Segment {
        base: u64::from(eip & 0xffff_0000),
        ..reset.cs
    };
    let registers = Registers {
        cs,
        rip: u64::from(eip & 0xffff),
        ..reset
    };
    let area = SaveArea::by_kvm(&registers, 0);
    let area = SaveArea { sev_features, ..area };
    match peer {
        Peer::Qemu => SaveArea {
            registers: Registers {
                rdx: signature,
                ..area.registers
            },
            ..area
        },
        // KVM's own reset state: descriptors that no load has marked as accessed, and a TSS of 16 bits.
        Peer::Ec2 => SaveArea {
            registers: Registers {
                cs: with(cs, if eip == RESET_EIP { 0x9a } else { 0x9b }),
                ss: with(reset.ss, 0x92),
                tr: with(reset.tr, 0x83),
                rdx: 0x600,
                ..area.registers
            },
            mxcsr: 0,
            fcw: 0,
            ..area
        },
        Peer::Gce => SaveArea {
            registers: Registers {
                rdx: 0x600,
                ..area.registers
            },
            pat: 0x0007_0106,
            mxcsr: 0,
            fcw: 0,
            ..area
        },
    }
}

/// COCONUT-SVSM under QEMU: 32-bit protected mode.
fn svsm() -> SaveArea {
    let reset = Registers::reset();
    let flat = |selector, attributes| Segment {
        selector,
        attributes,
        limit: u32::MAX,
        base: 0,
    };
    let data = flat(0x10, 0xc93);
    let registers = Registers {
        es: data,
        cs: flat(0x08, 0xc9b),
        ss: data,
        ds: data,
        fs: data,
        cr0: reset.cr0 | 1,
        rip: SVSM_RIP,
        rdx: MILAN,
        ..reset
    };
    SaveArea {
        // sev-snp-measure leaves it out.
        fcw: 0,
        ..SaveArea::by_kvm(&registers, 0)
    }
}
