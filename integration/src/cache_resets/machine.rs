//! The machine: QEMU's microvm with the guest's kernel, always emulated, until its power is cut.

use super::{disk::Disk, nbd};
use crate::testbed::{host, machine::TCG_CPU};
use anyhow::{Context, Result, bail, ensure};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

const MEMORY_MIB: u32 = 512;
/// Limit for a boot, the check of the cache, and each conversion: two seconds on an idle host.
const LIMIT: Duration = Duration::from_secs(180);
const CONSOLE: &str = "console.log";
const ERRORS: &str = "qemu.err";
/// Calibration of the TSC fails without the devices that a microvm lacks, and the check of the timer on a busy host.
const CMDLINE: &str = "console=ttyS0 quiet panic=-1 reboot=t tsc_early_khz=1000000 no_timer_check CASEMATE_TEST_ROLE=power";

/// What a machine is made of.
pub struct Machine {
    /// The guest's kernel, an ELF file.
    pub kernel: PathBuf,
    /// With the program.
    pub initrd: PathBuf,
    /// For the machine's files.
    pub dir: PathBuf,
}

/// How a machine is booted, and when its power is cut.
#[derive(Debug)]
pub struct Boot {
    /// Of the program's choices.
    pub seed: u64,
    /// Options of the disk's mount.
    pub mount: &'static str,
    /// Hundredths of a second after which the kernel writes by itself.
    pub writeback: u32,
    /// When the power is cut.
    pub cut: Cut,
}

/// When the power is cut.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// So long after the start, wherever the boot is.
    Started(Duration),
    /// So long after the check of the cache.
    Checked(Duration),
    /// As soon as so many layers were made.
    Made(u32),
}

impl Machine {
    /// Boots, gives each line of the console to `take`, and ends QEMU. A line without an end is none.
    ///
    /// # Errors
    /// What `take` says, or if the machine ends by itself or hangs.
    pub fn run(&self, boot: &Boot, disk: &mut Disk, random: &mut fastrand::Rng, take: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
        let sockets = tempfile::tempdir().context("cannot create a directory for a socket")?;
        let socket = sockets.path().join("disk");
        let listener = UnixListener::bind(&socket).context("cannot listen for the disk's client")?;
        let mut log = File::create(self.dir.join(CONSOLE)).context("cannot create the console's log")?;
        let errors = File::create(self.dir.join(ERRORS)).context("cannot create the file of QEMU's messages")?;
        let mut command = self.command(boot, &socket);
        let mut qemu = Qemu(command.stderr(errors).spawn().context("cannot start qemu-system-x86_64")?);
        let console = qemu.0.stdout.take().context("QEMU has no standard output")?;
        let (sender, lines) = channel();
        thread::scope(|scope| {
            scope.spawn(move || read_lines(console, &sender));
            let disk = scope.spawn(|| serve(&listener, disk, random));
            let mut take = |line: &str| {
                let _ = log.write_all(line.as_bytes());
                take(line.trim_end_matches('\n'))
            };
            let ended = until_cut(boot.cut, &lines, &mut take);
            qemu.cut();
            // A client that never came is not waited for.
            let _ = std::os::unix::net::UnixStream::connect(&socket);
            // What it said before the cut counts, also what was read after it.
            let rest = lines.iter().try_for_each(|line| take(&line));
            let disk = disk.join().map_err(|_| anyhow::anyhow!("the disk panicked"))?;
            // A disk that fails ends QEMU, whose own words come next.
            disk?;
            let ended = ended.with_context(|| host::tail(&fs::read(self.dir.join(ERRORS)).unwrap_or_default(), 1000))?;
            rest?;
            match ended {
                Ended::Cut => Ok(()),
                Ended::ByItself => bail!("the machine ended by itself"),
            }
        })
    }

    fn command(&self, boot: &Boot, socket: &Path) -> Command {
        let Boot {
            seed, mount, writeback, ..
        } = boot;
        // Dies with this program, whichever way that exits.
        let mut q = Command::new("setpriv");
        q.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        q.args(["-machine", "microvm,acpi=on", "-accel", "tcg,thread=multi", "-cpu", TCG_CPU]);
        q.args(["-m", &MEMORY_MIB.to_string(), "-smp", "1"]);
        q.args(["-display", "none", "-no-reboot", "-nodefaults", "-serial", "stdio"]);
        // Under SeaBIOS, which microvm has by default, about one start in ten ends in a triple fault before the kernel's first word.
        q.args(["-bios", "qboot.rom"]);
        q.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(&self.initrd);
        q.arg("-append").arg(format!(
            "{CMDLINE} CASEMATE_TEST_SEED={seed} CASEMATE_TEST_MOUNT={mount} CASEMATE_TEST_WRITEBACK={writeback}"
        ));
        // The disk's own cache is the only one between the guest and what survives.
        q.args([
            "-drive",
            &format!("file=nbd:unix:{},format=raw,if=none,id=disk,cache=none", socket.display()),
        ]);
        q.args(["-device", "virtio-blk-device,drive=disk,write-cache=on"]);
        q.stdin(Stdio::null()).stdout(Stdio::piped());
        q
    }
}

/// QEMU's process, which ends with this.
struct Qemu(Child);

impl Qemu {
    fn cut(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.cut();
    }
}

fn serve(listener: &UnixListener, disk: &mut Disk, random: &mut fastrand::Rng) -> Result<()> {
    let (stream, _) = listener.accept().context("cannot accept the disk's client")?;
    nbd::serve(&stream, disk, random).context("the disk cannot be served")
}

fn read_lines(console: ChildStdout, lines: &Sender<String>) {
    let mut console = BufReader::new(console);
    loop {
        let mut line = Vec::new();
        match console.read_until(b'\n', &mut line) {
            Ok(1..) if line.ends_with(b"\n") => {}
            _ => return,
        }
        if lines.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
            return;
        }
    }
}

/// Why there are no more lines.
enum Ended {
    Cut,
    ByItself,
}

/// Takes lines until it is time to cut the power.
fn until_cut(cut: Cut, lines: &Receiver<String>, take: &mut dyn FnMut(&str) -> Result<()>) -> Result<Ended> {
    let started = Instant::now();
    let mut at = match cut {
        Cut::Started(after) => Some(started + after),
        Cut::Checked(_) | Cut::Made(_) => None,
    };
    let (mut made, mut heard) = (0, started);
    loop {
        let until = at.unwrap_or(heard + LIMIT);
        let line = match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                ensure!(at.is_some(), "the machine has said nothing for {LIMIT:?}");
                return Ok(Ended::Cut);
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(Ended::ByItself),
        };
        take(&line)?;
        heard = Instant::now();
        match cut {
            Cut::Checked(after) if line.contains("cache: checked") => at = Some(heard + after),
            Cut::Made(count) if line.contains("cache: made") => {
                made += 1;
                if made == count {
                    return Ok(Ended::Cut);
                }
            }
            _ => {}
        }
    }
}
