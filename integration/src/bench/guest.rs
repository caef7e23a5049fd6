//! VMs for the boot benchmarks: started, timed until the guest prints a marker, measured, killed.

use super::tools;
use crate::lab::vm::listen_seqpacket;
use anyhow::{Context, Result, bail};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{PipeReader, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const VMM: &str = "/usr/local/bin/casemate-vmm";
const KVM_COUNTERS: &str = "/sys/kernel/debug/kvm";
const MEMORY_MIB: u32 = 128;
/// User and group of the VMM: unprivileged, as under the shim.
const VMM_ID: u32 = 200_000;
const SCRATCH_BYTES: u64 = 64 << 20;
/// A guest that prints nothing for this long hangs: on a busy host a boot takes some seconds.
const MARKER_DEADLINE: Duration = Duration::from_secs(30);
/// A mapping of at least this size is guest memory; glibc reserves 64 MiB for a thread's arena.
const GUEST_MEMORY_KIB: u64 = 96 * 1024;
/// Exits by kind, under the names of KVM's counters (arch/x86/kvm/x86.c, `kvm_vcpu_stats_desc`).
const COUNTERS: [&str; 4] = ["exits", "io_exits", "mmio_exits", "halt_exits"];

/// The optional devices of `casemate-vmm`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// The layer disk, without layers.
    pub layers: bool,
    /// The scratch disk.
    pub scratch: bool,
    /// vsock.
    pub vsock: bool,
    /// The entropy device.
    pub rng: bool,
}

impl Devices {
    /// All devices of a sandbox.
    pub const FULL: Self = Self {
        layers: true,
        scratch: true,
        vsock: true,
        rng: true,
    };
}

/// The VMM that runs the guest.
#[derive(Clone, Copy, Debug)]
pub enum Vmm {
    /// `casemate-vmm` with these devices.
    Casemate(Devices),
    /// `qemu-system-x86_64 -machine microvm`.
    Qemu,
}

/// What to boot.
pub struct Guest<'a> {
    /// ELF kernel.
    pub kernel: &'a Path,
    /// Initramfs.
    pub initrd: &'a Path,
    /// stage0's program, which then starts the kernel in the place of the VMM (`casemate-vmm` only).
    pub stage0: Option<&'a Path>,
    /// Kernel command line.
    pub cmdline: &'a str,
    /// MiB of memory; 128 for the comparisons.
    pub memory: u32,
    /// Digest of the policy, in hex.
    pub host_data: String,
}

impl<'a> Guest<'a> {
    /// A guest with the memory of the comparisons.
    pub fn small(kernel: &'a Path, initrd: &'a Path, cmdline: &'a str) -> Self {
        Self {
            kernel,
            initrd,
            stage0: None,
            cmdline,
            memory: MEMORY_MIB,
            host_data: "00".repeat(32),
        }
    }
}

/// A VMM process; dropping it kills it.
pub struct Started {
    child: Child,
    console: Option<PipeReader>,
    started: Instant,
    /// Path of the host's vsock socket; it exists only if the VM has vsock.
    pub vsock: PathBuf,
    _dir: tempfile::TempDir,
}

/// Measurements of one boot.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// From exec until the guest's marker.
    pub seconds: f64,
    /// KVM's counters by name.
    pub counters: BTreeMap<String, u64>,
    /// Memory besides the guest's, proportional set size, in MiB.
    pub memory_mib: f64,
    /// Guest memory touched, in MiB.
    pub touched_mib: f64,
    /// Threads of the VMM.
    pub threads: usize,
}

impl Started {
    /// Starts a VM.
    pub fn new(vmm: Vmm, guest: &Guest<'_>) -> Result<Self> {
        let dir = tempfile::tempdir().context("cannot create a directory")?;
        let (read, write) = std::io::pipe().context("cannot create a pipe")?;
        let vsock = dir.path().join("vsock");
        let (mut command, files) = match vmm {
            Vmm::Casemate(devices) => casemate(devices, guest, &write.into(), dir.path(), &vsock)?,
            Vmm::Qemu => (qemu(guest, write.into()), Vec::new()),
        };
        command.stdin(Stdio::null());
        let started = Instant::now();
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        drop((files, command));
        Ok(Self {
            child,
            console: Some(read),
            started,
            vsock,
            _dir: dir,
        })
    }

    /// When its VMM was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Waits until the guest's console shows `word`, then stops the VMM and measures it.
    pub fn until(mut self, word: &str) -> Result<Sample> {
        let mut console = self.console.take().context("the console has already been read")?;
        let (speak, heard) = mpsc::channel();
        let wanted = word.to_owned();
        let pid = Pid::from_raw(self.child.id() as i32);
        std::thread::spawn(move || {
            let (mut said, mut bytes) = (Vec::new(), [0; 4096]);
            while let Ok(n @ 1..) = console.read(&mut bytes) {
                said.extend_from_slice(&bytes[..n]);
                if String::from_utf8_lossy(&said).contains(&wanted) {
                    let now = Instant::now();
                    // Stop at once: what the guest does after the marker must not be counted.
                    let _ = kill(pid, Signal::SIGSTOP);
                    let _ = speak.send(Ok(now));
                    return;
                }
            }
            let _ = speak.send(Err(String::from_utf8_lossy(&said).into_owned()));
        });
        match heard.recv_timeout(MARKER_DEADLINE) {
            Ok(Ok(now)) => self.look((now - self.started).as_secs_f64()),
            Ok(Err(said)) => {
                let status = self.child.wait().context("cannot wait for the VMM")?;
                bail!("the VMM exited with {status} before the guest printed {word:?}; it printed: {said:?}")
            }
            Err(_) => bail!("hung: the guest did not print {word:?} within {MARKER_DEADLINE:?}"),
        }
    }

    fn look(&self, seconds: f64) -> Result<Sample> {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let tasks: Vec<String> = names(&process.join("task"))?;
        let (guest, rest) = memory(&std::fs::read_to_string(process.join("smaps")).context("cannot read smaps")?);
        Ok(Sample {
            seconds,
            counters: counters(&tasks)?,
            memory_mib: rest as f64 / 1024.0,
            touched_mib: guest as f64 / 1024.0,
            threads: tasks.len(),
        })
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// KVM's counters of the VM that a thread in `tasks` created: its debugfs directory is named after the thread and a descriptor.
fn counters(tasks: &[String]) -> Result<BTreeMap<String, u64>> {
    let vms = names(Path::new(KVM_COUNTERS))?;
    let vm = vms
        .iter()
        .find(|name| {
            name.split_once('-')
                .is_some_and(|(thread, _)| tasks.iter().any(|task| task == thread))
        })
        .context("KVM has no counters for this process")?;
    let read = |name: &str| -> Result<(String, u64)> {
        let text =
            std::fs::read_to_string(Path::new(KVM_COUNTERS).join(vm).join(name)).with_context(|| format!("KVM has no counter {name}"))?;
        Ok((name.to_owned(), text.trim().parse().context("a counter is not a number")?))
    };
    COUNTERS.into_iter().map(read).collect()
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    Ok(entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect())
}

/// KiB of guest memory and of everything else, as proportional set size (Documentation/filesystems/proc.rst, smaps).
pub fn memory(smaps: &str) -> (u64, u64) {
    let (mut size, mut guest, mut rest) = (0, 0, 0);
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(key), Some(Ok(kib))) = (words.next(), words.next().map(str::parse::<u64>)) else {
            continue;
        };
        match key {
            "Size:" => size = kib,
            "Pss:" if size >= GUEST_MEMORY_KIB => guest += kib,
            "Pss:" => rest += kib,
            _ => {}
        }
    }
    (guest, rest)
}

/// `casemate-vmm`, and the descriptors that it inherits.
fn casemate(devices: Devices, guest: &Guest<'_>, console: &OwnedFd, dir: &Path, vsock: &Path) -> Result<(Command, Vec<OwnedFd>)> {
    let mut files = Vec::new();
    let mut inherit = |file: OwnedFd| -> Result<i32> {
        fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).context("cannot make a descriptor inheritable")?;
        let number = file.as_raw_fd();
        files.push(file);
        Ok(number)
    };
    let open = |path: &Path| File::open(path).with_context(|| format!("cannot open {}", path.display()));
    let sha256 = |path: &Path| match guest.stage0 {
        // Only stage0 looks at them.
        Some(_) => guest_image::sha256_file(path).map(hex::encode),
        None => Ok("00".repeat(32)),
    };
    let payload = json!({
        "kernel": inherit(open(guest.kernel)?.into())?,
        "kernel_sha256": sha256(guest.kernel)?,
        "initrd": inherit(open(guest.initrd)?.into())?,
        "initrd_sha256": sha256(guest.initrd)?,
        "cmdline": guest.cmdline,
    });
    let boot = match guest.stage0 {
        None => json!({ "direct": payload }),
        Some(program) => json!({ "verified": { "stage0": inherit(open(program)?.into())?, "payload": payload } }),
    };
    let mut spec = json!({
        "vcpus": 1,
        "memory": guest.memory,
        "boot": boot,
        "tee": "plain",
        "host_data": guest.host_data,
        "console": inherit(console.try_clone().context("cannot share the console")?)?,
        "control": inherit(listen_seqpacket(&dir.join("control"))?)?,
        "layers": devices.layers,
        "rng": devices.rng,
        "identity": { "uid": VMM_ID, "gid": VMM_ID },
    });
    if devices.scratch {
        let file = tempfile::tempfile().context("cannot create the scratch disk")?;
        file.set_len(SCRATCH_BYTES).context("cannot size the scratch disk")?;
        spec["scratch"] = json!({ "file": inherit(file.into())? });
    }
    if devices.vsock {
        let listener = UnixListener::bind(vsock).context("cannot listen for vsock connections")?;
        spec["vsock"] = json!({ "listener": inherit(listener.into())? });
    }
    let mut file = tempfile::tempfile().context("cannot create the spec's file")?;
    file.write_all(spec.to_string().as_bytes())
        .and_then(|()| file.rewind())
        .context("cannot write the spec")?;
    let number = inherit(file.into())?;
    let mut command = Command::new(VMM);
    command.args(["--spec-fd", &number.to_string()]);
    Ok((command, files))
}

/// The leanest configuration with which QEMU boots an ELF kernel: no device but the serial port, and qboot instead of SeaBIOS.
/// With ACPI on, a kernel entered by PVH stops before its console works.
fn qemu(guest: &Guest<'_>, console: OwnedFd) -> Command {
    let mut q = tools::command("qemu-system-x86_64");
    q.args([
        "-L",
        tools::DATA,
        "-machine",
        "microvm,acpi=off,x-option-roms=off",
        "-accel",
        "kvm",
        "-cpu",
        "host",
        "-smp",
        "1",
    ])
    .args(["-m", &guest.memory.to_string(), "-bios", "qboot.rom"])
    .args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-serial",
        "stdio",
    ])
    .arg("-kernel")
    .arg(guest.kernel)
    .arg("-initrd")
    .arg(guest.initrd)
    .args(["-append", guest.cmdline])
    .stdout(console);
    q
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_memory_is_separated_from_other_memory() {
        let smaps = "55d0-55d1 r-xp 0 00:00 0 /vmm\nSize:  2000 kB\nPss:  500 kB\nPss_Dirty: 1 kB\n\
                     7f00-7f01 rw-p 0 00:00 0\nSize: 131072 kB\nPss: 36000 kB\n\
                     7f02-7f03 ---p 0 00:00 0\nSize: 65404 kB\nPss: 12 kB\n";
        assert_eq!(memory(smaps), (36_000, 512));
    }
}
