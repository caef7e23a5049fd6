//! Launches SEV-SNP guests with the whole VMM on a KVM of this test's own (`fake_kvm`), which records every ioctl and has a model of
//! the secure processor behind it; then lets the guest exit in every way that an SNP guest can.
//!
//! Without libtest, because the program executes itself as the VMM under test. It needs neither /dev/kvm nor SNP.

mod elf;
mod fake_kvm;
mod guests;
mod launcher;
#[path = "../snp/tests/model/mod.rs"]
mod model;

use boot_manifest::{BootPage, Manifest, Mode, launch_area::STAGING, staging_end};
use casemate_vmm::{
    exit_code, program,
    seccomp::{DISK, Filter, Filters, MAIN, NET, VCPU, VCPU_CONVERSIONS},
};
use fake_kvm::{Behaviour, Step};
use launch_measure::{IdAuth, IdBlock, LaunchDigest, measure};
use launcher::Launcher;
use model::Host;
use p384::ecdsa::SigningKey;
use sha2::{Digest, Sha256};
use snp_launch::{Failure, Status};
use std::{
    fs::File,
    io::{Read, Seek, Write},
    os::unix::process::ExitStatusExt,
    process::{Command, ExitCode, Stdio},
};
use vm_spec::{ElfHeaders, HostData, LaunchPlan, Page, PageKind, Stage0, Vcpus};

/// Environment variables of a VMM under test: its KVM, and a rule to leave out of its filters.
const KVM: &str = "CASEMATE_TEST_KVM";
const WITHOUT: &str = "CASEMATE_TEST_WITHOUT";
const SIGSYS: i32 = 31;
const HOST_DATA: HostData = HostData([0xab; 32]);
const MEMORY: u32 = 256;
const CMDLINE: &str = "console=ttyS0 swiotlb=8192";
/// Registers of the entropy device, in slot 3, and of a slot without a device.
const RNG: u64 = 0xd000_3000;
const EMPTY_SLOT: u64 = 0xd000_7000;

type Test = fn();

fn main() -> ExitCode {
    if let Ok(kvm) = std::env::var(KVM) {
        fake_kvm::install(behaviour(&kvm));
        let without = std::env::var(WITHOUT).unwrap_or_default();
        return exit_code::report(program::run(std::env::args_os().skip(1), filters(&without)));
    }
    let tests: [(&str, Test); 8] = [
        (
            "every ioctl of a launch is the one that the plan and the ABI say",
            every_ioctl_of_a_launch,
        ),
        ("the guest's exits convert, refuse and serve", exits_convert_refuse_and_serve),
        ("attributes of guest_memfds serve as those of the VM", attributes_of_guest_memfds),
        ("a guest cannot keep its VMM busy with one access", one_access_ends),
        ("the guest's last words are told", last_words_are_told),
        (
            "failures of firmware and host come with their names",
            failures_come_with_their_names,
        ),
        ("bad input of the spec is refused by name", bad_input_is_refused_by_name),
        ("each rule of the filters for conversions is needed", each_rule_is_needed),
    ];
    let only: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (name, test) in tests {
        if only.is_empty() || only.iter().any(|part| name.contains(part.as_str())) {
            test();
            println!("ok: {name}");
        }
    }
    ExitCode::SUCCESS
}

fn filters(without: &str) -> Filters {
    let kept = VCPU_CONVERSIONS.iter().filter(|rule| rule.name != without);
    Filters {
        main: Filter::allowing(MAIN).expect("the table compiles"),
        net: Filter::allowing(NET).expect("the table compiles"),
        disk: Filter::allowing(DISK).expect("the table compiles"),
        vcpu: Filter::allowing(VCPU).expect("the table compiles"),
        vcpu_conversions: Filter::allowing(VCPU.iter().chain(kept)).expect("the table compiles"),
    }
}

/// The KVM of a name.
fn behaviour(name: &str) -> Behaviour {
    let usual = Behaviour {
        snp: true,
        policy_bits: Some(0x3f_ffff),
        certificates: true,
        in_place: false,
        encryption_bit: 51,
        psp: Host::default(),
        steps: Vec::new(),
    };
    let steps = |steps: &[Step]| Behaviour {
        steps: steps.to_vec(),
        ..usual.clone()
    };
    let command = |number, errno, status: Option<u32>| Behaviour {
        psp: Host {
            fails: Some((
                number,
                Failure {
                    errno,
                    firmware: status.map(Status),
                },
            )),
            ..Host::default()
        },
        ..usual.clone()
    };
    let conversions = [
        Step::Hypercall([12, 0x40_0000, 4, 0]),
        Step::Hypercall([12, 0x40_0000, 4, 16]),
        Step::Fault(0, 0x50_0000),
        Step::Fault(8, 0x50_0000),
    ];
    match name {
        "usual" => usual,
        "old" => Behaviour {
            policy_bits: None,
            certificates: false,
            ..usual
        },
        "correcting" => Behaviour {
            psp: Host {
                corrects: Some(1),
                busy: 2,
                ..Host::default()
            },
            ..usual
        },
        "conversions" => steps(&conversions),
        "in place" => Behaviour {
            in_place: true,
            ..steps(&conversions)
        },
        "exits" => steps(&[
            Step::Hypercall([12, 0xfff_f000, 2, 0]),
            Step::Hypercall([12, 0x40_0000, 1 << 52, 0]),
            Step::Hypercall([1, 0, 0, 0]),
            Step::Certificates(0x60_0000, 0),
            Step::Certificates(0x60_0000, 4),
            Step::Certificates(0x2000_0000, 4),
            Step::Write(RNG + 0x14, 1),
            Step::Read(RNG + 0x10),
            Step::Read(EMPTY_SLOT),
        ]),
        "stuck" => steps(&[Step::FaultForEver(8, 0x40_0000)]),
        "outside" => steps(&[Step::Fault(8, 0x7f_c000_0000)]),
        "no psc" => steps(&[Step::Terminate(0x01_1100)]),
        "other kernel" => steps(&[Step::Terminate(0x20_c100)]),
        "no snp" => Behaviour { snp: false, ..usual },
        "c-bit 47" => Behaviour {
            encryption_bit: 47,
            ..usual
        },
        "no asid" => command(0, libc::EBUSY, None),
        "full" => command(1, libc::EIO, Some(0x17)),
        other => panic!("no KVM {other:?}"),
    }
}

fn with(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

fn kernel() -> Vec<u8> {
    elf::executable(guests::hello())
}

const INITRD: &[u8] = b"the initrd's bytes";
const STAGE0: &[u8] = &[0x90; 9000];

/// The pages that a VMM has to launch, from the same inputs and without it, and the bytes of staging memory.
fn plan(vcpus: u8) -> (Vec<Page>, u64) {
    let kernel = kernel();
    let read = |buffer: &mut [u8], offset: u64| {
        buffer.copy_from_slice(&kernel[offset as usize..][..buffer.len()]);
        Ok(())
    };
    let headers = ElfHeaders::read(read).unwrap();
    let load = headers.load_map(kernel.len() as u64, INITRD.len() as u64).unwrap();
    let staged = (staging_end(&load) - STAGING).next_multiple_of(4096);
    let boot_page = BootPage {
        manifest: Manifest {
            mode: Mode::Snp,
            kernel_sha256: Sha256::digest(&kernel).into(),
            initrd_sha256: Sha256::digest(INITRD).into(),
        },
        load,
        cmdline: CMDLINE,
    };
    let stage0 = Stage0::try_from(STAGE0).unwrap();
    let plan = LaunchPlan::verified(Vcpus::try_from(vcpus).unwrap(), &boot_page, stage0).unwrap();
    (plan.pages, staged)
}

/// What became of a VMM.
struct Outcome {
    code: Option<i32>,
    signal: Option<i32>,
    record: Vec<String>,
    words: String,
}

/// Runs the VMM on a KVM, with an SNP guest of two vCPUs.
fn run(kvm: &str, change: impl FnOnce(&mut Launcher)) -> Outcome {
    run_without(kvm, "", change)
}

fn run_without(kvm: &str, rule: &str, change: impl FnOnce(&mut Launcher)) -> Outcome {
    let kernel = kernel();
    let mut vm = Launcher::new(with(&kernel), with(&[0; 4096]).into()).unwrap();
    vm.initrd(with(INITRD)).unwrap();
    let payload = vm.spec.boot.payload_mut();
    payload.kernel_sha256 = HostData(Sha256::digest(&kernel).into());
    payload.initrd_sha256 = HostData(Sha256::digest(INITRD).into());
    vm.cmdline(CMDLINE);
    vm.verified(with(STAGE0)).unwrap();
    vm.spec.memory = MEMORY.try_into().unwrap();
    vm.spec.vcpus = 2.try_into().unwrap();
    vm.spec.host_data = HOST_DATA;
    vm.spec.rng = true;
    vm.snp(None, None, None).unwrap();
    change(&mut vm);
    let mut vmm = Command::new(std::env::current_exe().unwrap());
    vmm.env(KVM, kvm).env(WITHOUT, rule);
    let (mut child, _control) = vm.start(vmm, Stdio::piped()).unwrap();
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    let status = child.wait().unwrap();
    let (record, words): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with("# "));
    Outcome {
        code: status.code(),
        signal: status.signal(),
        record: record.iter().map(|line| line[2..].to_owned()).collect(),
        words: words.join("\n"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The line of a structure: its length, and its bytes up to the last that is not zero.
fn line(name: &str, length: usize, bytes: &str) -> String {
    format!("{name} {length}: {bytes}")
}

/// A certificate of four bytes in a table.
fn certificates() -> Vec<u8> {
    let mut table = vec![7; 16];
    table.extend([48, 0, 0, 0, 4, 0, 0, 0]);
    table.extend([0; 24]);
    table.extend(*b"cert");
    table
}

fn signed_id(digest: LaunchDigest, policy: u64) -> [Vec<u8>; 2] {
    let block = IdBlock {
        digest,
        family_id: [1; 16],
        image_id: [2; 16],
        guest_svn: 3,
        policy,
    };
    let authentication = IdAuth::sign(&block, &SigningKey::from_slice(&[5; 48]).unwrap(), None);
    [block.to_bytes().to_vec(), authentication.to_bytes().to_vec()]
}

/// Every structure that KVM gets, in order. The bytes are written out from `include/uapi/linux/kvm.h` and
/// `arch/x86/include/uapi/asm/kvm.h` of Linux 6.20, little endian; addresses and descriptors are zeros.
fn every_ioctl_of_a_launch() {
    let (pages, staged) = plan(2);
    let digest = measure(&pages).unwrap();
    let [block, authentication] = signed_id(digest, 0x3_0000);
    let outcome = run("usual", |vm| {
        vm.snp(
            Some(0x3_0000),
            Some([with(&block), with(&authentication)]),
            Some(with(&certificates())),
        )
        .unwrap();
    });
    assert_eq!((outcome.code, outcome.signal), (Some(8), None), "{}", outcome.words);

    let mut expected = vec!["open /dev/kvm".to_owned(), "open /dev/sev".to_owned()];
    let mut add = |name, length, bytes: &str| expected.push(line(name, length, bytes));
    // KVM_X86_SNP_VM
    add("KVM_CREATE_VM", 8, "04");
    // KVM_CAP_EXIT_HYPERCALL (201), flags, args[0] = 1 << KVM_HC_MAP_GPA_RANGE
    add("KVM_ENABLE_CAP", 104, "c9000000000000000010");
    add("KVM_SEV_INIT2", 48, "");
    add("KVM_SEV_SNP_ENABLE_REQ_CERTS", 0, "");
    // 256 MiB: size, flags = GUEST_MEMFD_FLAG_MMAP, which this KVM does not know; then without flags
    add("KVM_CREATE_GUEST_MEMFD", 64, "000000100000000001");
    add("KVM_CREATE_GUEST_MEMFD", 64, "00000010");
    // slot 0, flags = KVM_MEM_GUEST_MEMFD, address 0, 256 MiB
    add("KVM_SET_USER_MEMORY_REGION2", 160, "0000000004000000000000000000000000000010");
    // slot 1, no flags, 511 GiB, and what stage0 reads there
    let staging = format!("0100000000000000{}{}", hex(&STAGING.to_le_bytes()), hex(&staged.to_le_bytes()));
    add("KVM_SET_USER_MEMORY_REGION", 32, staging.trim_end_matches("00"));
    add("KVM_SET_TSS_ADDR", 8, "00d0fbff");
    add("KVM_CREATE_IRQCHIP", 8, "");
    add("KVM_SET_GSI_ROUTING", 8, "18");
    // the console's interrupt 4, the entropy device's interrupt 8 and notification
    add("KVM_IRQFD", 32, "0000000004");
    add("KVM_IRQFD", 32, "0000000008");
    // datamatch 0, address, 4 bytes, KVM_IOEVENTFD_FLAG_DATAMATCH
    add("KVM_IOEVENTFD", 64, "0000000000000000503000d000000000040000000000000001");
    let leaf = "leaf 0x8000001f 41a 33 0 0";
    for vcpu in 0..2u8 {
        expected.push(line("KVM_CREATE_VCPU", 8, if vcpu == 0 { "" } else { "01" }));
        for name in ["KVM_SET_CPUID2", leaf, "KVM_SET_MSRS", "KVM_SET_SREGS", "KVM_SET_REGS"] {
            expected.push(name.to_owned());
        }
    }
    let mut add = |name, length, bytes: &str| expected.push(line(name, length, bytes));
    // address 0, 256 MiB, KVM_MEMORY_ATTRIBUTE_PRIVATE
    add("KVM_SET_MEMORY_ATTRIBUTES", 32, "0000000000000000000000100000000008");
    // policy
    add("KVM_SEV_SNP_LAUNCH_START", 64, "000003");
    for page in pages.iter().filter(|page| page.kind != PageKind::Vmsa) {
        // gfn_start, uaddr, len = 4096, type
        let bytes = format!(
            "{}{}0010000000000000{:02x}",
            hex(&(page.gpa / 4096).to_le_bytes()),
            "00".repeat(8),
            page.kind as u8
        );
        let mut update = line("KVM_SEV_SNP_LAUNCH_UPDATE", 64, &bytes);
        if page.kind == PageKind::Normal {
            update += &format!(" of {}", hex(&Sha256::digest(&page.bytes[..])[..8]));
        }
        expected.push(update);
    }
    // two addresses; id_block_en, auth_key_en, vcek_disabled; host data at 19
    expected.push(line(
        "KVM_SEV_SNP_LAUNCH_FINISH",
        88,
        &format!("{}010000{}", "00".repeat(16), "ab".repeat(32)),
    ));
    expected.push(format!("digest {}", hex(&digest.0)));
    for _ in 0..2 {
        expected.push(line("KVM_GET_STATS_FD", 8, ""));
    }
    // Of large structures, whose registers are in the digest, the name is compared.
    let record: Vec<_> = outcome
        .record
        .iter()
        .map(|line| match line.split_once(' ') {
            Some((name @ ("KVM_SET_CPUID2" | "KVM_SET_MSRS" | "KVM_SET_SREGS" | "KVM_SET_REGS"), _)) => name,
            _ => line,
        })
        .collect();
    for (n, (seen, expected)) in record.iter().zip(&expected).enumerate() {
        assert_eq!(seen, expected, "call {n} of {record:#?}");
    }
    assert!(record.len() >= expected.len(), "{record:#?}");

    let corrected = run("correcting", |_| ());
    assert!(
        corrected
            .words
            .starts_with("casemate-vmm: the firmware corrected CPUID leaves: 0x0.0x0 from [0000000b"),
        "{}",
        corrected.words
    );
    assert!(
        corrected.record.contains(&format!("digest {}", hex(&digest.0))),
        "leaves are not measured"
    );
}

/// The answers to the guest, in order.
fn answers(outcome: &Outcome) -> Vec<&str> {
    let all = outcome.record.iter().map(|line| line.trim_end());
    all.filter(|line| line.contains("returns") || line.contains("reads") || line.contains("shared"))
        .collect()
}

fn exits_convert_refuse_and_serve() {
    let outcome = run("conversions", |_| ());
    assert_eq!(outcome.code, Some(8), "{}", outcome.words);
    assert_eq!(
        answers(&outcome),
        [
            // To shared: the guest_memfd's page is gone; to private: the other.
            "Hypercall([c, 400000, 4, 0]) returns 0 shared 5a, private 00",
            "Hypercall([c, 400000, 4, 10]) returns 0 shared 00, private 5a",
            "Fault(0, 500000) shared 5a, private 00",
            "Fault(8, 500000) shared 00, private 5a",
        ]
    );
    let outcome = run("exits", |vm| vm.snp(None, None, Some(with(&certificates()))).unwrap());
    assert_eq!(outcome.code, Some(8), "{}", outcome.words);
    assert_eq!(
        answers(&outcome),
        [
            "Hypercall([c, ffff000, 2, 0]) returns -22 shared 5a, private 5a",
            "Hypercall([c, 400000, 10000000000000, 0]) returns -22 shared 5a, private 5a",
            "Hypercall([1, 0, 0, 0]) returns -1000",
            // ENOSPC with the pages that are needed; then the table; EIO outside RAM
            "Certificates(600000, 0) returns 28, 1 pages: 00000000",
            "Certificates(600000, 4) returns 0, 4 pages: 63657274",
            "Certificates(20000000, 4) returns 5, 4 pages:",
            // VIRTIO_F_VERSION_1 and VIRTIO_F_ACCESS_PLATFORM; "virt"
            "Read(d0003010) reads 03000000",
            "Read(d0007000) reads 76697274",
        ]
    );
}

fn attributes_of_guest_memfds() {
    let outcome = run("in place", |_| ());
    assert_eq!(outcome.code, Some(8), "{}", outcome.words);
    assert_eq!(
        answers(&outcome),
        [
            // The pages stay: they are the same.
            "Hypercall([c, 400000, 4, 0]) returns 0 shared 5a, private 5a",
            "Hypercall([c, 400000, 4, 10]) returns 0 shared 5a, private 5a",
            "Fault(0, 500000) shared 5a, private 5a",
            "Fault(8, 500000) shared 5a, private 5a",
        ]
    );
    let is_of = |name: &str| {
        let calls = outcome.record.iter().filter(|line| line.split(' ').next() == Some(name));
        calls.map(|line| line.split_once(": ").unwrap().1).collect::<Vec<_>>()
    };
    assert_eq!(is_of("KVM_CREATE_GUEST_MEMFD"), ["000000100000000001"], "GUEST_MEMFD_FLAG_MMAP");
    assert!(is_of("KVM_SET_MEMORY_ATTRIBUTES").is_empty());
    // offset, size, attributes: the question, all shared, all private; then the guest's requests
    assert_eq!(
        is_of("KVM_SET_MEMORY_ATTRIBUTES2"),
        [
            "0000000000000000001000000000000008",
            "000000000000000000000010",
            "0000000000000000000000100000000008",
            "00004000000000000040",
            "0000400000000000004000000000000008",
            "00005000000000000010",
            "0000500000000000001000000000000008",
        ]
    );
}

fn one_access_ends() {
    let outcome = run("stuck", |_| ());
    assert_eq!(outcome.code, Some(5), "{}", outcome.words);
    assert!(
        outcome.words.contains("the memory at 0x400000 stays out of the guest's reach"),
        "{}",
        outcome.words
    );
    let conversions = outcome
        .record
        .iter()
        .filter(|line| line.starts_with("KVM_SET_MEMORY_ATTRIBUTES "))
        .count();
    assert_eq!(conversions, 1002);
    let outcome = run("outside", |_| ());
    assert_eq!(outcome.code, Some(8), "{}", outcome.words);
    assert!(
        outcome.words.contains("the guest has no memory from 0x7fc0000000"),
        "{}",
        outcome.words
    );
}

fn last_words_are_told() {
    for (kvm, code, words) in [
        ("usual", 8, "the guest terminated itself for a reason that it does not give"),
        ("no psc", 8, "because this host did not convert its memory (reason 0x1 of set 1)"),
        ("other kernel", 7, "(code 0x20): the kernel is not"),
    ] {
        let outcome = run(kvm, |_| ());
        assert_eq!(outcome.code, Some(code), "{}", outcome.words);
        assert!(outcome.words.contains(words), "{}", outcome.words);
    }
}

fn failures_come_with_their_names() {
    for (kvm, words) in [
        ("no snp", "makes no SEV-SNP VMs; `casemate host check`"),
        ("c-bit 47", "SEV-SNP guests need the C-bit at 51; this host has it at 47"),
        ("no asid", "no ASID is free: stop other SNP guests"),
        (
            "full",
            "(SNP_LAUNCH_START): the secure processor says RESOURCE_LIMIT (0x17): stop other SNP guests",
        ),
    ] {
        let outcome = run(kvm, |_| ());
        assert_eq!(outcome.code, Some(2), "{}", outcome.words);
        assert!(outcome.words.contains(words), "{}", outcome.words);
        assert_eq!(outcome.words.lines().count(), 1, "{}", outcome.words);
    }
    let [block, authentication] = signed_id(LaunchDigest([1; 48]), 0x3_0000);
    let outcome = run("usual", |vm| {
        vm.snp(None, Some([with(&block), with(&authentication)]), None).unwrap()
    });
    assert!(
        outcome.words.contains("BAD_MEASUREMENT (0xb): the guest is not the one"),
        "{}",
        outcome.words
    );
}

fn bad_input_is_refused_by_name() {
    let [block, authentication] = signed_id(LaunchDigest([1; 48]), 0x3_0000);
    let long = [&block[..], &[0]].concat();
    let mut version = block.clone();
    version[80] = 2;
    let id = |block: &[u8]| Some([with(block), with(&authentication)]);
    type Given = (Option<u64>, Option<[File; 2]>, Option<File>);
    let cases: [(&str, Given, &str); 9] = [
        ("usual", (Some(0xb_0000), None, None), "lets the host debug or migrate the guest"),
        ("usual", (Some(0x1_0000), None, None), "is malformed: bit 17 must be set"),
        ("old", (Some(0x103_0000), None, None), "KVM does not know the bits 0x1000000"),
        ("usual", (None, id(&block[1..]), None), "the ID block has 95 bytes; 96 are needed"),
        ("usual", (None, id(&long), None), "the ID block has 97 bytes; 96 are needed"),
        (
            "usual",
            (None, id(&version), None),
            "the ID block has version 2; version 1 is known",
        ),
        (
            "usual",
            (Some(0x13_0000), id(&block), None),
            "the ID block is for guest policy 0x30000",
        ),
        ("usual", (None, None, Some(with(&[7; 47]))), "the table of certificates has no end"),
        ("old", (None, None, Some(with(&certificates()))), "asks for no certificates"),
    ];
    for (kvm, (policy, id, certificates), words) in cases {
        let outcome = run(kvm, |vm| vm.snp(policy, id, certificates).unwrap());
        assert_eq!(outcome.code, Some(2), "{}", outcome.words);
        assert!(outcome.words.contains(words), "{}", outcome.words);
        assert!(
            !outcome.record.iter().any(|line| line.starts_with("KVM_CREATE_VM")),
            "refused before a VM is made"
        );
    }
}

fn each_rule_is_needed() {
    for rule in VCPU_CONVERSIONS {
        let killed = ["conversions", "in place"].map(|kvm| run_without(kvm, rule.name, |_| ()).signal == Some(SIGSYS));
        assert!(killed.contains(&true), "no conversion needs {}", rule.name);
    }
}
