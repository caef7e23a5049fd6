//! Runs complete VMs under the seccomp filters: with all rules, and again without each rule, which must kill the VMM with
//! SIGSYS. A rule without which both workloads succeed is unnecessary, and the test fails.
//!
//! Without libtest, because the program executes itself as the VMM under test.

mod elf;
mod launcher;
mod script;
mod tap;

use casemate_vmm::{
    exit_code, program,
    seccomp::{DISK, Filter, Filters, MAIN, NET, Rule, VCPU, VCPU_CONVERSIONS},
};
use launcher::{Control, Launcher, Outcome};
use script::{Part, Script, block_header, vsock_packet};
use std::{
    fmt,
    fs::File,
    io::{Read, Seek, Write},
    os::unix::{
        fs::FileExt,
        net::{UnixListener, UnixStream},
        process::ExitStatusExt,
    },
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};
use tap::Tap;
use vm_spec::{
    Network, Volumes,
    control::{Reply, Request},
    layout::{SERIAL_PORT, VirtioSlot},
};

/// Environment variable of a VMM under test: the rule to omit, as `table:name`.
const WITHOUT: &str = "CASEMATE_TEST_WITHOUT";
/// Limit for a whole workload.
const TIMEOUT: Duration = Duration::from_secs(120);
const SIGSYS: i32 = 31;
/// Omits no rule.
const NOTHING: &str = "nothing";
/// Bytes of the disk in a volume slot.
const VOLUME_BYTES: usize = 4096;
/// A frame of a kind that no host answers.
const FRAME: [u8; 60] = [0x88; 60];
/// The guest's port, and the first port that the VMM assigns to a client of the host.
const PORTS: (u32, u32) = (1024, 1 << 30);

fn main() -> ExitCode {
    if let Ok(without) = std::env::var(WITHOUT) {
        let filters = filters(&without);
        return exit_code::report(program::run(std::env::args_os().skip(1), filters));
    }
    if let Err(e) = File::options().read(true).write(true).open("/dev/kvm") {
        println!("SKIPPED: /dev/kvm cannot be opened here: {e}");
        return ExitCode::SUCCESS;
    }
    match test() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("FAILED: {e}");
            ExitCode::FAILURE
        }
    }
}

fn filters(without: &str) -> Filters {
    let all_but = |table: &str, rules: &'static [Rule]| {
        let kept = rules.iter().filter(|rule| format!("{table}:{}", rule.name) != without);
        Filter::allowing(kept).expect("the table compiles")
    };
    Filters {
        main: all_but("main", MAIN),
        net: all_but("net", NET),
        disk: all_but("disk", DISK),
        vcpu: all_but("vcpu", VCPU),
        vcpu_conversions: Filter::allowing(VCPU.iter().chain(VCPU_CONVERSIONS)).expect("the table compiles"),
    }
}

fn test() -> Outcome<()> {
    let has_tap = match Tap::new() {
        Ok(_) => true,
        Err(e) => {
            println!("SKIPPED: the network device: no TAP can be made here: {e}");
            false
        }
    };
    let workloads: [(&str, Workload); 2] = [("devices", devices_workload), ("exit storm", storm_workload)];
    for (name, workload) in workloads {
        let exit = workload(NOTHING)?;
        if !matches!(exit, Exit::Expected) {
            return Err(format!("workload {name:?} with all rules: {exit}").into());
        }
        println!("ok: workload {name:?} with all rules");
    }
    let mut unnecessary = Vec::new();
    for (table, rules) in [("main", MAIN), ("net", NET), ("disk", DISK), ("vcpu", VCPU)] {
        for rule in rules {
            let rule_name = format!("{table}:{}", rule.name);
            if let Some(why) = rule.untested {
                println!("not tested: {rule_name}: {why}");
                continue;
            }
            if !has_tap && table == "net" {
                continue;
            }
            let needed_by = workloads.iter().find_map(|(name, workload)| match workload(&rule_name) {
                Ok(Exit::Expected) => None,
                Ok(Exit::Filter) => Some(Ok(*name)),
                Ok(other) => Some(Err(format!("workload {name:?} without {rule_name}: {other}"))),
                Err(e) => Some(Err(format!("workload {name:?} without {rule_name}: {e}"))),
            });
            match needed_by {
                Some(name) => println!("ok: workload {:?} needs {rule_name}", name?),
                None => unnecessary.push(rule_name),
            }
        }
    }
    if unnecessary.is_empty() {
        Ok(())
    } else {
        Err(format!("no workload needs {unnecessary:?}").into())
    }
}

/// Runs a VM without the named rule.
type Workload = fn(&str) -> Outcome<Exit>;

/// How a VMM under test exited.
enum Exit {
    /// With the expected exit code.
    Expected,
    /// Killed by its seccomp filter.
    Filter,
    /// Otherwise: exit code or signal, and standard error.
    Other(String),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expected => f.write_str("expected exit code"),
            Self::Filter => f.write_str("killed by SIGSYS"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

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

impl Vm {
    fn start(without: &str, script: &Script, change: impl FnOnce(&mut Launcher) -> Outcome<()>) -> Outcome<Self> {
        let (console, stderr) = (with(&[0; 4096])?, tempfile::tempfile()?);
        let mut launcher = Launcher::new(with(&elf::executable(script::guest()))?, console.try_clone()?.into())?;
        launcher.cmdline("quiet");
        launcher.initrd(with(script.bytes())?)?;
        change(&mut launcher)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.env(WITHOUT, without);
        let (child, control) = launcher.start(command, Stdio::from(stderr.try_clone()?))?;
        Ok(Self {
            child,
            control,
            console,
            stderr,
        })
    }

    /// Waits for the VMM to exit, with exit code `code` expected.
    fn wait(mut self, code: i32) -> Outcome<Exit> {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if start.elapsed() > TIMEOUT {
                return Err("the VMM hangs".into());
            }
            sleep(Duration::from_millis(1));
        };
        Ok(match (status.code(), status.signal()) {
            (Some(c), _) if c == code => Exit::Expected,
            (_, Some(SIGSYS)) => Exit::Filter,
            _ => Exit::Other(format!("{status}: {}", text(&self.stderr)?)),
        })
    }

    fn wait_for_output(&mut self) -> Outcome<()> {
        while text(&self.console)?.is_empty() {
            if self.child.try_wait()?.is_some() {
                return Err("the VMM exited".into());
            }
            sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// Disks, a volume, entropy, network, vsock streams, console, pause, statistics; ends with an instruction fetch that KVM cannot emulate.
fn devices_workload(without: &str) -> Outcome<Exit> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("vsock");
    let tap = Tap::new().ok();
    let mut vm = Vm::start(without, &devices_script(tap.is_some()), |vm| {
        vm.spec.network = Some(Network { mac: [2, 0, 0, 0, 0, 1] });
        vm.spec.layers = true;
        vm.spec.volumes = Volumes {
            slots: 1.try_into()?,
            file_bytes: VOLUME_BYTES as u64,
        };
        vm.spec.rng = true;
        vm.scratch(with(&[0; 8192])?)?;
        vm.vsock(UnixListener::bind(&path)?.into())
    })?;
    let served = host_side(&mut vm, &path, tap.as_ref());
    // Fails somewhere if a filter kills the VMM; then only the VMM's exit counts.
    if without == NOTHING {
        served?;
    }
    vm.wait(5)
}

fn devices_script(has_tap: bool) -> Script {
    let mut script = Script::default();
    // IER: enables the console's interrupt.
    for (port, value) in [(SERIAL_PORT + 1, 2), (SERIAL_PORT, b'x'), (SERIAL_PORT, b'\n')] {
        script.out(port, value);
    }
    let mut disk = script.set_up(VirtioSlot::Scratch, 1, 1 << 13).remove(0);
    let range = [&0u64.to_le_bytes()[..], &8u32.to_le_bytes(), &[0; 4]].concat();
    for parts in [
        [Part::Out(&block_header(1, 0)), Part::Out(&[7; 512]), Part::In(1)],
        [Part::Out(&block_header(0, 0)), Part::In(512), Part::In(1)],
        [Part::Out(&block_header(11, 0)), Part::Out(&range), Part::In(1)],
    ] {
        script.exchange(&mut disk, &parts);
    }
    let mut entropy = script.set_up(VirtioSlot::Rng, 1, 0).remove(0);
    script.exchange(&mut entropy, &[Part::In(64)]);

    let mut volume = script.set_up(VirtioSlot::Volume0, 1, 1 << 9).remove(0);
    // The capacity in sectors, once the host has attached a disk.
    script.wait(VirtioSlot::Volume0.base() as u32 + 0x100, (VOLUME_BYTES / 512) as u16);
    script.exchange(&mut volume, &[Part::Out(&block_header(1, 0)), Part::Out(&[7; 512]), Part::In(1)]);
    script.exchange(&mut volume, &[Part::Out(&block_header(4, 0)), Part::In(1)]);

    if has_tap {
        let mut queues = script.set_up(VirtioSlot::Network, 2, 0);
        let [rx, tx] = &mut queues[..] else { unreachable!("two queues") };
        script.exchange(rx, &[Part::In(1024)]);
        script.exchange(tx, &[Part::Out(&[&[0; 12][..], &FRAME].concat())]);
    }

    let mut queues = script.set_up(VirtioSlot::Vsock, 3, 0);
    let [rx, tx, _] = &mut queues[..] else {
        unreachable!("three queues")
    };
    for _ in 0..6 {
        script.submit(rx, &[Part::In(1024)]);
    }
    // Receives REQUEST, sends RESPONSE and data, receives data, sends SHUTDOWN, receives RST. Then again up to RESPONSE, and a
    // reset with the stream still open.
    script.wait_used(rx, 1);
    script.exchange(tx, &[Part::Out(&vsock_packet(PORTS, 2, &[]))]);
    script.exchange(tx, &[Part::Out(&vsock_packet(PORTS, 5, b"ping"))]);
    script.wait_used(rx, 2);
    script.exchange(tx, &[Part::Out(&vsock_packet(PORTS, 4, &[]))]);
    script.wait_used(rx, 4);
    script.exchange(tx, &[Part::Out(&vsock_packet((PORTS.0, PORTS.1 + 1), 2, &[]))]);
    script.reset(VirtioSlot::Vsock);
    script.out(SERIAL_PORT, b'\n');
    // KVM cannot execute from device registers.
    script.jump(VirtioSlot::Layers.base() as u32);
    script
}

fn host_side(vm: &mut Vm, vsock: &Path, tap: Option<&Tap>) -> Outcome<()> {
    vm.wait_for_output()?;
    if let Some(tap) = tap {
        // The second takes the place of the first, and is the same.
        for _ in 0..2 {
            vm.control.ask(&Request::AttachTap, &[tap.file.try_clone()?])?;
            sleep(Duration::from_millis(5));
        }
        tap.send(&[0xff; 60])?;
    }
    let layer = with(&[1; 4096])?;
    vm.control.append(&[layer])?;
    let volume = with(&[0; VOLUME_BYTES])?;
    let attach = Request::AttachDisk { slot: 0, read_only: false };
    vm.control.ask(&attach, &[volume.try_clone()?])?;
    for request in [Request::Stats, Request::Pause, Request::State, Request::Resume] {
        vm.control.ask(&request, &[])?;
    }
    let mut first = connect(vsock)?;
    expect(&mut first, b"OK 1073741824\nping")?;
    let mut written = [0; 512];
    volume.read_exact_at(&mut written, 0)?;
    if written != [7; 512] {
        return Err("the guest's sector has not arrived".into());
    }
    vm.control.ask(&Request::DetachDisk { slot: 0 }, &[])?;
    if tap.is_some_and(|tap| !tap.has_seen(&FRAME)) {
        return Err("the guest's frame has not arrived".into());
    }
    first.write_all(b"pong")?;
    if first.read(&mut [0])? != 0 {
        return Err("the first stream is still open".into());
    }
    let mut second = connect(vsock)?;
    expect(&mut second, b"OK 1073741825\n")
}

fn connect(vsock: &Path) -> Outcome<UnixStream> {
    let mut stream = UnixStream::connect(vsock)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(format!("CONNECT {}\n", PORTS.0).as_bytes())?;
    Ok(stream)
}

fn expect(stream: &mut UnixStream, wanted: &[u8]) -> Outcome<()> {
    let mut answer = vec![0; wanted.len()];
    stream.read_exact(&mut answer)?;
    if answer == wanted {
        Ok(())
    } else {
        Err(format!("the stream begins with {answer:?}").into())
    }
}

/// A guest that exits in an endless loop until it is throttled.
fn storm_workload(without: &str) -> Outcome<Exit> {
    let mut script = Script::default();
    script.out(SERIAL_PORT, b'\n');
    script.storm();
    let mut vm = Vm::start(without, &script, |_| Ok(()))?;
    let stopped = (|| -> Outcome<()> {
        vm.wait_for_output()?;
        loop {
            match vm.control.ask(&Request::Stats, &[])? {
                Reply::Stats(stats) if stats.watchdog.throttled > 0 => break,
                _ => sleep(Duration::from_millis(10)),
            }
        }
        vm.control.ask(&Request::Stop, &[])?;
        Ok(())
    })();
    drop(stopped);
    vm.wait(0)
}

fn with(bytes: &[u8]) -> Outcome<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(bytes)?;
    Ok(file)
}

fn text(mut file: &File) -> Outcome<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    // Zeros follow what a console's file has received.
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
