//! Starts the VMM with exactly the files that its spec names.

use super::{VmError, image::GuestImage};
use crate::config::Config;
use nix::{
    fcntl::{F_SETFD, FdFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};
use std::{
    fs::File,
    io::{Seek, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
    process::Stdio,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::process::{Child, Command};
use vm_spec::{Boot, Fd, HostData, Scratch, VmSpec, Vsock};

/// Name of the VMM's program.
const PROGRAM: &str = "casemate-vmm";

/// Held while descriptors are open to a program being started.
static STARTING: Mutex<()> = Mutex::new(());

/// Keeps others from starting a program while this lives, as the VMM's files would be open to theirs.
pub fn starting_alone() -> MutexGuard<'static, ()> {
    STARTING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Everything a VMM inherits besides its spec.
pub struct Parts {
    /// Listening control socket.
    pub control: OwnedFd,
    /// Listening vsock socket.
    pub vsock: OwnedFd,
    /// Console output.
    pub console: File,
    /// Scratch disk.
    pub scratch: File,
    /// Kernel and initramfs.
    pub image: GuestImage,
}

/// Starts a VMM; `host_data` is the digest of the policy.
pub fn vmm(config: &Config, host_data: [u8; 32], parts: Parts) -> Result<(Child, PathBuf), VmError> {
    let spec = spec(config, host_data, &parts);
    let spec_file = memfd(&spec.to_json()?)?;
    let inherited = [
        spec_file.as_fd(),
        parts.control.as_fd(),
        parts.vsock.as_fd(),
        parts.console.as_fd(),
        parts.scratch.as_fd(),
        parts.image.kernel.as_fd(),
        parts.image.initrd.as_fd(),
    ];
    // Every other descriptor of this process closes on exec, and while these do not, nothing else is started.
    let alone = starting_alone();
    for fd in inherited {
        fcntl(fd, F_SETFD(FdFlag::empty())).map_err(|e| VmError::Io("hand files to the VMM", e.into()))?;
    }
    let program = program(config);
    let started = Command::new(&program)
        .arg("--spec-fd")
        .arg(spec_file.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(parts.console.try_clone().map_err(|e| VmError::Io("share the console's file", e))?)
        .env_clear()
        .current_dir("/")
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    drop((parts, spec_file));
    drop(alone);
    match started {
        Ok(child) => Ok((child, program)),
        Err(error) => Err(VmError::Spawn(program, error)),
    }
}

fn spec(config: &Config, host_data: [u8; 32], parts: &Parts) -> VmSpec {
    let fd = |file: &dyn AsRawFd| Fd(file.as_raw_fd());
    VmSpec {
        vcpus: config.vcpus,
        memory: config.memory_mib,
        boot: Boot::Direct {
            kernel: fd(&parts.image.kernel),
            kernel_sha256: parts.image.kernel_sha256,
            initrd: Some(fd(&parts.image.initrd)),
            initrd_sha256: parts.image.initrd_sha256,
            cmdline: parts.image.cmdline.clone(),
        },
        tee: config.tee,
        host_data: HostData(host_data),
        console: Some(fd(&parts.console)),
        control: fd(&parts.control),
        vsock: Some(Vsock {
            listener: fd(&parts.vsock),
        }),
        layers: true,
        scratch: Some(Scratch { file: fd(&parts.scratch) }),
        rng: true,
    }
}

/// The spec in memory, to be read from its start.
fn memfd(bytes: &[u8]) -> Result<File, VmError> {
    let made = memfd_create(c"casemate-vm-spec", MFdFlags::MFD_CLOEXEC).map_err(Into::into);
    made.map(File::from)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.rewind()?;
            Ok(file)
        })
        .map_err(|e| VmError::Io("write the VM's spec into memory", e))
}

/// What the configuration says, else the VMM installed with this shim, else whichever `PATH` knows.
fn program(config: &Config) -> PathBuf {
    if let Some(configured) = &config.vmm {
        return configured.clone();
    }
    std::env::current_exe()
        .ok()
        .and_then(|shim| shim.parent().map(|dir| dir.join(PROGRAM)))
        .filter(|beside| beside.exists())
        .unwrap_or_else(|| PathBuf::from(PROGRAM))
}
