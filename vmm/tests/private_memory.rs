//! A guest converts its memory between private and shared, on a KVM that keeps the host from what is private.
//!
//! That takes VM type `KVM_X86_SW_PROTECTED_VM`, which kernels of distributions do not have: the testbed boots one that has it, with
//! this program as its only one (`testbed private-memory`). Elsewhere nothing is tested. Without libtest, because the program executes
//! itself under a filter that lacks a rule.

mod elf;
mod guests;
mod launcher;
mod protected;
mod steps;

use boot_manifest::{STAGED_KERNEL, launch_area};
use casemate_vmm::{
    descriptors::BootFiles,
    exit_reason::ExitReason,
    kvm::{self, KvmVm, VmType},
    seccomp::{Filter, Filters, Rule, VCPU, VCPU_CONVERSIONS},
};
use launcher::{Launcher, Outcome};
use protected::Setup;
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{Seek, Write},
    os::unix::process::ExitStatusExt,
    panic::catch_unwind,
    process::{Command, ExitCode},
};
use steps::{Ended, RAM_MIB, Step, View};
use vm_memory::{Bytes, GuestAddress};
use vm_spec::{
    HostData, MemoryMib,
    layout::{GpaRange, HIGH_MEMORY},
};

/// Environment variable with the path of stage0's program.
const STAGE0: &str = "CASEMATE_STAGE0";
/// Where the code is in [`elf::executable`].
const KERNEL_CODE: u64 = 0x1000;
/// Environment variable of a program under test: the rule to omit.
const WITHOUT: &str = "CASEMATE_TEST_WITHOUT";
const SIGSYS: i32 = 31;
/// The rules for conversions that this kernel needs; the other is for attributes of a guest_memfd, which Linux 6.12 does not have.
const NEEDED: [&str; 2] = ["ioctl KVM_SET_MEMORY_ATTRIBUTES", "fallocate"];

const PAGE: u64 = 4096;
const HUGE: u64 = 512 * PAGE;
const RAM: u64 = (RAM_MIB as u64) << 20;
/// A private page in the middle of RAM.
const AT: u64 = 16 << 20;
/// What the guest's pages contain.
const SECRET: u64 = 0x7365_6372_6574_2121;
const PUBLIC: u64 = 0x7075_626c_6963_2121;
/// `-KVM_EINVAL` and `-KVM_ENOSYS`.
const REFUSED: u64 = (-22i64).cast_unsigned();
const UNKNOWN: u64 = (-1000i64).cast_unsigned();

type Check = (&'static str, fn() -> Outcome<()>);

const CHECKS: &[Check] = &[
    ("the_host_does_not_see_what_is_private", the_host_does_not_see_what_is_private),
    (
        "a_shared_page_is_seen_and_has_no_old_content",
        a_shared_page_is_seen_and_has_no_old_content,
    ),
    (
        "a_page_that_is_private_again_is_empty_on_both_sides",
        a_page_that_is_private_again_is_empty_on_both_sides,
    ),
    ("a_conversion_changes_its_own_pages_only", a_conversion_changes_its_own_pages_only),
    ("all_of_ram_can_be_converted_at_once", all_of_ram_can_be_converted_at_once),
    (
        "what_is_not_ram_or_not_whole_pages_is_refused",
        what_is_not_ram_or_not_whole_pages_is_refused,
    ),
    (
        "an_access_of_the_other_kind_converts_its_page",
        an_access_of_the_other_kind_converts_its_page,
    ),
    (
        "a_private_access_outside_ram_ends_the_guest",
        a_private_access_outside_ram_ends_the_guest,
    ),
    ("a_flood_of_conversions_is_served", a_flood_of_conversions_is_served),
    ("two_vcpus_convert_the_same_page", two_vcpus_convert_the_same_page),
    (
        "stage0_starts_a_kernel_that_the_host_does_not_see",
        stage0_starts_a_kernel_that_the_host_does_not_see,
    ),
    ("the_filter_has_no_rule_to_spare", the_filter_has_no_rule_to_spare),
];

fn main() -> ExitCode {
    if let Ok(without) = std::env::var(WITHOUT) {
        return match run_without(&without) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                eprintln!("{e}");
                ExitCode::FAILURE
            }
        };
    }
    if let Err(e) = kvm::open().and_then(|kvm| KvmVm::create(kvm, VmType::SwProtected)) {
        println!("the testbed runs this: {e}");
        return ExitCode::SUCCESS;
    }
    let failed = CHECKS.iter().filter(|(name, check)| {
        let passed = match catch_unwind(check) {
            Ok(Ok(())) => true,
            Ok(Err(e)) => {
                println!("{name}: {e}");
                false
            }
            Err(_) => false,
        };
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        !passed
    });
    let failed = failed.count();
    let all = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {all}. {} passed; {failed} failed; 0 ignored", CHECKS.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Lets the guest take steps until it powers off.
fn run(steps: &[Step]) -> Outcome<Ended> {
    let ended = steps::run(&[steps], Filters::new()?.vcpu_conversions)?;
    assert_eq!(ended.reason, ExitReason::PowerOff);
    Ok(ended)
}

fn the_host_does_not_see_what_is_private() -> Outcome<()> {
    let ended = run(&[Step::store(AT, SECRET), Step::load(AT)])?;
    assert_eq!((ended.results[1], ended.host_reads(AT)), (SECRET, 0));
    assert_eq!((ended.exits["hypercall"], ended.exits["memory_fault"]), (0, 0));
    Ok(())
}

fn a_shared_page_is_seen_and_has_no_old_content() -> Outcome<()> {
    let ended = run(&[
        Step::store(AT, SECRET),
        Step::make_shared(AT, 1),
        Step::load(AT),
        Step::store(AT, PUBLIC),
        Step::load(AT),
    ])?;
    assert_eq!(ended.results[1..], [0, 0, 0, PUBLIC]);
    assert_eq!(ended.host_reads(AT), PUBLIC);
    assert_eq!((ended.exits["hypercall"], ended.exits["memory_fault"]), (1, 0));
    Ok(())
}

fn a_page_that_is_private_again_is_empty_on_both_sides() -> Outcome<()> {
    let ended = run(&[
        Step::store(AT, SECRET),
        Step::make_shared(AT, 1),
        Step::store(AT, PUBLIC),
        Step::make_private(AT, 1),
        Step::load(AT),
        Step::store(AT, SECRET),
        Step::load(AT),
    ])?;
    assert_eq!([1, 3, 4, 6].map(|n| ended.results[n]), [0, 0, 0, SECRET]);
    assert_eq!(ended.host_reads(AT), 0);
    Ok(())
}

/// Pages of one huge page of the host: KVM maps its parts separately once they differ.
fn a_conversion_changes_its_own_pages_only() -> Outcome<()> {
    let pages = [AT, AT + PAGE, AT + 2 * PAGE, AT + 3 * PAGE];
    let mut steps: Vec<Step> = pages.iter().map(|page| Step::store(*page, SECRET)).collect();
    steps.push(Step::make_shared(AT + PAGE, 2));
    steps.extend(pages.map(Step::load));
    steps.push(Step::store(AT + 2 * PAGE, PUBLIC));
    let ended = run(&steps)?;
    assert_eq!(ended.results[4..9], [0, SECRET, 0, 0, SECRET]);
    assert_eq!(pages.map(|page| ended.host_reads(page)), [0, 0, PUBLIC, 0]);
    Ok(())
}

/// All but the first 2 MiB, from which the guest runs.
fn all_of_ram_can_be_converted_at_once() -> Outcome<()> {
    let pages = (RAM - HUGE) / PAGE;
    let (first, last) = (HUGE, RAM - PAGE);
    let ended = run(&[
        Step::store(first, SECRET),
        Step::store(last, SECRET),
        Step::make_shared(HUGE, pages),
        Step::load(first),
        Step::load(last),
        Step::store(first, PUBLIC),
        Step::store(last, PUBLIC),
        Step::load(last),
    ])?;
    assert_eq!([2, 3, 4, 7].map(|n| ended.results[n]), [0, 0, 0, PUBLIC]);
    assert_eq!([first, last].map(|page| ended.host_reads(page)), [PUBLIC; 2]);
    Ok(())
}

/// Some of it KVM refuses itself, before the VMM sees it.
fn what_is_not_ram_or_not_whole_pages_is_refused() -> Outcome<()> {
    let refused = [
        [RAM, 1, 0],
        [RAM - PAGE, 2, 0],
        [0xd000_0000, 1, 0],
        [1 << 38, 1, 0],
        [0, RAM / PAGE + 1, 0],
        [AT, 0, 0],
        [AT + 1, 1, 0],
        [AT, u64::MAX, 0],
        [AT, 1 << 52, 0],
        [AT, 1 << 51, 0],
        [u64::MAX - PAGE + 1, 1, 0],
        [AT, 1, 1 << 5],
        [AT, 1, 1 << 63],
    ];
    let mut steps = vec![Step::store(AT, SECRET)];
    steps.extend(refused.map(|arguments| Step::Call(snp_launch::MAP_GPA_RANGE, arguments)));
    steps.extend([Step::Call(77, [AT, 1, 0]), Step::load(AT)]);
    let ended = run(&steps)?;
    let last = 1 + refused.len();
    for (arguments, result) in refused.iter().zip(&ended.results[1..]) {
        assert_eq!(*result, REFUSED, "{arguments:#x?}");
    }
    assert_eq!((ended.results[last], ended.results[last + 1]), (UNKNOWN, SECRET));
    assert_eq!(ended.host_reads(AT), 0);
    Ok(())
}

/// Of pages that the guest has not touched as what they are: there is no C bit that tells two accesses of a mapped page apart.
fn an_access_of_the_other_kind_converts_its_page() -> Outcome<()> {
    let ended = run(&[
        Step::store(AT, SECRET),
        Step::Load(AT + PAGE, View::Shared),
        Step::store(AT + PAGE, PUBLIC),
        Step::Store(AT + 2 * PAGE, PUBLIC, View::Shared),
        Step::load(AT),
    ])?;
    assert_eq!([1, 4].map(|n| ended.results[n]), [0, SECRET]);
    assert_eq!([0, 1, 2].map(|n| ended.host_reads(AT + n * PAGE)), [0, PUBLIC, PUBLIC]);
    assert_eq!((ended.exits["hypercall"], ended.exits["memory_fault"]), (0, 2));

    let ended = run(&[
        Step::make_shared(AT, 2),
        Step::store(AT, PUBLIC),
        Step::Store(AT + PAGE, SECRET, View::Private),
        Step::load(AT + PAGE),
        Step::load(AT),
    ])?;
    assert_eq!(ended.results[3..], [SECRET, PUBLIC]);
    assert_eq!([0, 1].map(|n| ended.host_reads(AT + n * PAGE)), [PUBLIC, 0]);
    assert_eq!((ended.exits["hypercall"], ended.exits["memory_fault"]), (1, 1));
    Ok(())
}

fn a_private_access_outside_ram_ends_the_guest() -> Outcome<()> {
    let steps = [Step::Load(RAM, View::Private), Step::store(AT, SECRET)];
    let ended = steps::run(&[&steps], Filters::new()?.vcpu_conversions)?;
    match ended.reason {
        ExitReason::GuestFailed(why) => assert!(why.contains("0x4000000"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(ended.exits["memory_fault"], 1);
    Ok(())
}

/// Each conversion gives pages back, so that the flood costs the host no memory.
fn a_flood_of_conversions_is_served() -> Outcome<()> {
    const ROUNDS: u64 = 5_000;
    let ended = run(&[
        Step::make_shared(AT, 16),
        Step::store(AT, PUBLIC),
        Step::make_private(AT, 16),
        Step::store(AT, SECRET),
        Step::Again(0, ROUNDS - 1),
        Step::load(AT),
    ])?;
    assert_eq!((ended.results[5], ended.host_reads(AT)), (SECRET, 0));
    assert_eq!((ended.exits["hypercall"], ended.exits["memory_fault"]), (2 * ROUNDS, 0));
    Ok(())
}

/// The second vCPU converts without end, until the first has done its rounds. What a page between has does not change.
fn two_vcpus_convert_the_same_page() -> Outcome<()> {
    const ROUNDS: u64 = 1_000;
    let first = [
        Step::store(AT + PAGE, SECRET),
        Step::make_private(AT, 1),
        Step::store(AT, SECRET),
        Step::make_shared(AT, 1),
        Step::load(AT + PAGE),
        Step::Again(1, ROUNDS - 1),
        Step::make_private(AT + 2 * PAGE, 1),
    ];
    let second = [
        Step::make_shared(AT, 1),
        Step::store(AT, PUBLIC),
        Step::make_private(AT, 1),
        Step::store(AT, PUBLIC),
        Step::Again(0, u64::MAX >> 1),
    ];
    let ended = steps::run(&[&first, &second], Filters::new()?.vcpu_conversions)?;
    assert_eq!(ended.reason, ExitReason::PowerOff);
    assert_eq!([1, 3, 4, 6].map(|n| ended.results[n]), [0, 0, SECRET, 0]);
    assert_eq!(ended.host_reads(AT + PAGE), 0);
    assert!(
        ended.exits["hypercall"] > 2 * ROUNDS + 1,
        "the second vCPU has not run: {:?}",
        ended.exits
    );
    Ok(())
}

/// As on SEV-SNP, stage0 copies from staging, which the host has, to RAM, which it has not. Only the launched pages are not private
/// here: KVM has no way to fill them.
fn stage0_starts_a_kernel_that_the_host_does_not_see() -> Outcome<()> {
    let stage0 = std::env::var(STAGE0).map_err(|_| format!("{STAGE0} does not name stage0's program"))?;
    let file = |bytes: &[u8]| -> Outcome<File> {
        let mut file = tempfile::tempfile()?;
        file.write_all(bytes)?;
        file.rewind()?;
        Ok(file)
    };
    let (kernel, initrd) = (elf::executable(guests::verified()), b"the initrd's bytes");
    let files = BootFiles {
        stage0: Some(File::open(stage0)?),
        kernel: file(&kernel)?,
        initrd: Some(file(initrd)?),
    };
    let mut launcher = Launcher::new(file(&kernel)?, File::open("/dev/null")?.into())?;
    launcher.spec.memory = MemoryMib::try_from(RAM_MIB)?;
    launcher.initrd(file(initrd)?)?;
    launcher.verified(File::open("/dev/null")?)?;
    launcher.cmdline("console=ttyS0");
    let payload = launcher.spec.boot.payload_mut();
    payload.kernel_sha256 = HostData(Sha256::digest(&kernel).into());
    payload.initrd_sha256 = HostData(Sha256::digest(initrd).into());
    let setup = Setup {
        spec: launcher.spec,
        files,
        shared: GpaRange {
            start: launch_area::STAGE0,
            length: launch_area::LAUNCH_AREA_END - launch_area::STAGE0,
        },
        more_vcpus: Vec::new(),
    };
    let ended = protected::run(setup, Filters::new()?.vcpu_conversions, |_| Ok(()))?;
    assert_eq!(ended.reason, ExitReason::PowerOff);
    assert_eq!(String::from_utf8_lossy(&ended.output), "console=ttyS0\0the initrd's bytes");
    // The kernel was read from 1 MiB on by its guest, and lies in staging for the host.
    for (range, seen) in [(HIGH_MEMORY, false), (STAGED_KERNEL + KERNEL_CODE, true)] {
        let mut bytes = vec![0; guests::verified().len()];
        ended.memory.read_slice(&mut bytes, GuestAddress(range))?;
        assert_eq!(bytes == guests::verified(), seen, "{range:#x}");
        assert!(seen || bytes.iter().all(|byte| *byte == 0), "{range:#x}");
    }
    Ok(())
}

/// A guest that converts pages in both directions, under a filter without one rule.
fn run_without(name: &str) -> Outcome<()> {
    let rules: Vec<&'static Rule> = VCPU.iter().chain(VCPU_CONVERSIONS).filter(|rule| rule.name != name).collect();
    let steps = [Step::store(AT, SECRET), Step::make_shared(AT, 1), Step::make_private(AT, 1)];
    steps::run(&[&steps], Filter::allowing(rules)?)?;
    Ok(())
}

fn the_filter_has_no_rule_to_spare() -> Outcome<()> {
    let program = std::env::args().next().ok_or("the program has no name")?;
    let run = |without: &str| Command::new(&program).env(WITHOUT, without).status();
    assert!(run("nothing")?.success());
    for name in NEEDED {
        assert!(VCPU_CONVERSIONS.iter().any(|rule| rule.name == name), "{name}");
        assert_eq!(run(name)?.signal(), Some(SIGSYS), "{name}");
    }
    Ok(())
}
