//! The whole program on the host's KVM, with guests of a few instructions, which run even on a KVM too slow for Linux.

mod elf;
mod guests;
mod jail;
mod launcher;

use launcher::{Control, Launcher};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::{
    fs::File,
    io::{Read, Seek, Write},
    os::fd::{AsRawFd, IntoRawFd},
    os::unix::{
        fs::MetadataExt,
        net::{UnixListener, UnixStream},
    },
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};
use vm_spec::{
    Fd, SPEC_MAX_BYTES, Tee,
    control::{Reply, Request, RunState, Stats},
};

const VMM: &str = env!("CARGO_BIN_EXE_casemate-vmm");
/// Limit for everything that a guest does here.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Length of a console's file.
const CONSOLE_BYTES: usize = 64 << 10;

/// A started VM.
struct Vm {
    child: Child,
    control: Control,
    console: File,
    stderr: File,
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn with(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn text(file: &File) -> String {
    String::from_utf8_lossy(&content(file)).into_owned()
}

fn content(mut file: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    // Zeros follow what a console's file has received.
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    bytes
}

fn elf(code: &[u8]) -> File {
    with(&elf::executable(code))
}

/// Whether /dev/kvm can be opened; prints SKIPPED if not.
fn has_kvm() -> bool {
    let open = File::options().read(true).write(true).open("/dev/kvm");
    if let Err(e) = &open {
        eprintln!("SKIPPED: /dev/kvm cannot be opened here: {e}");
    }
    open.is_ok()
}

fn start(kernel: File, change: impl FnOnce(&mut Launcher)) -> Vm {
    start_as(Command::new(VMM), kernel, change)
}

/// As [`start`], with a command that executes the VMM.
fn start_as(program: Command, kernel: File, change: impl FnOnce(&mut Launcher)) -> Vm {
    let stderr = tempfile::tempfile().unwrap();
    let to = Stdio::from(stderr.try_clone().unwrap());
    start_with(program, kernel, stderr, to, change)
}

/// As [`start_as`], with a standard error of its own, which need not be the file that is shown when the test fails.
fn start_with(program: Command, kernel: File, stderr: File, to: Stdio, change: impl FnOnce(&mut Launcher)) -> Vm {
    let console = with(&[0; CONSOLE_BYTES]);
    let mut launcher = Launcher::new(kernel, console.try_clone().unwrap().into()).unwrap();
    change(&mut launcher);
    let (child, control) = launcher.start(program, to).unwrap();
    Vm {
        child,
        control,
        console,
        stderr,
    }
}

impl Vm {
    /// Waits for the VM to exit; exit code, console and standard error.
    fn wait(mut self) -> (Option<i32>, String, String) {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), text(&self.console), text(&self.stderr));
            }
            assert!(start.elapsed() < TIMEOUT, "the VM hangs; console: {:?}", text(&self.console));
            sleep(Duration::from_millis(2));
        }
    }

    fn wait_for_output(&self) {
        let start = Instant::now();
        while text(&self.console).is_empty() {
            assert!(start.elapsed() < TIMEOUT, "no output; stderr: {}", text(&self.stderr));
            sleep(Duration::from_millis(2));
        }
    }

    fn ask(&self, request: Request) -> Reply {
        self.control.ask(&request, &[]).unwrap()
    }

    fn stats(&self) -> Stats {
        match self.ask(Request::Stats) {
            Reply::Stats(stats) => stats,
            other => panic!("{other:?}"),
        }
    }
}

fn run(code: &[u8], change: impl FnOnce(&mut Launcher)) -> (Option<i32>, String, String) {
    start(elf(code), change).wait()
}

#[test]
fn a_guest_prints_and_powers_off() {
    if !has_kvm() {
        return;
    }
    assert_eq!(run(guests::hello(), |_| ()), (Some(0), "hi\n".into(), String::new()));
}

#[test]
fn each_exit_reason_has_its_exit_code() {
    if !has_kvm() {
        return;
    }
    let exit = |code: &[u8]| {
        let (status, _, stderr) = run(code, |_| ());
        (status, stderr)
    };
    let reset = "casemate-vmm: the guest requested a reset; see its console for the reason\n".to_string();
    assert_eq!(exit(guests::reset()), (Some(3), reset.clone()));
    assert_eq!(exit(guests::keyboard_reset()), (Some(3), reset));
    let (status, stderr) = exit(guests::triple_fault());
    assert_eq!(status, Some(4), "{stderr}");
    let (status, _, stderr) = run(guests::jumps_to_mmio(), |vm| vm.spec.layers = true);
    assert_eq!(status, Some(5), "{stderr}");
    assert!(stderr.contains("internal error 1 at instruction address 0xd0000000"), "{stderr}");
}

#[test]
fn the_guest_finds_its_boot_parameters() {
    if !has_kvm() {
        return;
    }
    let (status, console, stderr) = run(guests::boot_params(), |vm| {
        vm.cmdline("console=ttyS0 panic=-1");
        vm.initrd(with(b"the initrd's bytes")).unwrap();
    });
    assert_eq!(
        (status, console.as_str()),
        (Some(0), "console=ttyS0 panic=-1\0the initrd's bytes"),
        "{stderr}"
    );
}

#[test]
fn every_slot_has_its_device_id() {
    if !has_kvm() {
        return;
    }
    let socket = tempfile::tempdir().unwrap();
    let vm = start(elf(guests::slots()), |vm| {
        vm.spec.layers = true;
        vm.scratch(with(&[0; 4096])).unwrap();
        vm.vsock(UnixListener::bind(socket.path().join("vsock")).unwrap().into()).unwrap();
        vm.spec.rng = true;
    });
    let console = vm.console.try_clone().unwrap();
    assert_eq!(vm.wait().0, Some(0));
    let seen = content(&console);
    // Block 2, block 2, vsock 19, entropy 4, four empty slots; then no device.
    assert_eq!(seen, b"virt22virt22virt2Cvirt24virt20virt20virt20virt20\xff\xff\xff\xff");
}

#[test]
fn the_layer_disk_grows_over_the_control_socket() {
    if !has_kvm() {
        return;
    }
    let vm = start(elf(guests::halted()), |vm| vm.spec.layers = true);
    let layers = [with(&[1; 4096]), with(&[2; 8192])];
    let appended = Reply::Appended {
        first_sectors: vec![0, 8],
        capacity: 24,
    };
    assert_eq!(vm.control.append(&layers).unwrap(), appended);
    assert_eq!(vm.ask(Request::Stop), Reply::Done);
    assert_eq!(vm.wait().0, Some(0));
}

#[test]
fn volume_slots_are_empty_disks_behind_the_other_devices() {
    if !has_kvm() {
        return;
    }
    let vm = start(elf(guests::slots()), |vm| vm.spec.volumes.slots = 4.try_into().unwrap());
    let console = vm.console.try_clone().unwrap();
    assert_eq!(vm.wait().0, Some(0));
    assert_eq!(
        String::from_utf8_lossy(&content(&console)[..48]),
        "virt20".repeat(6) + &"virt22".repeat(2),
        "eight slots are looked at"
    );
    let vm = start(elf(guests::halted()), |vm| vm.spec.volumes.slots = 4.try_into().unwrap());
    let disk = with(&[1; 4096]);
    let attach = Request::AttachDisk { slot: 3, read_only: false };
    let reason = vm.control.ask(&attach, &[disk]).unwrap_err().to_string();
    assert!(reason.contains("allows 0"), "{reason}");
    assert_eq!(vm.ask(Request::Stop), Reply::Done);
    assert_eq!(vm.wait().0, Some(0));
}

#[test]
fn queue_notifications_do_not_exit_to_the_vmm() {
    if !has_kvm() {
        return;
    }
    let vm = start(elf(guests::notify()), |vm| vm.spec.rng = true);
    vm.wait_for_output();
    assert_eq!(vm.stats().to_vmm["mmio"], 1, "only the queue that does not exist");
    assert_eq!(vm.ask(Request::Stop), Reply::Done);
    assert_eq!(vm.wait().0, Some(0));
}

#[test]
fn a_second_vcpu_starts_by_init_and_sipi() {
    if !has_kvm() {
        return;
    }
    let (status, console, stderr) = run(guests::smp(), |vm| vm.spec.vcpus = 2.try_into().unwrap());
    assert_eq!((status, console.as_str()), (Some(0), "AB\n"), "{stderr}");
}

#[test]
fn a_restart_through_real_mode_ends_the_vm() {
    if !has_kvm() {
        return;
    }
    assert_eq!(
        run(guests::real_mode_restart(), |vm| vm.spec.vcpus = 2.try_into().unwrap()).0,
        Some(3)
    );
}

#[test]
fn an_interrupt_line_reaches_the_guest_through_the_io_apic() {
    if !has_kvm() {
        return;
    }
    let (status, console, stderr) = run(guests::interrupt(), |_| ());
    assert_eq!((status, console.as_str()), (Some(0), "2\n"), "{stderr}");
}

#[test]
fn a_guest_cannot_enable_svm() {
    if !has_kvm() {
        return;
    }
    let (status, console, stderr) = run(guests::svme(), |_| ());
    assert_eq!((status, console.as_str()), (Some(0), "G"), "{stderr}");
}

#[test]
fn a_paused_guest_does_not_run_until_it_is_resumed() {
    if !has_kvm() {
        return;
    }
    let vm = start(elf(guests::busy()), |vm| vm.spec.vcpus = 3.try_into().unwrap());
    vm.wait_for_output();
    for _ in 0..3 {
        assert_eq!(vm.ask(Request::Pause), Reply::Done);
        let at_pause = vm.stats();
        assert!(at_pause.exits > 0 && at_pause.kvm.contains_key("io_exits"));
        sleep(Duration::from_millis(20));
        assert_eq!(vm.stats().to_vmm["io"], at_pause.to_vmm["io"]);
        assert_eq!(vm.ask(Request::Resume), Reply::Done);
        let deadline = Instant::now() + TIMEOUT;
        while vm.stats().to_vmm["io"] <= at_pause.to_vmm["io"] {
            assert!(Instant::now() < deadline, "the guest does not resume");
        }
    }
    assert_eq!(vm.ask(Request::Pause), Reply::Done);
    assert_eq!(vm.ask(Request::Stop), Reply::Done, "a paused VM can be stopped");
    assert_eq!(vm.wait().0, Some(0));
}

#[test]
fn a_paused_vm_serves_no_device_until_it_is_resumed() {
    if !has_kvm() {
        return;
    }
    let socket = tempfile::tempdir().unwrap();
    let path = socket.path().join("vsock");
    let vm = start(elf(guests::halted()), |vm| {
        vm.vsock(UnixListener::bind(&path).unwrap().into()).unwrap();
    });
    vm.wait_for_output();
    assert_eq!(vm.ask(Request::State), Reply::State(RunState::Running));
    assert_eq!(vm.ask(Request::Pause), Reply::Done);
    assert_eq!(vm.ask(Request::State), Reply::State(RunState::Paused));
    // An invalid line closes the connection as soon as the device is served.
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"nonsense\n").unwrap();
    client.set_nonblocking(true).unwrap();
    for _ in 0..3 {
        assert_eq!(vm.ask(Request::State), Reply::State(RunState::Paused));
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    }
    assert_eq!(vm.ask(Request::Resume), Reply::Done);
    client.set_nonblocking(false).unwrap();
    client.set_read_timeout(Some(TIMEOUT)).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert_eq!(vm.ask(Request::Stop), Reply::Done);
    assert_eq!(vm.wait().0, Some(0));
}

#[test]
fn a_guest_that_only_exits_is_throttled() {
    if !has_kvm() {
        return;
    }
    let vm = start(elf(guests::busy()), |_| ());
    let deadline = Instant::now() + TIMEOUT;
    while vm.stats().watchdog.throttled == 0 {
        assert!(Instant::now() < deadline, "{:?}", vm.stats().watchdog);
        sleep(Duration::from_millis(10));
    }
    assert_eq!(vm.stats().watchdog.storms, 1);
    assert_eq!(vm.ask(Request::Stop), Reply::Done);
    assert_eq!(vm.wait().0, Some(0));
}

#[test]
fn a_halted_guest_can_be_paused_and_stopped() {
    if !has_kvm() {
        return;
    }
    let vm = start(elf(guests::halted()), |vm| vm.spec.vcpus = 2.try_into().unwrap());
    vm.wait_for_output();
    assert_eq!(vm.ask(Request::Pause), Reply::Done);
    assert_eq!(vm.ask(Request::Resume), Reply::Done);
    assert_eq!(vm.ask(Request::Stop), Reply::Done);
    let (status, _, stderr) = vm.wait();
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
}

/// Guests that print without end cost no more than their files, which hold what each printed last.
#[test]
fn the_consoles_of_thirty_vms_keep_their_length_and_the_newest_output() {
    if !has_kvm() {
        return;
    }
    let vms: Vec<Vm> = (0..30).map(|_| start(elf(guests::counts()), |_| ())).collect();
    vms.iter().for_each(keeps_its_length_and_the_newest_output);
    let taken: u64 = vms.iter().map(|vm| vm.console.metadata().unwrap().blocks() * 512).sum();
    assert!(taken <= 30 * CONSOLE_BYTES as u64, "{taken} bytes");
}

fn keeps_its_length_and_the_newest_output(vm: &Vm) {
    let newest = |digits: &[u8]| u32::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).ok();
    let (started, mut last) = (Instant::now(), 0);
    // Nine bytes a line: past the end of the file.
    while last < CONSOLE_BYTES as u32 / 8 {
        assert!(started.elapsed() < TIMEOUT, "the guest printed {last} lines");
        sleep(Duration::from_millis(20));
        let seen = content(&vm.console);
        assert!(seen.len() <= CONSOLE_BYTES);
        let lines = seen.split(|byte| *byte == b'\n').filter(|line| line.len() == 8);
        last = lines.filter_map(newest).max().unwrap_or_default();
    }
    assert_eq!(vm.console.metadata().unwrap().len(), CONSOLE_BYTES as u64);
    assert!(content(&vm.console).len() >= CONSOLE_BYTES / 2);
}

#[test]
fn a_vm_that_cannot_be_built_is_reported_in_one_line() {
    if !has_kvm() {
        return;
    }
    let refused = |kernel: File, change: fn(&mut Launcher)| {
        let (status, _, stderr) = start(kernel, change).wait();
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        (status, stderr)
    };
    let expect = |(status, stderr): (Option<i32>, String), code, words: &str| {
        assert_eq!(status, Some(code), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
    };
    expect(refused(with(&[0; 4096]), |_| ()), 2, "give the uncompressed `vmlinux`");
    expect(
        refused(elf(guests::hello()), |vm| vm.spec.control = Fd(999)),
        1,
        "`control` is descriptor 999, which is not open",
    );
    expect(
        refused(elf(guests::hello()), |vm| vm.spec.control = vm.spec.console.unwrap()),
        1,
        "another field",
    );
    expect(
        refused(elf(guests::hello()), |vm| {
            let file = with(b"");
            fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
            vm.spec.console = Some(Fd(file.into_raw_fd()));
        }),
        2,
        "give it a length",
    );
    expect(
        refused(elf(guests::hello()), |vm| vm.spec.tee = Tee::Snp),
        1,
        "cannot boot a kernel directly",
    );
    expect(
        refused(elf(guests::hello()), |vm| vm.scratch(with(b"12345")).unwrap()),
        2,
        "scratch",
    );
    expect(
        refused(elf(guests::hello()), |vm| vm.initrd(with(&[1; 127 << 20])).unwrap()),
        2,
        "give the guest more memory",
    );
}

#[test]
fn an_invalid_command_line_or_spec_is_a_usage_error() {
    let run = |arguments: &[&str], stdin: &str| {
        let output = Command::new(VMM)
            .args(arguments)
            .stdin(Stdio::from(with(stdin.as_bytes())))
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for arguments in [&[][..], &["--spec-fd"], &["--spec-fd", "x"], &["--spec-fd", "3", "4"], &["--help"]] {
        let (status, stderr) = run(arguments, "");
        assert_eq!(status, Some(1));
        assert!(stderr.contains("usage: casemate-vmm --spec-fd N"), "{stderr}");
    }
    let (status, stderr) = run(&["--spec-fd", "0"], "{}");
    assert_eq!((status, stderr.contains("descriptors from 3 on")), (Some(1), true), "{stderr}");
}

#[test]
fn a_spec_that_ends_early_ends_the_vmm() {
    for (spec, reason) in [
        ("".to_owned(), "nothing was written"),
        (r#"{"vcpus":1,"mem"#.to_owned(), "the spec is not valid: EOF"),
        (" ".repeat(SPEC_MAX_BYTES + 1), "longer than 65536 bytes"),
    ] {
        let (reader, mut writer) = std::io::pipe().unwrap();
        fcntl(&reader, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let vmm = Command::new(VMM)
            .args(["--spec-fd", &reader.as_raw_fd().to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        writer.write_all(spec.as_bytes()).unwrap();
        drop(writer);
        let output = vmm.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
        assert!(
            stderr.starts_with("casemate-vmm: the VM's spec: ") && stderr.contains(reason),
            "{stderr}"
        );
    }
}
