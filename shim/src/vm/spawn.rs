//! Starts the VMM with exactly the files that its spec names.

use super::{VmError, image::GuestImage};
use crate::config::Config;
use nix::{
    fcntl::{F_SETFD, FdFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
    unistd::geteuid,
};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{Seek, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
    process::Stdio,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::process::{Child, Command};
use vm_spec::{Boot, Fd, HostData, Identity, Scratch, UnprivilegedId, VmSpec, Vsock};

/// Name of the VMM's program.
const PROGRAM: &str = "casemate-vmm";

/// First user and group id of VMMs. 0x7000_0000 to 0x77ff_ffff lies between systemd's container ids and its foreign
/// ids (systemd's "Users, Groups, UIDs and GIDs"), and below 2^31, where some programs take ids for negative.
const FIRST_ID: u32 = 0x7000_0000;
/// Bits of a digest that pick one of them.
const ID_BITS: u32 = 27;

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

/// Starts a VMM; `host_data` is the digest of the policy, `owner` names the sandbox on this host.
pub fn vmm(config: &Config, host_data: [u8; 32], owner: &str, parts: Parts) -> Result<(Child, PathBuf), VmError> {
    let spec = spec(config, host_data, identity(owner)?, &parts);
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

/// A user and group of the VMM's own, so that one guest that takes its VMM over cannot signal or trace another's. Two
/// sandboxes may meet by chance, at a thousand of them one time in 270, and only share what one user shares then.
/// A shim that is not root cannot give ids away: its VMM stays the same user.
fn identity(owner: &str) -> Result<Option<Identity>, VmError> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(owner).into();
    let own = UnprivilegedId::try_from(FIRST_ID | u32::from_le_bytes([a, b, c, d]) >> (u32::BITS - ID_BITS))?;
    Ok(Some(Identity { uid: own, gid: own }))
}

fn spec(config: &Config, host_data: [u8; 32], identity: Option<Identity>, parts: &Parts) -> VmSpec {
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
        identity,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sandbox_has_ids_of_its_own_in_the_range() {
        if !geteuid().is_root() {
            return assert_eq!(identity("default/web").unwrap(), None);
        }
        let of = |owner| identity(owner).unwrap().unwrap();
        let web = of("default/web");
        assert_eq!(web, of("default/web"));
        assert_ne!(web, of("k8s.io/web"));
        assert_eq!(u32::from(web.uid) >> ID_BITS, FIRST_ID >> ID_BITS);
        assert_eq!(web.uid, web.gid);
    }
}
