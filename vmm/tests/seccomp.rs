//! Every thread of a VMM through what it does in the life of a VM, under its system call filter: with the whole table,
//! and again without each of its rules, when it must die of SIGSYS. A rule without which all goes well is one too many.
//!
//! No libtest here: the program runs itself as the VMM under test.

mod elf;
mod launcher;
mod script;

use casemate_vmm::{
    exit_code, program,
    seccomp::{Filter, Filters, MAIN, Rule, VCPU},
};
use launcher::{Control, Launcher, Outcome};
use script::{Part, Script, block_header, vsock_packet};
use std::{
    fmt,
    fs::File,
    io::{Read, Seek, Write},
    os::unix::{
        net::{UnixListener, UnixStream},
        process::ExitStatusExt,
    },
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};
use vm_spec::{
    control::{Reply, Request},
    layout::{SERIAL_PORT, VirtioSlot},
};

/// In the environment of a VMM under test: the rule it has to do without, as `table:name`.
const WITHOUT: &str = "CASEMATE_TEST_WITHOUT";
/// A VMM that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);
const SIGSYS: i32 = 31;
/// The first port that the VMM gives to a client of the host, and the guest's.
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
        vcpu: all_but("vcpu", VCPU),
    }
}

fn test() -> Outcome<()> {
    let lives: [(&str, Life); 2] = [("busy", busy_life), ("storm", storming_life)];
    for (name, life) in lives {
        let death = life("nothing")?;
        if !matches!(death, Death::Natural) {
            return Err(format!("with the whole table, the {name} life ended by {death}").into());
        }
        println!("ok: a {name} life under the filters");
    }
    let mut idle = Vec::new();
    for (table, rules) in [("main", MAIN), ("vcpu", VCPU)] {
        for rule in rules {
            let rule_name = format!("{table}:{}", rule.name);
            if let Some(why) = rule.untested {
                println!("not tried: {rule_name}, {why}");
                continue;
            }
            let needed_in = lives.iter().find_map(|(name, life)| match life(&rule_name) {
                Ok(Death::Natural) => None,
                Ok(Death::Filter) => Some(Ok(*name)),
                Ok(other) => Some(Err(format!("without {rule_name}, the {name} life ended by {other}"))),
                Err(e) => Some(Err(format!("without {rule_name}: {e}"))),
            });
            match needed_in {
                Some(needed) => println!("ok: {rule_name} is needed in a {} life", needed?),
                None => idle.push(rule_name),
            }
        }
    }
    if idle.is_empty() {
        Ok(())
    } else {
        Err(format!("no life needs {idle:?}").into())
    }
}

/// A life that a VMM leads without a rule.
type Life = fn(&str) -> Outcome<Death>;

/// How a VMM under test ended.
enum Death {
    /// As its guest wanted.
    Natural,
    /// By its filter.
    Filter,
    /// Otherwise, with exit code or signal, and what it said.
    Other(String),
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Natural => f.write_str("its guest's will"),
            Self::Filter => f.write_str("its filter"),
            Self::Other(words) => f.write_str(words),
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
        let (console, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
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

    /// Waits for the end, which is natural with exit code `code`.
    fn end(mut self, code: i32) -> Outcome<Death> {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if start.elapsed() > PATIENCE {
                return Err("it hangs".into());
            }
            sleep(Duration::from_millis(1));
        };
        Ok(match (status.code(), status.signal()) {
            (Some(c), _) if c == code => Death::Natural,
            (_, Some(SIGSYS)) => Death::Filter,
            _ => Death::Other(format!("{status}: {}", text(&self.stderr)?)),
        })
    }

    fn wait_for_output(&mut self) -> Outcome<()> {
        while text(&self.console)?.is_empty() {
            if self.child.try_wait()?.is_some() {
                return Err("it ended".into());
            }
            sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// Disks, entropy, streams, console, pauses, counters; it ends with a fault of the guest that KVM cannot serve.
fn busy_life(without: &str) -> Outcome<Death> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("vsock");
    let mut vm = Vm::start(without, &busy_script(), |vm| {
        vm.spec.layers = true;
        vm.spec.rng = true;
        vm.scratch(with(&[0; 8192])?)?;
        vm.vsock(UnixListener::bind(&path)?.into())
    })?;
    // Where a filter kills the VMM the host's side fails somewhere; only how it ended counts.
    let _ = hosts_side(&mut vm, &path);
    vm.end(5)
}

fn busy_script() -> Script {
    let mut script = Script::default();
    // IER: the console's interrupt.
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

    let mut queues = script.set_up(VirtioSlot::Vsock, 3, 0);
    let [rx, tx, _] = &mut queues[..] else {
        unreachable!("three queues")
    };
    for _ in 0..6 {
        script.submit(rx, &[Part::In(1024)]);
    }
    // REQUEST comes, RESPONSE and data go, data come, SHUTDOWN goes, RST comes. Then the same up to the RESPONSE, and the
    // driver is gone and leaves the stream to the device.
    script.wait_used(rx, 1);
    script.exchange(tx, &[Part::Out(&vsock_packet(PORTS, 2, &[]))]);
    script.exchange(tx, &[Part::Out(&vsock_packet(PORTS, 5, b"ping"))]);
    script.wait_used(rx, 2);
    script.exchange(tx, &[Part::Out(&vsock_packet(PORTS, 4, &[]))]);
    script.wait_used(rx, 4);
    script.exchange(tx, &[Part::Out(&vsock_packet((PORTS.0, PORTS.1 + 1), 2, &[]))]);
    script.reset(VirtioSlot::Vsock);
    script.out(SERIAL_PORT, b'\n');
    // Nobody can execute from device registers.
    script.jump(VirtioSlot::Layers.base() as u32);
    script
}

fn hosts_side(vm: &mut Vm, vsock: &Path) -> Outcome<()> {
    vm.wait_for_output()?;
    let layer = with(&[1; 4096])?;
    vm.control.append(&[layer])?;
    for request in [Request::Stats, Request::Pause, Request::State, Request::Resume] {
        vm.control.ask(&request, &[])?;
    }
    let mut first = connect(vsock)?;
    expect(&mut first, b"OK 1073741824\nping")?;
    first.write_all(b"pong")?;
    if first.read(&mut [0])? != 0 {
        return Err("the first stream goes on".into());
    }
    let mut second = connect(vsock)?;
    expect(&mut second, b"OK 1073741825\n")
}

fn connect(vsock: &Path) -> Outcome<UnixStream> {
    let mut stream = UnixStream::connect(vsock)?;
    stream.set_read_timeout(Some(PATIENCE))?;
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

/// A guest that exits as fast as it can until it is slowed down.
fn storming_life(without: &str) -> Outcome<Death> {
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
    vm.end(0)
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
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
