//! Tests of the plan with stage0: what is launched, in which order, and what stage0 and Linux can reach from it.

use super::*;
use boot_manifest::{LoadMap, Manifest, SETUP_DATA_MANIFEST, launch_area::LAUNCH_AREA_END};
use proptest::prelude::*;

const MODES: [Mode; 3] = [Mode::Plain, Mode::Simulated, Mode::Snp];

fn boot_page(mode: Mode) -> BootPage<'static> {
    BootPage {
        manifest: Manifest {
            mode,
            kernel_sha256: [1; 32],
            initrd_sha256: [2; 32],
        },
        load: LoadMap::SMALLEST,
        cmdline: "console=ttyS0",
    }
}

fn plan(vcpus: u8, mode: Mode, program: &[u8]) -> LaunchPlan {
    let stage0 = Stage0::try_from(program).unwrap();
    LaunchPlan::verified(Vcpus::try_from(vcpus).unwrap(), &boot_page(mode), stage0).unwrap()
}

fn page(plan: &LaunchPlan, gpa: u64) -> &Page {
    plan.pages.iter().find(|page| page.gpa == gpa).unwrap()
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Translates as the processor does; returns the physical address and the entry.
fn translate(plan: &LaunchPlan, address: u64, c_bit: u64) -> Option<(u64, u64)> {
    let frame = |entry: u64| entry & !c_bit & 0x000f_ffff_ffff_f000;
    let level4 = &page(plan, frame(plan.first.cr3)).bytes[..];
    let entry = u64_at(level4, (address >> 39 & 511) as usize * 8);
    let level3 = &page(plan, (entry & 1 == 1).then(|| frame(entry))?).bytes[..];
    let entry = u64_at(level3, (address >> 30 & 511) as usize * 8);
    if entry & 0x83 == 0x83 {
        return Some((frame(entry) + (address & 0x3fff_ffff), entry));
    }
    let level2 = &page(plan, (entry & 1 == 1).then(|| frame(entry))?).bytes[..];
    let entry = u64_at(level2, (address >> 21 & 511) as usize * 8);
    (entry & 0x83 == 0x83).then_some((frame(entry) + (address & 0x1f_ffff), entry))
}

#[test]
fn pages_have_the_kinds_and_addresses_of_the_layout() {
    let plan = plan(3, Mode::Snp, &[0x90; 3 * 4096 + 1]);
    let mut runs: Vec<(PageKind, u64, usize)> = Vec::new();
    for page in &plan.pages {
        match runs.last_mut() {
            Some((kind, start, count)) if *kind == page.kind && page.gpa == *start + *count as u64 * PAGE_BYTES => *count += 1,
            _ => runs.push((page.kind, page.gpa, 1)),
        }
    }
    let expected = [
        (PageKind::Normal, 0x20_0000, 4),
        (PageKind::Zero, 0x20_4000, 10),
        (PageKind::Normal, 0x20_e000, 5),
        (PageKind::Secrets, 0x21_3000, 1),
        (PageKind::Cpuid, 0x21_4000, 1),
        (PageKind::Vmsa, VMSA_GPA, 1),
        (PageKind::Vmsa, VMSA_GPA, 1),
        (PageKind::Vmsa, VMSA_GPA, 1),
    ];
    assert_eq!(runs, expected);
}

#[test]
fn only_the_boot_page_the_page_tables_and_the_first_save_area_depend_on_the_mode() {
    let (plain, snp) = (plan(2, Mode::Plain, b"x"), plan(2, Mode::Snp, b"x"));
    let differing: Vec<u64> = plain
        .pages
        .iter()
        .zip(&snp.pages)
        .filter(|(a, b)| a != b)
        .map(|(a, _)| a.gpa)
        .collect();
    assert_eq!(
        differing,
        [
            0x20_a000, 0x20_b000, 0x20_c000, 0x20_d000, 0x20_e000, 0x20_f000, BOOT_PAGE, VMSA_GPA
        ]
    );
}

#[test]
fn only_acpi_and_save_areas_depend_on_the_number_of_vcpus() {
    let (one, two) = (plan(1, Mode::Snp, b"x"), plan(2, Mode::Snp, b"x"));
    let differing: Vec<u64> = one
        .pages
        .iter()
        .zip(&two.pages)
        .filter(|(a, b)| a != b)
        .map(|(a, _)| a.gpa)
        .collect();
    assert_eq!((differing, two.pages.len() - one.pages.len()), (vec![STAGE0_ACPI], 1));
}

/// As Linux and stage0 do: the boot page's node is the end of the list, and everything that is pointed to is a measured page.
#[test]
fn everything_that_the_guest_is_pointed_to_is_measured() {
    for mode in MODES {
        let plan = plan(64, mode, b"x");
        assert!(plan.pages.iter().all(|page| page.kind != PageKind::Unmeasured), "{mode:?}");
        let measured = |gpa: u64| {
            let page = page(&plan, gpa - gpa % PAGE_BYTES);
            assert_eq!(page.kind, PageKind::Normal, "{gpa:#x}");
            &page.bytes[(gpa % PAGE_BYTES) as usize..]
        };
        let node = measured(plan.first.rsi);
        assert_eq!((u64_at(node, 0), u64_at(node, 8) as u32), (0, SETUP_DATA_MANIFEST));
        let (read, expected) = (BootPage::from_bytes(&page(&plan, plan.first.rsi).bytes), boot_page(mode));
        assert_eq!(read, Ok(expected));
        let rsdp = measured(STAGE0_ACPI);
        assert_eq!(&rsdp[..8], b"RSD PTR ");
        let xsdt = measured(u64_at(rsdp, 24));
        let (fadt, madt) = (measured(u64_at(xsdt, 36)), measured(u64_at(xsdt, 44)));
        assert_eq!((&fadt[..4], &madt[..4]), (&b"FACP"[..], &b"APIC"[..]));
        let dsdt = measured(u64_at(fadt, 140));
        assert_eq!(&dsdt[..4], b"DSDT");
        measured(plan.first.rip);
    }
}

#[test]
fn ram_is_mapped_encrypted_and_staging_shared_and_not_executable() {
    let c_bit = 1 << ENCRYPTION_BIT;
    let snp = plan(1, Mode::Snp, b"x");
    for address in [0, STAGE0, BOOT_PAGE + 8, 0xbfff_ffff, 4 << 30, STAGING - 1] {
        let (at, entry) = translate(&snp, address, c_bit).unwrap();
        assert_eq!((at, entry & (c_bit | NO_EXECUTE)), (address, c_bit), "{address:#x}");
    }
    let (at, entry) = translate(&snp, STAGING + 5, c_bit).unwrap();
    assert_eq!((at, entry & (c_bit | NO_EXECUTE)), (STAGING + 5, NO_EXECUTE));
    assert_eq!((translate(&snp, 0xc000_0000, c_bit), translate(&snp, 1 << 39, c_bit)), (None, None));
    let plain = plan(1, Mode::Plain, b"x");
    for address in [0, STAGE0, BOOT_PAGE + 8, 0x4000_0000, 0xbfff_ffff, STAGING + 5] {
        let (at, entry) = translate(&plain, address, 0).unwrap();
        assert_eq!((at, entry & NO_EXECUTE != 0), (address, address >= STAGING), "{address:#x}");
    }
    assert_eq!((translate(&plain, 0xc000_0000, 0), translate(&plain, 4 << 30, 0)), (None, None));
    assert_eq!(plain.first.cr3, STAGE0_PAGE_TABLES);
}

#[test]
fn the_smallest_guest_has_the_launch_area_in_its_ram() {
    let ram = ram_ranges(MemoryMib::try_from(64).unwrap())[0];
    let area = GpaRange {
        start: STAGE0,
        length: LAUNCH_AREA_END - STAGE0,
    };
    assert!(ram.contains(area));
}

#[test]
fn ram_ends_where_staging_begins() {
    let range = |mib: u32| staging(MemoryMib::try_from(mib).unwrap());
    let expected = GpaRange {
        start: 511 << 30,
        length: 1 << 30,
    };
    assert_eq!((range(64), range(510 << 10)), (Ok(expected), Ok(expected)));
    assert_eq!(range((510 << 10) + 1), Err(PlanError::RamInStaging((510 << 10) + 1)));
    assert_eq!(range(1 << 20), Err(PlanError::RamInStaging(1 << 20)));
}

#[test]
fn each_invalid_input_has_its_error() {
    let error = |program: &[u8]| Stage0::try_from(program).unwrap_err();
    assert_eq!(error(&[]), PlanError::Stage0(0));
    assert_eq!(error(&[0; STAGE0_MAX_BYTES + 1]), PlanError::Stage0(STAGE0_MAX_BYTES + 1));
    let over_tables = LaunchPlan::verified(
        Vcpus::try_from(1).unwrap(),
        &boot_page(Mode::Plain),
        Stage0::try_from(&[0; 0xa001][..]).unwrap(),
    );
    assert_eq!(over_tables, Err(PlanError::Stage0(0xa001)));
    let long = "x".repeat(2048);
    let boot_page = BootPage {
        cmdline: &long,
        ..boot_page(Mode::Snp)
    };
    let stage0 = Stage0::try_from(&b"x"[..]).unwrap();
    let vcpus = Vcpus::try_from(1).unwrap();
    assert_eq!(
        LaunchPlan::verified(vcpus, &boot_page, stage0),
        Err(PlanError::CmdlineTooLong(2048))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn at_most_24_pages_are_launched_besides_save_areas(vcpus in 1u8..=64, bytes in 1..=STAGE0_MAX_BYTES) {
        let program = vec![0xcc; bytes];
        let made = plan(vcpus, Mode::Snp, &program);
        prop_assert_eq!(&made, &plan(vcpus, Mode::Snp, &program));
        let (areas, pages): (Vec<_>, Vec<_>) = made.pages.iter().partition(|page| page.kind == PageKind::Vmsa);
        prop_assert_eq!((areas.len(), pages.len()), (vcpus.into(), 21));
        prop_assert_eq!(pages.iter().map(|page| page.gpa).collect::<Vec<_>>(), (STAGE0..LAUNCH_AREA_END).step_by(4096).collect::<Vec<_>>());
        let launched: Vec<u8> = pages.iter().flat_map(|page| page.bytes.iter().copied()).take(bytes).collect();
        prop_assert_eq!(launched, program);
    }
}
