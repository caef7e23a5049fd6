//! A machine that boots a kernel of its own with one test program as its only process, always emulated. Its KVM makes VMs of type
//! `KVM_X86_SW_PROTECTED_VM`, which Debian's does not: memory that is private to a guest, without a processor that encrypts it.

use super::machine::{KICKS_IN_TIME, TCG_CPU};
use anyhow::{Context, Result};
use guest_image::{
    cache,
    initramfs::{Builder, stripped},
    kernel::{Change, Recipe},
};
use std::path::Path;
use std::process::Command;

/// Its kernel.
const KERNEL: Recipe = Recipe {
    name: "private memory test",
    fragment_name: "one_program.fragment",
    fragment: include_str!("one_program.fragment"),
    change: Some(CHANGE),
    objects: 740,
    minutes: 5,
};

/// Whether an access is to private memory, an SNP guest says by the C bit of its page tables, and the processor tells KVM. Without such
/// a processor KVM takes every access for one of the kind that the page is, so that none would ever be of the wrong kind. Here a guest
/// says it by a word in R15; with anything else in that register nothing differs from Linux.
const CHANGE: Change = Change {
    file: "arch/x86/kvm/mmu/mmu.c",
    before: "\
\t    kvm_mem_is_private(vcpu->kvm, gpa_to_gfn(cr2_or_gpa)))
",
    after: "\
\t    (kvm_r15_read(vcpu) == 0x65746176697270 /* \"private\" */ ||
\t     (kvm_r15_read(vcpu) != 0x646572616873 /* \"shared\" */ &&
\t      kvm_mem_is_private(vcpu->kvm, gpa_to_gfn(cr2_or_gpa)))))
",
};

const MEMORY_MIB: u32 = 512;
/// Time limit in seconds; the machine boots in one.
const LIMIT: &str = "240";
/// `panic=-1 reboot=t`: the machine ends with its program. Calibration of the TSC fails on a busy host, and KVM needs its frequency.
/// The last word is for the program's environment.
const CMDLINE: &str = "console=ttyS0 quiet panic=-1 reboot=t tsc_early_khz=1000000 CASEMATE_STAGE0=/stage0";
/// Major and minor numbers of the program's devices (Linux `Documentation/admin-guide/devices.txt`).
const DEVICES: [(&str, (u32, u32)); 2] = [("kvm", (10, 232)), ("null", (1, 3))];

/// A command that boots the machine with `program`, static, and prints what it prints; `stage0` is a file that the program can read.
/// Files of the machine go to `dir`.
///
/// # Errors
/// If the kernel cannot be built, or a file is missing.
pub fn command(program: &Path, stage0: &Path, dir: &Path) -> Result<Command> {
    let kernel = KERNEL.obtain()?.vmlinux;
    let mut archive = Builder::of_program(&stripped(program)?, &[])?;
    for (name, numbers) in DEVICES {
        archive.character_device(name, numbers)?;
    }
    archive.directory("tmp")?;
    archive.file("stage0", 0o644, stage0)?;
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let initrd = dir.join("initramfs.cpio");
    cache::write_whole(&initrd, &archive.into_bytes())?;
    let mut q = Command::new("timeout");
    q.args([LIMIT, "setpriv", "--pdeathsig", "KILL"]).args(KICKS_IN_TIME);
    q.args([
        "qemu-system-x86_64",
        "-machine",
        "q35",
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        TCG_CPU,
    ]);
    q.args(["-m", &MEMORY_MIB.to_string(), "-smp", "1"]);
    q.args(["-display", "none", "-no-reboot", "-nodefaults", "-serial", "stdio"]);
    q.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd).args(["-append", CMDLINE]);
    Ok(q)
}
