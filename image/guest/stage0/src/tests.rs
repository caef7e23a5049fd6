//! stage0 against a model of RMP and memory, with hosts that keep to no rule. What must hold, whatever the host does: if the kernel
//! starts, it is the measured one; every page of RAM was validated once; staging was read once.

mod model;

use super::*;
use boot_manifest::{
    HostPage, LoadMap, Manifest, Segment,
    boot_page::BOOT_PAGE_CMDLINE,
    launch_area::{LAUNCH_AREA_END, STAGE0},
    ram::RAM_UNIT,
};
use model::{Attack, Files, KERNEL_AT, Model, RAM_BYTES};
use proptest::prelude::*;

const MODES: [Mode; 3] = [Mode::Plain, Mode::Simulated, Mode::Snp];

fn boot_page(files: &Files, mode: Mode) -> [u8; PAGE_BYTES] {
    let (manifest, load) = (files.manifest(mode), files.load_map());
    BootPage {
        manifest,
        load,
        cmdline: "console=ttyS0",
    }
    .to_bytes()
    .unwrap()
}

fn run(model: &mut Model, files: &Files, mode: Mode) -> Result<Start, Refusal> {
    prepare(model, &boot_page(files, mode), mode == Mode::Snp)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u64 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()).into()
}

#[test]
fn an_honest_host_starts_the_kernel_in_every_mode() {
    let files = Files::default();
    for mode in MODES {
        let mut model = Model::honest(&files);
        let start = run(&mut model, &files, mode).unwrap();
        assert_eq!(start.entry, KERNEL_AT);
        model.check(&files, mode == Mode::Snp);
        let zero = model.ram(start.boot_params..start.boot_params + 4096).to_vec();
        assert_eq!((&zero[0x202..0x206], zero[0x210]), (&b"HdrS"[..], 0xff));
        let cmdline = u32_at(&zero, 0x228);
        assert_eq!((cmdline, u32_at(&zero, 0x238)), (0x21_0000 + BOOT_PAGE_CMDLINE as u64, 14));
        let initrd = u32_at(&zero, 0x218);
        assert_eq!(model.ram(initrd..initrd + u32_at(&zero, 0x21c)), files.initrd);
        assert_eq!(u64_at(&zero, 0x70), 0x21_1000);
        let (node, blob) = (u64_at(&zero, 0x250), u32_at(&zero, 0x13c));
        match mode {
            Mode::Plain => {
                let node = model.ram(node..node + 80).to_vec();
                assert_eq!((u64_at(&node, 0), u32_at(&node, 8)), (0x21_0000, 0x43_4d02));
                assert_eq!(HostPage::from_bytes(&node[16..]).unwrap().host_data, [9; 32]);
            }
            _ => assert_eq!(node, 0x21_0000, "the chain begins with the measured node, which is its end"),
        }
        if mode == Mode::Snp {
            let blob = model.ram(blob..blob + 40);
            assert_eq!(
                (u32_at(blob, 0), u64_at(blob, 8), u64_at(blob, 24)),
                (0x4544_4d41, 0x21_3000, 0x21_4000)
            );
            assert_eq!((u32_at(blob, 16), u32_at(blob, 32)), (4096, 4096));
            assert!(model.ram(0..0x7000).iter().all(|byte| *byte == 0), "low memory is cleared");
        } else {
            assert_eq!(blob, 0);
        }
    }
}

#[test]
fn each_damage_has_its_refusal() {
    let files = Files::default();
    let refused = |attack: Attack| run(&mut Model::new(&files, attack), &files, Mode::Snp).unwrap_err();
    for (bytes, expected) in [
        (0, Refusal::Ram),
        (62 << 20, Refusal::Ram),
        (65 << 20, Refusal::Ram),
        (RAM_BYTES + 4096, Refusal::Ram),
        (u64::MAX, Refusal::Ram),
        (510 << 30 | 2 << 20, Refusal::Ram),
    ] {
        assert_eq!(refused(Attack::ClaimedRam(bytes)), expected, "{bytes:#x}");
    }
    assert_eq!(refused(Attack::StagingPage(3)), Refusal::StagingPage);
    assert_eq!(refused(Attack::Kernel(0)), Refusal::Kernel, "the headers");
    assert_eq!(refused(Attack::Kernel(4096)), Refusal::Kernel);
    assert_eq!(refused(Attack::Kernel(files.kernel.len() - 1)), Refusal::Kernel);
    assert_eq!(refused(Attack::Initrd(0)), Refusal::Initrd);
    assert_eq!(refused(Attack::Initrd(files.initrd.len() - 1)), Refusal::Initrd);
    assert_eq!(refused(Attack::AlreadyValid(0)), Refusal::ValidatedTwice);
    assert_eq!(refused(Attack::AlreadyValid(RAM_BYTES - 4096)), Refusal::ValidatedTwice);
    assert_eq!(refused(Attack::Missing(LAUNCH_AREA_END)), Refusal::Validation);
    let mut page = boot_page(&files, Mode::Snp);
    let encrypted = prepare(&mut Model::honest(&files), &page, false);
    assert_eq!(encrypted, Err(Refusal::Mode));
    assert_eq!(
        prepare(&mut Model::honest(&files), &boot_page(&files, Mode::Plain), true),
        Err(Refusal::Mode)
    );
    page[0] = 1;
    assert_eq!(prepare(&mut Model::honest(&files), &page, true), Err(Refusal::BootPage));
}

#[test]
fn a_guest_without_initramfs_has_none() {
    let files = Files {
        initrd: Vec::new(),
        ..Files::default()
    };
    let mut model = Model::honest(&files);
    let start = run(&mut model, &files, Mode::Snp).unwrap();
    assert_eq!(model.ram(start.boot_params + 0x218..start.boot_params + 0x220), [0; 8]);
    let mut page = BootPage {
        manifest: files.manifest(Mode::Snp),
        load: files.load_map(),
        cmdline: "",
    };
    page.manifest.initrd_sha256[31] = 1;
    let unexpected = prepare(&mut Model::honest(&files), &page.to_bytes().unwrap(), true);
    assert_eq!(unexpected, Err(Refusal::Initrd));
}

#[test]
fn files_that_do_not_fit_are_refused_before_anything_is_loaded() {
    let segment = |memory| Segment {
        address: KERNEL_AT,
        bytes: 1,
        memory,
    };
    for (memory, initrd, fits) in [
        (RAM_BYTES - KERNEL_AT, 0, true),
        (RAM_BYTES - KERNEL_AT, 1, false),
        (RAM_BYTES - KERNEL_AT - 4096, 4096, true),
        (RAM_BYTES - KERNEL_AT - 4095, 4096, false),
        (1, RAM_BYTES + 1, false),
    ] {
        let map = LoadMap::new(&[segment(memory)], KERNEL_AT, initrd).unwrap();
        let placed = load::place_initrd(&map, Ram::new(RAM_BYTES).unwrap());
        assert_eq!(placed.is_ok(), fits, "{memory:#x} {initrd:#x}");
        let page = BootPage {
            manifest: Files::default().manifest(Mode::Plain),
            load: map,
            cmdline: "",
        };
        if !fits {
            let mut model = Model::honest(&Files::default());
            assert_eq!(prepare(&mut model, &page.to_bytes().unwrap(), false), Err(Refusal::Room));
            assert_eq!(model.loaded, 0);
        }
    }
}

#[test]
fn digests_are_those_of_another_implementation() {
    use sha2::Digest;
    let files = Files::default();
    let model = Model::honest(&files);
    let bytes: Vec<u8> = (0..1000u32).map(|n| (n * 7) as u8).collect();
    for length in 0..300 {
        for whole in [0, 64, 128] {
            let mut hash = sha256::Sha256::new();
            hash.blocks(&model, &bytes[..whole]);
            let digest = hash.last(&model, &bytes[whole..whole + length]);
            assert_eq!(
                digest,
                <[u8; 32]>::from(sha2::Sha256::digest(&bytes[..whole + length])),
                "{whole} {length}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any number of attacks at once: the guest is refused, or runs as if there were none.
    #[test]
    fn no_host_starts_another_kernel(attacks in prop::collection::vec(attack(), 0..4), snp: bool, pieces: u8) {
        let (files, mode) = (Files::default(), if snp { Mode::Snp } else { Mode::Plain });
        let mut model = Model::honest(&files);
        model.pieces = pieces;
        // A host that lies about RAM to a guest without SNP harms a guest that trusts it.
        let attacks: Vec<_> = attacks.into_iter().filter(|attack| snp || !matches!(attack, Attack::ClaimedRam(_))).collect();
        attacks.iter().for_each(|attack| model.attack(attack.clone()));
        let result = run(&mut model, &files, mode);
        if let Ok(start) = result {
            prop_assert_eq!(start.entry, KERNEL_AT);
            model.check(&files, snp);
        }
        if attacks.is_empty() {
            prop_assert!(result.is_ok());
        }
        prop_assert!(model.double_reads == 0, "staging was read twice");
    }

    /// Any staging page and any boot page: no panic, nothing outside of RAM is touched (the model panics).
    #[test]
    fn no_page_panics(at in 0..PAGE_BYTES, value: u8, in_staging: bool, snp: bool) {
        let files = Files::default();
        let snp = snp || (in_staging && (16..24).contains(&at));
        let mode = if snp { Mode::Snp } else { Mode::Plain };
        let (mut model, mut page) = (Model::honest(&files), boot_page(&files, mode));
        if in_staging {
            model.attack(Attack::StagingByte(at, value));
        } else {
            page[at] = value;
        }
        let _ = prepare(&mut model, &page, snp);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn every_amount_of_ram_is_accepted_once(units in prop_oneof![32u64..64, 1530u64..1545], pieces: u8) {
        let ram = Ram::new(units * RAM_UNIT).unwrap();
        let mut model = Model::of_ram(units * RAM_UNIT);
        model.pieces = pieces;
        accept::accept(&mut model, ram).unwrap();
        model.all_is_valid();
    }
}

fn attack() -> impl Strategy<Value = Attack> {
    let page = (0..RAM_BYTES / 4096).prop_map(|page| page * 4096);
    let unlaunched = page.prop_filter("launched", |page| !(STAGE0..LAUNCH_AREA_END).contains(page));
    prop_oneof![
        any::<u64>().prop_map(Attack::ClaimedRam),
        (0u64..64).prop_map(|units| Attack::ClaimedRam(units * RAM_UNIT)),
        (0..PAGE_BYTES).prop_map(Attack::StagingPage),
        (0usize..12_000).prop_map(Attack::Kernel),
        (0usize..9_000).prop_map(Attack::Initrd),
        (0usize..30_000).prop_map(Attack::ChangeAfterRead),
        unlaunched.clone().prop_map(Attack::AlreadyValid),
        unlaunched.prop_map(Attack::Missing),
    ]
}

impl Files {
    /// The manifest that names them.
    fn manifest(&self, mode: Mode) -> Manifest {
        use sha2::Digest;
        let initrd = sha2::Sha256::digest(&self.initrd).into();
        Manifest {
            mode,
            kernel_sha256: sha2::Sha256::digest(&self.kernel).into(),
            initrd_sha256: if self.initrd.is_empty() { [0; 32] } else { initrd },
        }
    }
}
