//! Guests that stage0 starts, on the host's KVM, with kernels of a few instructions.

mod elf;
mod guests;
mod launcher;

use launcher::Launcher;
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{Read, Seek, Write},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use vm_spec::{HostData, Tee};

const VMM: &str = env!("CARGO_BIN_EXE_casemate-vmm");
const BUILD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../image/guest/stage0/build.sh");
const TIMEOUT: Duration = Duration::from_secs(120);

fn with(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

fn text(mut file: File) -> String {
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text.trim_end_matches('\0').to_owned()
}

fn sha256(bytes: &[u8]) -> HostData {
    HostData(Sha256::digest(bytes).into())
}

/// A guest's kernel and initrd, and what its boot manifest says of them.
struct Guest {
    kernel: Vec<u8>,
    initrd: Vec<u8>,
    kernel_sha256: HostData,
    initrd_sha256: HostData,
}

impl Guest {
    fn new(code: &[u8], initrd: &[u8]) -> Self {
        let kernel = elf::executable(code);
        Self {
            kernel_sha256: sha256(&kernel),
            initrd_sha256: sha256(initrd),
            kernel,
            initrd: initrd.to_vec(),
        }
    }

    /// Exit code, console and standard error; `None` without KVM.
    fn run(&self, stage0: &[u8], change: impl FnOnce(&mut Launcher)) -> (Option<i32>, String, String) {
        let (console, stderr) = (with(&[0; 4096]), tempfile::tempfile().unwrap());
        let mut launcher = Launcher::new(with(&self.kernel), console.try_clone().unwrap().into()).unwrap();
        launcher.initrd(with(&self.initrd)).unwrap();
        let payload = launcher.spec.boot.payload_mut();
        (payload.kernel_sha256, payload.initrd_sha256) = (self.kernel_sha256, self.initrd_sha256);
        launcher.cmdline("console=ttyS0 panic=-1");
        launcher.verified(with(stage0)).unwrap();
        change(&mut launcher);
        let (mut child, _control) = launcher.start(Command::new(VMM), Stdio::from(stderr.try_clone().unwrap())).unwrap();
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return (status.code(), text(console), text(stderr));
            }
            if started.elapsed() > TIMEOUT {
                child.kill().unwrap();
                panic!("the VM hangs; console: {:?}", text(console));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// stage0's program; `None`, with the reason, where /dev/kvm cannot be opened.
fn stage0(name: &str) -> Option<Vec<u8>> {
    if let Err(e) = File::options().read(true).write(true).open("/dev/kvm") {
        eprintln!("SKIPPED: /dev/kvm cannot be opened here: {e}");
        return None;
    }
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    assert!(Command::new(BUILD).arg(&program).status().unwrap().success());
    Some(std::fs::read(program).unwrap())
}

#[test]
fn stage0_starts_the_kernel_that_the_boot_manifest_names() {
    let Some(stage0) = stage0("verified") else { return };
    let guest = Guest::new(guests::verified(), b"the initrd's bytes");
    let (status, console, stderr) = guest.run(&stage0, |_| ());
    assert_eq!(
        (status, console.as_str()),
        (Some(0), "console=ttyS0 panic=-1\0the initrd's bytes"),
        "{stderr}"
    );
    let (status, console, stderr) = Guest::new(guests::smp(), b"x").run(&stage0, |vm| vm.spec.vcpus = 2.try_into().unwrap());
    assert_eq!((status, console.as_str()), (Some(0), "AB\n"), "{stderr}");
}

#[test]
fn each_refusal_has_its_code_and_its_words() {
    let Some(stage0) = stage0("refused") else { return };
    let refused = |change: &dyn Fn(&mut Guest), vm: fn(&mut Launcher)| {
        let mut guest = Guest::new(guests::hello(), b"the initrd's bytes");
        change(&mut guest);
        let (status, console, stderr) = guest.run(&stage0, vm);
        assert_eq!((console.as_str(), stderr.lines().count()), ("", 1), "{stderr}");
        (status, stderr)
    };
    let expect = |(status, stderr): (Option<i32>, String), code, words: &str| {
        assert_eq!((status, stderr.contains(words)), (Some(code), true), "{stderr}");
    };
    let nothing = |_: &mut Launcher| ();
    expect(
        refused(&|guest| guest.kernel[300] ^= 1, nothing),
        7,
        "(code 0x20): the kernel is not",
    );
    expect(
        refused(&|guest| guest.kernel[4096] ^= 1, nothing),
        7,
        "(code 0x20): the kernel is not",
    );
    expect(
        refused(&|guest| guest.initrd[0] ^= 1, nothing),
        7,
        "(code 0x21): the initramfs is not",
    );
    expect(refused(&|guest| guest.kernel.push(0), nothing), 2, "the kernel is not packed");
    let ram = |vm: &mut Launcher| vm.spec.memory = 65.try_into().unwrap();
    expect(refused(&|_| (), ram), 2, "a multiple of 2 MiB");
    expect(refused(&|_| (), |vm| vm.spec.tee = Tee::Snp), 2, "/dev/sev");
    // mov al, 0x55; mov dx, 0x604; out dx, al; hlt
    let unknown = Guest::new(guests::hello(), b"x").run(&[0xb0, 0x55, 0x66, 0xba, 0x04, 0x06, 0xee, 0xf4], nothing);
    expect((unknown.0, unknown.2), 7, "(code 0x55): unknown");
    let empty = Guest::new(guests::hello(), b"x").run(&[], nothing);
    expect((empty.0, empty.2), 2, "stage0 has 0 bytes");
}
