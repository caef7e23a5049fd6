//! A launch against a model of the secure processor: the digest, each structure's bytes, and hosts that do not do their duty.

mod model;

use boot_manifest::{BootPage, LoadMap, Manifest, Mode, cpuid_page::Leaf};
use launch_measure::measure;
use model::{Guest, Host, Psp};
use proptest::prelude::*;
use snp_launch::{Failure, Finish, Finished, GuestPolicy, IdFiles, Launch, LaunchError, Source, Status, cpuid_page};
use std::error::Error;
use vm_spec::{HostData, LaunchPlan, Page, PageKind, Stage0, Vcpus};

const HOST_DATA: HostData = HostData([0xab; 32]);

fn plan(vcpus: u8) -> LaunchPlan {
    let boot_page = BootPage {
        manifest: Manifest {
            mode: Mode::Snp,
            kernel_sha256: [1; 32],
            initrd_sha256: [2; 32],
        },
        load: LoadMap::SMALLEST,
        cmdline: "console=ttyS0",
    };
    let stage0 = Stage0::try_from(&[0x90; 9000][..]).unwrap();
    LaunchPlan::verified(Vcpus::try_from(vcpus).unwrap(), &boot_page, stage0).unwrap()
}

/// What KVM makes of vCPUs whose registers are those of the plan.
fn save_areas(pages: &[Page]) -> Vec<[u8; 4096]> {
    let areas = pages.iter().filter(|page| page.kind == PageKind::Vmsa);
    areas.map(|page| *page.bytes).collect()
}

fn cpuid() -> Source {
    let leaf = Leaf {
        function: 0,
        index: 0,
        xcr0: 0,
        registers: [0x1f, 1, 2, 3],
    };
    cpuid_page(&[leaf]).unwrap()
}

fn finish(id: Option<IdFiles<'_>>) -> Finish<'_> {
    Finish {
        host_data: HOST_DATA,
        id,
        without_vcek: id.is_some(),
    }
}

fn launch(pages: &[Page], vcpus: usize, host: Host, id: Option<IdFiles<'_>>) -> Result<Launch<Psp, Finished>, LaunchError> {
    Launch::new(Psp::new(save_areas(pages), host))?
        .start(GuestPolicy::default())?
        .load(pages, &cpuid())?
        .finish(vcpus, finish(id))
}

/// The error's own words and its causes'.
fn words(error: &LaunchError) -> String {
    let causes = std::iter::successors(Some(error as &dyn Error), |e: &&dyn Error| (*e).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[test]
fn the_firmware_measures_what_the_plan_says() {
    for vcpus in [1, 4, 16] {
        let pages = plan(vcpus).pages;
        let psp = launch(&pages, vcpus.into(), Host::default(), None).unwrap().into_platform();
        assert_eq!(psp.guest, Guest::Running);
        assert_eq!(psp.digest, measure(&pages).unwrap().0);
        assert_eq!(psp.host_data, Some(HOST_DATA.0));
    }
}

#[test]
fn each_structure_has_the_bytes_of_the_kernel_abi() {
    let pages = plan(1).pages;
    let block = [0; 96];
    let id = IdFiles {
        block: &block,
        authentication: &[0; 4096],
        has_author_key: true,
    };
    let commands = launch(&pages, 1, Host::default(), None).unwrap().into_platform().commands;
    let zeros = |n: usize| "00".repeat(n);
    let structure = |name: &str| {
        let (_, bytes) = commands.iter().find(|(n, _)| *n == name).unwrap();
        hex::encode(bytes)
    };
    assert_eq!(structure("init"), zeros(48));
    assert_eq!(structure("start"), format!("0000030000000000{}", zeros(56)));
    // gfn_start 0x200, uaddr (the platform's), len 4096, type NORMAL
    assert_eq!(
        structure("update"),
        format!("0002000000000000{}001000000000000001{}", zeros(8), zeros(39))
    );
    // two addresses; id_block_en, auth_key_en, vcek_disabled; host data at 19
    assert_eq!(
        structure("finish"),
        format!("{}{}{}{}", zeros(16), zeros(3), "ab".repeat(32), zeros(37))
    );

    let mut psp = Psp::new(save_areas(&pages), Host::default());
    // The model answers with BAD_MEASUREMENT: only the bytes count here.
    let started = Launch::new(&mut psp).unwrap().start(GuestPolicy::default()).unwrap();
    let _ = started.load(&pages, &cpuid()).unwrap().finish(1, finish(Some(id)));
    let (_, bytes) = psp.commands.last().unwrap();
    assert_eq!(hex::encode(&bytes[16..20]), "010101ab");
}

fn without_author(block: &[u8; 96]) -> IdFiles<'_> {
    IdFiles {
        block,
        authentication: &[0; 4096],
        has_author_key: false,
    }
}

#[test]
fn an_id_block_admits_its_own_guest_only() {
    let pages = plan(2).pages;
    let mut block = [0; 96];
    block[..48].copy_from_slice(&measure(&pages).unwrap().0);
    assert!(launch(&pages, 2, Host::default(), Some(without_author(&block))).is_ok());
    block[7] ^= 1;
    let error = launch(&pages, 2, Host::default(), Some(without_author(&block))).unwrap_err();
    assert!(
        words(&error).contains("BAD_MEASUREMENT (0xb): the guest is not the one that the ID block names"),
        "{}",
        words(&error)
    );
}

#[test]
fn a_page_is_launched_once_and_before_the_save_areas() {
    let mut pages = plan(1).pages;
    pages.insert(1, pages[0].clone());
    let error = launch(&pages, 1, Host::default(), None).unwrap_err();
    assert_eq!(
        words(&error),
        "cannot launch the Normal page at 0x200000 (SNP_LAUNCH_UPDATE): the secure processor says INVALID_PAGE_STATE (0x1a): \
         a page was launched twice, or not given to the guest before"
    );

    let mut pages = plan(1).pages;
    pages.rotate_right(1);
    assert!(matches!(
        launch(&pages, 1, Host::default(), None),
        Err(LaunchError::Order(0x20_0000))
    ));
    let pages = plan(2).pages;
    assert!(matches!(
        launch(&pages, 3, Host::default(), None),
        Err(LaunchError::SaveAreas { planned: 2, vcpus: 3 })
    ));
}

#[test]
fn corrected_leaves_are_offered_once_and_reported() {
    let pages = plan(1).pages;
    let corrects = Host {
        corrects: Some(1),
        ..Host::default()
    };
    let done = launch(&pages, 1, corrects, None).unwrap();
    assert_eq!(done.corrections().len(), 1);
    assert_eq!(done.corrections()[0].offered.registers, [0x1f, 1, 2, 3]);
    assert_eq!(done.corrections()[0].corrected, [0x20, 1, 2, 3]);
    // The leaves are not measured.
    assert_eq!(done.into_platform().digest, measure(&pages).unwrap().0);

    let never = Host {
        never_content: true,
        ..corrects
    };
    let error = launch(&pages, 1, never, None).unwrap_err();
    assert!(
        matches!(error, LaunchError::Update { kind: PageKind::Cpuid, source, .. } if source.firmware == Some(Status::INVALID_PARAM)),
        "{error}"
    );
}

#[test]
fn a_busy_kernel_is_asked_again_and_not_for_ever() {
    let pages = plan(1).pages;
    let busy = |busy| Host { busy, ..Host::default() };
    assert_eq!(
        launch(&pages, 1, busy(3), None).unwrap().into_platform().digest,
        measure(&pages).unwrap().0
    );
    assert!(matches!(launch(&pages, 1, busy(u32::MAX), None), Err(LaunchError::Busy(0x20_0000))));
    let partial = Host {
        partial: true,
        ..Host::default()
    };
    assert!(matches!(launch(&pages, 1, partial, None), Err(LaunchError::Partial(0x20_0000))));
}

proptest! {
    #[test]
    fn no_failure_is_passed_over(number in 0usize..64, errno in 1i32..133, status in proptest::option::of(1u32..0x40)) {
        let pages = plan(2).pages;
        let commands = pages.len() - 2 + 3;
        let failure = Failure { errno, firmware: status.map(Status) };
        let host = Host { fails: Some((number, failure)), ..Host::default() };
        match launch(&pages, 2, host, None) {
            // EAGAIN of an update is no failure: the page is launched at the next try.
            Ok(done) => {
                let retried = errno == libc::EAGAIN && (2..commands - 1).contains(&number);
                prop_assert!(number >= commands || retried);
                prop_assert_eq!(done.into_platform().digest, measure(&pages).unwrap().0);
            }
            Err(error) => {
                prop_assert!(number < commands);
                let said = words(&error);
                prop_assert_eq!(said.split_once(": ").unwrap().1, failure.to_string());
            }
        }
    }

    #[test]
    fn a_changed_page_changes_the_digest(page in 0usize..64, byte in 0usize..4096, bit in 0u8..8) {
        let pages = plan(1).pages;
        let mut changed = pages.clone();
        let page = page % (pages.len() - 1);
        changed[page].bytes[byte] ^= 1 << bit;
        let [before, after] = [&pages, &changed].map(|pages| launch(pages, 1, Host::default(), None).unwrap().into_platform().digest);
        prop_assert_eq!(before != after, pages[page].kind == PageKind::Normal);
    }
}
