//! Tests of the plan: no overlaps of pages, kernel and initrd, and fields at the offsets that Linux reads.

use super::*;
use crate::{Boot, Fd, HostData, MemoryMib, Vcpus};
use proptest::prelude::*;

const KERNEL: Kernel = Kernel {
    occupies: GpaRange {
        start: 0x100_0000,
        length: 0x180_0000,
    },
    entry: 0x100_0ac3,
};

fn spec(memory: u32, tee: Tee) -> VmSpec {
    VmSpec {
        vcpus: Vcpus::try_from(2).unwrap(),
        memory: MemoryMib::try_from(memory).unwrap(),
        boot: Boot::Direct(Payload {
            kernel: Fd(3),
            kernel_sha256: HostData([1; 32]),
            initrd: Some(Fd(4)),
            initrd_sha256: HostData([2; 32]),
            cmdline: "console=ttyS0".into(),
        }),
        tee,
        reports: None,
        host_data: HostData([3; 32]),
        snp: None,
        console: None,
        control: Fd(5),
        vsock: None,
        layers: false,
        scratch: None,
        registries: None,
        network: None,
        volumes: crate::Volumes::default(),
        rng: false,
        identity: None,
    }
}

fn page(plan: &LaunchPlan, gpa: u64) -> &[u8] {
    &plan.pages.iter().find(|p| p.gpa == gpa).unwrap().bytes[..]
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().unwrap())
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(b[at..at + 8].try_into().unwrap())
}

#[test]
fn the_zero_page_refers_to_everything_linux_needs() {
    let plan = LaunchPlan::direct(&spec(256, Tee::Plain), KERNEL, 5_000_001).unwrap();
    let zero = page(&plan, ZERO_PAGE);
    assert_eq!((&zero[0x202..0x206], u32_at(zero, 0x228)), (&b"HdrS"[..], CMDLINE as u32));
    assert_eq!(&page(&plan, CMDLINE)[..14], b"console=ttyS0\0");
    let initrd = plan.initrd.unwrap();
    assert_eq!((u32_at(zero, 0x218) as u64, u32_at(zero, 0x21c)), (initrd.start, 5_000_001));
    assert!(initrd.end() <= 256 << 20 && initrd.start.is_multiple_of(PAGE_BYTES) && (256 << 20) - initrd.end() < PAGE_BYTES);
    assert_eq!(&page(&plan, u64_at(zero, 0x70))[..8], b"RSD PTR ");
    assert_eq!(zero[0x1e8], 3);
    assert_eq!((u64_at(zero, 0x2d0 + 40), u64_at(zero, 0x2d0 + 48)), (1 << 20, 255 << 20));
    let entry = Entry {
        rip: 0x100_0ac3,
        rsi: ZERO_PAGE,
        cr3: PML4,
    };
    assert_eq!(plan.first, Registers::linux(entry));
}

/// The nodes of the list as Linux follows it (`parse_setup_data` in arch/x86/kernel/setup.c): type, data, and whether their page is measured.
fn setup_data(plan: &LaunchPlan) -> Vec<(u32, Vec<u8>, PageKind)> {
    let mut nodes = Vec::new();
    let mut at = u64_at(page(plan, ZERO_PAGE), 0x250);
    while at != 0 {
        let kind = plan.pages.iter().find(|page| page.gpa == at).unwrap().kind;
        let node = page(plan, at);
        let length = u32_at(node, 12) as usize;
        nodes.push((u32_at(node, 8), node[16..16 + length].to_vec(), kind));
        assert!(nodes.len() < 16, "the list has no end");
        at = u64_at(node, 0);
    }
    nodes
}

#[test]
fn setup_data_carries_manifest_and_host_page_to_the_agent() {
    let manifest = |mode| Manifest {
        mode,
        kernel_sha256: [1; 32],
        initrd_sha256: [2; 32],
    };
    let plain = setup_data(&LaunchPlan::direct(&spec(256, Tee::Plain), KERNEL, 0).unwrap());
    let [
        (SETUP_DATA_MANIFEST, first, PageKind::Normal),
        (SETUP_DATA_HOST_PAGE, second, PageKind::Unmeasured),
    ] = &plain[..]
    else {
        panic!("{plain:?}")
    };
    assert_eq!(Manifest::from_bytes(first), Ok(manifest(Mode::Plain)));
    assert_eq!(HostPage::from_bytes(second), Ok(HostPage { host_data: [3; 32] }));
    let simulated = setup_data(&LaunchPlan::direct(&spec(256, Tee::Simulated), KERNEL, 0).unwrap());
    assert_eq!(Manifest::from_bytes(&simulated[0].1), Ok(manifest(Mode::Simulated)));
}

#[test]
fn only_a_plain_guest_meets_a_node_that_is_not_measured() {
    for tee in [Tee::Plain, Tee::Simulated, Tee::Snp] {
        let plan = match LaunchPlan::direct(&spec(256, tee), KERNEL, 0) {
            Ok(plan) => plan,
            Err(error) => {
                assert_eq!((tee, error), (Tee::Snp, PlanError::DirectUnderSnp));
                continue;
            }
        };
        let unmeasured = setup_data(&plan).iter().any(|(.., kind)| *kind == PageKind::Unmeasured);
        assert_eq!(unmeasured, tee == Tee::Plain, "{tee:?}");
        let pages = plan.pages.iter().any(|page| page.kind == PageKind::Unmeasured);
        assert_eq!(pages, tee == Tee::Plain, "{tee:?}");
        pointers_lead_to_measured_pages(&plan);
    }
}

/// Command line and every ACPI table, as Linux follows them from the zero page.
fn pointers_lead_to_measured_pages(plan: &LaunchPlan) {
    let measured = |gpa: u64| {
        let page = plan.pages.iter().find(|page| page.gpa == gpa - gpa % PAGE_BYTES).unwrap();
        assert_eq!(page.kind, PageKind::Normal, "{gpa:#x}");
        &page.bytes[(gpa % PAGE_BYTES) as usize..]
    };
    let zero = measured(plan.first.rsi);
    measured(u32_at(zero, 0x228).into());
    let rsdp = measured(u64_at(zero, 0x70));
    let xsdt = measured(u64_at(rsdp, 24));
    let fadt = measured(u64_at(xsdt, 36));
    assert_eq!(&measured(u64_at(xsdt, 44))[..4], b"APIC");
    assert_eq!(&measured(u64_at(fadt, 140))[..4], b"DSDT");
}

#[test]
fn host_data_changes_the_unmeasured_page_only() {
    let mut other = spec(256, Tee::Plain);
    other.host_data = HostData([9; 32]);
    let (a, b) = (
        LaunchPlan::direct(&spec(256, Tee::Plain), KERNEL, 0).unwrap(),
        LaunchPlan::direct(&other, KERNEL, 0).unwrap(),
    );
    let differing: Vec<_> = a
        .pages
        .iter()
        .zip(&b.pages)
        .filter(|(x, y)| x != y)
        .map(|(x, _)| (x.gpa, x.kind))
        .collect();
    assert_eq!(differing, [(SETUP_DATA_HOST_PAGE_NODE, PageKind::Unmeasured)]);
}

#[test]
fn the_page_tables_identity_map_the_first_gib() {
    let plan = LaunchPlan::direct(&spec(64, Tee::Plain), KERNEL, 0).unwrap();
    for address in [0u64, 0x7008, 0x100_0ac3, 0x3fff_ffff] {
        let mut entry = u64_at(page(&plan, plan.first.cr3), (address >> 39) as usize * 8);
        entry = u64_at(page(&plan, entry & !0xfff), (address >> 30 & 511) as usize * 8);
        entry = u64_at(page(&plan, entry & !0xfff), (address >> 21 & 511) as usize * 8);
        assert_eq!(entry & 0x83, 0x83);
        assert_eq!((entry & !0x1f_ffff) + (address & 0x1f_ffff), address);
    }
}

#[test]
fn a_restart_through_real_mode_writes_the_reset_register() {
    let plan = LaunchPlan::direct(&spec(64, Tee::Plain), KERNEL, 0).unwrap();
    assert_eq!(&page(&plan, 0xf_f000)[0xff0..], b"\xb0\x01\xba\x02\x06\xee\xf4\0\0\0\0\0\0\0\0\0");
}

#[test]
fn each_invalid_input_has_its_error() {
    let plan = |spec: VmSpec, start, length, entry, initrd| {
        LaunchPlan::direct(
            &spec,
            Kernel {
                occupies: GpaRange { start, length },
                entry,
            },
            initrd,
        )
        .unwrap_err()
    };
    let plain = || spec(64, Tee::Plain);
    let with_cmdline = |text: &str| {
        let mut spec = plain();
        spec.boot.payload_mut().cmdline = text.into();
        plan(spec, 1 << 20, 1 << 20, 1 << 20, 0)
    };
    assert_eq!(plan(spec(64, Tee::Snp), 1 << 20, 1 << 20, 1 << 20, 0), PlanError::DirectUnderSnp);
    assert!(matches!(plan(plain(), 0x8000, 0x1000, 0x8000, 0), PlanError::KernelOutsideRam(_)));
    assert!(matches!(
        plan(plain(), 63 << 20, 2 << 20, 63 << 20, 0),
        PlanError::KernelOutsideRam(_)
    ));
    assert!(matches!(
        plan(plain(), 1 << 20, u64::MAX, 1 << 20, 0),
        PlanError::KernelOutsideRam(_)
    ));
    assert_eq!(plan(plain(), 1 << 20, 1 << 20, 2 << 20, 0), PlanError::Entry(2 << 20));
    let too_large = PlanError::InitrdTooLarge {
        bytes: 62 << 20 | 1,
        kernel_end: 2 << 20,
    };
    assert_eq!(plan(plain(), 1 << 20, 1 << 20, 1 << 20, 62 << 20 | 1), too_large);
    assert!(matches!(
        plan(plain(), 1 << 20, 1 << 20, 1 << 20, u64::MAX),
        PlanError::InitrdTooLarge { .. }
    ));
    assert_eq!(with_cmdline(&"x".repeat(2048)), PlanError::CmdlineTooLong(2048));
    assert_eq!(with_cmdline("a\0b"), PlanError::CmdlineNul);
}

proptest! {
    #[test]
    fn nothing_overlaps(memory in 64u32..8192, initrd in 0u64..40 << 20, kernel_mib in 1u64..20) {
        let kernel = Kernel { occupies: GpaRange { start: 1 << 24, length: kernel_mib << 20 }, entry: 1 << 24 };
        let spec = spec(memory, Tee::Plain);
        let Ok(plan) = LaunchPlan::direct(&spec, kernel, initrd) else {
            prop_assert!(initrd + kernel.occupies.end() > u64::from(memory) << 20);
            return Ok(());
        };
        prop_assert_eq!(&plan, &LaunchPlan::direct(&spec, kernel, initrd).unwrap());
        let mut used: Vec<_> = plan.pages.iter().map(|p| GpaRange { start: p.gpa, length: PAGE_BYTES }).collect();
        used.push(kernel.occupies);
        used.extend(plan.initrd);
        for pair in used.windows(2) {
            prop_assert!(pair[0].end() <= pair[1].start, "{:?}", pair);
        }
        for range in used {
            prop_assert!(ram_ranges(spec.memory).iter().any(|ram| ram.contains(range)));
        }
    }
}
