//! One running L1: a QEMU process, its console, and the commands that its init accepts.

use super::{accel::Accel, build::Image, qmp::Qmp};
use crate::testbed::host;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// Beginning of L1's kernel command line.
pub const KERNEL_ARGUMENTS: &str = "console=ttyS0 panic=-1 quiet";
/// L1's memory. containerd uses 0.3 GiB; the rest is for tmpfs and the guests.
const MEMORY_MIB: u32 = 3072;
/// Avoids a fault of QEMU's SVM emulation. `helper_vmrun` injects an interrupt and leaves its vector in
/// `exception_index`; if a kick of the vCPU's thread arrives before the VM's next exit, the vector is delivered once more,
/// whether the VM has interrupts enabled or not. Such a kick is a late one: its sender has made an interrupt pending and
/// loses the processor before it kicks, usually to the thread that it wakes. A batch thread does not preempt others when it
/// wakes (sched(7)).
pub(super) const KICKS_IN_TIME: [&str; 3] = ["chrt", "--batch", "0"];
/// EPYC and not `max`: wide vectors are emulated at a quarter of the speed. The flags that TCG lacks are listed to avoid its warnings.
pub(crate) const TCG_CPU: &str = "EPYC,+svm,+npt,-fxsr-opt,-misalignsse,-osvw,-topoext,-nrip-save,-xsavec";
/// Capacity of the job disk: a restored machine keeps the capacity of the moment it was saved.
pub const JOB_DISK_BYTES: u64 = 640 << 20;
/// A boot to "containerd answers" takes ten seconds on an idle host.
const BOOT_DEADLINE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(30);
/// Time limit for powering off.
const OFF_DEADLINE: Duration = Duration::from_secs(20);

/// Files of a machine in its directory.
pub const CONSOLE: &str = "console.log";
/// Output of the story while it runs.
pub const LIVE: &str = "live.log";
/// Serial consoles of the VMs inside, while they grow.
pub const VMM_CONSOLE: &str = "vmm-console.log";
/// /job/out as a tar.
pub const RESULTS: &str = "results.tar";

/// Backing of the RAM.
pub enum Memory<'a> {
    /// A shared file, which keeps what the machine writes.
    Kept(&'a Path),
    /// A private mapping of a file: what the machine writes goes to a copy.
    Copied(&'a Path),
    /// In anonymous memory.
    Anonymous,
}

/// The configuration of a machine.
pub struct Start<'a> {
    /// Disk, kernel, initrd.
    pub image: &'a Image,
    /// Processors.
    pub accel: &'a Accel,
    /// RAM.
    pub memory: Memory<'a>,
    /// The second disk: a tar, padded to [`JOB_DISK_BYTES`].
    pub job: &'a Path,
    /// Device state to resume from; absent: boots.
    pub resume: Option<&'a Path>,
    /// Directory for the machine's files.
    pub dir: &'a Path,
}

/// Time limits of a command.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Without growth of console, live output or the VMs' consoles.
    pub quiet: Duration,
    /// In total.
    pub total: Duration,
}

/// Why a command was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stuck {
    /// Nothing was written for too long.
    #[error("no output for {0:?}")]
    Quiet(Duration),
    /// It took too long, though it kept writing.
    #[error("not done after {0:?}")]
    Limit(Duration),
    /// QEMU exited: L1 panicked or powered off.
    #[error("the machine exited by itself")]
    Gone,
}

/// A running L1; dropping it kills QEMU.
pub struct Machine {
    child: Child,
    serial: ChildStdin,
    dir: PathBuf,
    /// Directory of the sockets: a socket's path may have 107 bytes only.
    sockets: tempfile::TempDir,
    console_read: u64,
    live_read: u64,
}

impl Machine {
    /// Starts QEMU; the machine boots, or resumes where it was saved.
    pub fn start(start: &Start<'_>) -> Result<Self> {
        std::fs::create_dir_all(start.dir).with_context(|| format!("cannot create {}", start.dir.display()))?;
        let dir = start.dir.canonicalize().context("cannot resolve the machine's directory")?;
        let sockets = tempfile::Builder::new()
            .prefix("casemate-l1-")
            .tempdir()
            .context("cannot create a directory for sockets")?;
        let create = |name: &str| File::create(dir.join(name)).with_context(|| format!("cannot create {name} in {}", dir.display()));
        for name in [LIVE, VMM_CONSOLE, RESULTS] {
            create(name)?;
        }
        let mut child = qemu(start, &dir, sockets.path())
            .stdin(Stdio::piped())
            .stdout(create(CONSOLE)?)
            .stderr(create("qemu.err")?)
            .spawn()
            .context("cannot start qemu-system-x86_64")?;
        let serial = child.stdin.take().context("QEMU has no standard input")?;
        let mut machine = Self {
            child,
            serial,
            dir,
            sockets,
            console_read: 0,
            live_read: 0,
        };
        match start.resume {
            Some(state) => machine.resume(state).with_context(|| machine.qemu_error())?,
            None => {
                let limits = Limits {
                    quiet: BOOT_DEADLINE,
                    total: BOOT_DEADLINE,
                };
                machine
                    .wait_for("L1-READY", limits, &mut |_| ())
                    .with_context(|| format!("L1 did not start: {}", machine.qemu_error()))?;
            }
        }
        Ok(machine)
    }

    fn resume(&mut self, state: &Path) -> Result<()> {
        Qmp::connect(&self.sockets.path().join("qmp"))?.restore(state)?;
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .context("the clock is before 1970")?;
        self.run_command(
            &format!("clock {}", now.as_secs()),
            Limits {
                quiet: OFF_DEADLINE,
                total: OFF_DEADLINE,
            },
            &mut |_| (),
        )?;
        Ok(())
    }

    /// Sends a command to L1's init and waits for the answer, its exit status. `live` receives what the command prints.
    pub fn run_command(&mut self, line: &str, limits: Limits, live: &mut dyn FnMut(&[u8])) -> Result<i32, Stuck> {
        self.send(line)?;
        self.answer(limits, live)
    }

    /// Sends a command to L1's init.
    pub fn send(&mut self, line: &str) -> Result<(), Stuck> {
        self.serial
            .write_all(format!("{line}\n").as_bytes())
            .and_then(|()| self.serial.flush())
            .map_err(|_| Stuck::Gone)
    }

    /// Waits for the answer to the last command.
    pub fn answer(&mut self, limits: Limits, live: &mut dyn FnMut(&[u8])) -> Result<i32, Stuck> {
        let rest = self.wait_for("L1-DONE ", limits, live)?;
        Ok(rest.trim().parse().unwrap_or(-1))
    }

    /// The answer, if it has already arrived.
    pub fn answered(&mut self) -> Option<i32> {
        self.find_on_console("L1-DONE ").map(|rest| rest.trim().parse().unwrap_or(-1))
    }

    /// The rest of the console's next line that contains `word`.
    fn wait_for(&mut self, word: &str, limits: Limits, live: &mut dyn FnMut(&[u8])) -> Result<String, Stuck> {
        let started = Instant::now();
        let (mut size, mut grown) = (self.output_size(), started);
        loop {
            let gone = self.child.try_wait().ok().flatten().is_some();
            let found = self.find_on_console(word);
            live(&self.new_live_output());
            if let Some(rest) = found {
                return Ok(rest);
            }
            if gone {
                return Err(Stuck::Gone);
            }
            let now = self.output_size();
            if now != size {
                (size, grown) = (now, Instant::now());
            }
            if grown.elapsed() > limits.quiet {
                return Err(Stuck::Quiet(limits.quiet));
            }
            if started.elapsed() > limits.total {
                return Err(Stuck::Limit(limits.total));
            }
            std::thread::sleep(POLL);
        }
    }

    fn find_on_console(&mut self, word: &str) -> Option<String> {
        let text = read_from(&self.dir.join(CONSOLE), self.console_read);
        let text = String::from_utf8_lossy(&text);
        // Only complete lines count; a kernel message may precede the word on the same line.
        let at = text.find(word)?;
        let rest = &text[at + word.len()..];
        let end = rest.find('\n')?;
        self.console_read += (at + word.len() + end) as u64;
        Some(rest[..end].to_owned())
    }

    fn new_live_output(&mut self) -> Vec<u8> {
        let bytes = read_from(&self.dir.join(LIVE), self.live_read);
        self.live_read += bytes.len() as u64;
        bytes
    }

    fn output_size(&self) -> u64 {
        let size = |name| std::fs::metadata(self.dir.join(name)).map_or(0, |m| m.len());
        size(CONSOLE) + size(LIVE) + size(VMM_CONSOLE)
    }

    /// Saves the stopped machine's device state and quits QEMU.
    pub fn save(mut self, state: &Path) -> Result<()> {
        let mut qmp = Qmp::connect(&self.sockets.path().join("qmp"))?;
        qmp.save(state)?;
        // QEMU may close the socket before it has answered.
        let _ = qmp.call("quit", serde_json::json!({}));
        self.child.wait().context("cannot wait for QEMU")?;
        Ok(())
    }

    /// The unix socket of the machine's terminal, /dev/hvc0.
    pub fn terminal(&self) -> PathBuf {
        self.sockets.path().join("terminal")
    }

    /// Powers L1 off and waits.
    pub fn off(mut self) {
        let end = Instant::now() + OFF_DEADLINE;
        if self.send("off").is_ok() {
            while Instant::now() < end && !matches!(self.child.try_wait(), Ok(Some(_))) {
                std::thread::sleep(POLL);
            }
        }
    }

    fn qemu_error(&self) -> String {
        let text = std::fs::read(self.dir.join("qemu.err")).unwrap_or_default();
        format!(
            "{} {}",
            host::tail(&text, 1000).trim(),
            host::tail(&std::fs::read(self.dir.join(CONSOLE)).unwrap_or_default(), 1000)
        )
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_from(path: &Path, offset: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(path) {
        let _ = file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_to_end(&mut bytes));
    }
    bytes
}

/// The command line. Device list and order are part of a snapshot's format.
fn qemu(start: &Start<'_>, dir: &Path, sockets: &Path) -> Command {
    // Dies with this program, whichever way that exits.
    let mut q = Command::new("setpriv");
    q.args(["--pdeathsig", "KILL"]);
    if *start.accel != Accel::Kvm {
        q.args(KICKS_IN_TIME);
    }
    q.arg("qemu-system-x86_64");
    match start.accel {
        Accel::Kvm => q.args(["-accel", "kvm", "-cpu", "host"]),
        Accel::Tcg(_) => q.args(["-accel", "tcg,thread=multi", "-cpu", TCG_CPU]),
        Accel::Counted => q.args(["-accel", "tcg,thread=single", "-cpu", TCG_CPU]).args([
            "-icount",
            "shift=1,sleep=off",
            "-seed",
            "1",
            "-rtc",
            "base=2026-01-01,clock=vm",
        ]),
    };
    let file = |share: &str, path: &Path| {
        format!(
            "memory-backend-file,id=m,size={MEMORY_MIB}M,mem-path={},share={share}",
            path.display()
        )
    };
    let backend = match start.memory {
        Memory::Kept(path) => file("on", path),
        Memory::Copied(path) => file("off", path),
        Memory::Anonymous => format!("memory-backend-ram,id=m,size={MEMORY_MIB}M"),
    };
    q.args([
        "-machine",
        "q35,memory-backend=m",
        "-object",
        &backend,
        "-m",
        &MEMORY_MIB.to_string(),
        "-smp",
        &start.accel.processors().to_string(),
    ]);
    q.args(["-display", "none", "-no-reboot", "-nodefaults", "-serial", "stdio"]);
    q.args(["-qmp", &format!("unix:{}/qmp,server=on,wait=off", sockets.display())]);
    q.arg("-kernel")
        .arg(start.image.kernel())
        .arg("-initrd")
        .arg(&start.image.initrd)
        .args(["-append", KERNEL_ARGUMENTS]);
    for disk in [&start.image.disk(), start.job] {
        q.args(["-drive", &format!("file={},format=raw,if=virtio,readonly=on", disk.display())]);
    }
    q.args(["-device", "virtio-serial-pci"]);
    for (id, name) in [("results", RESULTS), ("live", LIVE), ("vmm", VMM_CONSOLE)] {
        q.args(["-chardev", &format!("file,id={id},path={}", dir.join(name).display())]);
        q.args(["-device", &format!("virtserialport,chardev={id},name=casemate.{id}")]);
    }
    q.args([
        "-chardev",
        &format!("socket,id=terminal,path={}/terminal,server=on,wait=off", sockets.display()),
    ]);
    q.args(["-device", "virtconsole,chardev=terminal"]);
    if start.resume.is_some() {
        q.args(["-incoming", "defer"]);
    }
    q
}

/// First line of `qemu-system-x86_64 --version`; a snapshot works with exactly this build.
pub fn qemu_version() -> Result<String> {
    let text = host::run(Command::new("qemu-system-x86_64").arg("--version"))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
