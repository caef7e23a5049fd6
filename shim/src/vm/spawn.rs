//! Starts the VMM with exactly the files that its spec names. The spec itself follows through a pipe.

use super::{VmError, endorsement::Endorsement, image::GuestImage, snp::SnpParts};
use crate::{config::Config, program, spawn_lock::spawn_lock};
use nix::{
    fcntl::{F_SETFD, FdFlag, fcntl},
    unistd::geteuid,
};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, PipeWriter},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
    process::Stdio,
};
use tokio::{
    io::AsyncWriteExt,
    net::unix::pipe::Sender,
    process::{Child, Command},
};
use vm_spec::{
    Boot, Fd, HostData, Identity, Network, Payload, Scratch, SimulatedReports, UnprivilegedId, VerifiedBoot, VmSpec, Volumes, Vsock,
};

/// Name of the VMM's program.
pub const PROGRAM: &str = "casemate-vmm";

/// Version of simulated reports: the newest.
const REPORT_VERSION: u32 = 5;

/// First user and group id of VMMs. 0x7000_0000 to 0x77ff_ffff lies between systemd's container ids and its foreign
/// ids (systemd's "Users, Groups, UIDs and GIDs"), and below 2^31, where some programs take ids for negative.
const FIRST_ID: u32 = 0x7000_0000;
/// Bits of a digest that choose one of them.
const ID_BITS: u32 = 27;

/// Everything that a VMM inherits besides its spec.
pub struct Parts {
    /// Listening control socket.
    pub control: OwnedFd,
    /// Listening vsock socket.
    pub vsock: OwnedFd,
    /// Console output, a file of fixed length.
    pub console: File,
    /// Scratch disk, unless scratch is in the guest's memory.
    pub scratch: Option<File>,
    /// The configuration of registries, if the node has one.
    pub registries: Option<File>,
    /// Kernel, initramfs and perhaps stage0.
    pub image: GuestImage,
    /// What simulated reports are signed with.
    pub endorsement: Option<Endorsement>,
    /// For the launch of a guest with SEV-SNP.
    pub snp: Option<SnpParts>,
}

/// A VMM that has started and waits for its spec.
pub struct Started {
    /// Its process; standard error is a pipe, for the reason why it ends.
    pub child: Child,
    /// Its program.
    pub program: PathBuf,
    /// What it waits for.
    pub spec: UnsentSpec,
}

/// The spec of a started VMM, not sent yet. Dropping it, which the death of this process does too, ends the VMM: it reads
/// an end of file.
pub struct UnsentSpec {
    json: Vec<u8>,
    pipe: PipeWriter,
}

impl UnsentSpec {
    /// The spec followed by spaces, as many as a test needs.
    #[cfg(test)]
    pub fn padded_to(mut self, bytes: usize) -> Self {
        self.json.resize(bytes, b' ');
        self
    }

    /// Sends the spec; waits while the pipe is full.
    ///
    /// # Errors
    /// `BrokenPipe` when the VMM has ended.
    pub async fn send(self) -> io::Result<()> {
        let mut pipe = Sender::from_owned_fd(self.pipe.into())?;
        pipe.write_all(&self.json).await
    }
}

/// Starts a VMM; `host_data` is the digest of the policy, `owner` names the sandbox on this host.
pub fn vmm(config: &Config, host_data: [u8; 32], owner: &str, parts: Parts) -> Result<Started, VmError> {
    let json = spec(config, host_data, owner, &parts)?.to_json()?;
    let (spec_end, pipe) = io::pipe().map_err(|e| VmError::Io("make the pipe for the VM's spec", e))?;
    let always = [
        spec_end.as_fd(),
        parts.control.as_fd(),
        parts.vsock.as_fd(),
        parts.console.as_fd(),
        parts.image.kernel.as_fd(),
        parts.image.initrd.as_fd(),
    ];
    let certificates = parts.endorsement.as_ref().map(|endorsement| &endorsement.certificates);
    let optional = [
        parts.scratch.as_ref(),
        parts.registries.as_ref(),
        parts.image.stage0.as_ref(),
        certificates,
    ];
    let optional = optional.into_iter().flatten().map(AsFd::as_fd);
    let inherited = always.into_iter().chain(optional).chain(parts.snp.iter().flat_map(SnpParts::files));
    // Every other descriptor of this process closes on exec. No other program is started while these do not.
    let lock = spawn_lock();
    for fd in inherited {
        fcntl(fd, F_SETFD(FdFlag::empty())).map_err(|e| VmError::Io("hand files to the VMM", e.into()))?;
    }
    let program = program::find(PROGRAM, config.vmm.as_deref()).ok_or(VmError::NoProgram)?;
    let started = Command::new(&program)
        .arg("--spec-fd")
        .arg(spec_end.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .env_clear()
        .current_dir("/")
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    // With the VMM's copy alone left, a write to the pipe of a VMM that has ended fails.
    drop((parts, spec_end));
    drop(lock);
    match started {
        Ok(child) => Ok(Started {
            child,
            program,
            spec: UnsentSpec { json, pipe },
        }),
        Err(error) => Err(VmError::Spawn(program, error)),
    }
}

/// A user and group for this VMM alone, so that a guest that takes over its VMM cannot signal or trace another VMM. The ids
/// of two sandboxes may collide: among a thousand sandboxes with a probability of 1 in 270. A shim that is not root cannot
/// change ids: its VMM runs as the same user.
fn identity(owner: &str) -> Result<Option<Identity>, VmError> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(owner).into();
    let own = UnprivilegedId::try_from(FIRST_ID | u32::from_le_bytes([a, b, c, d]) >> (u32::BITS - ID_BITS))?;
    Ok(Some(Identity { uid: own, gid: own }))
}

/// The hardware address that the network device has until the guest gives it that of the pod's interface: locally administered, unicast.
fn hardware_address(owner: &str) -> [u8; 6] {
    let [a, b, c, d, e, ..]: [u8; 32] = Sha256::digest(owner).into();
    [0x02, a, b, c, d, e]
}

fn spec(config: &Config, host_data: [u8; 32], owner: &str, parts: &Parts) -> Result<VmSpec, VmError> {
    let fd = |file: &dyn AsRawFd| Fd(file.as_raw_fd());
    let payload = Payload {
        kernel: fd(&parts.image.kernel),
        kernel_sha256: parts.image.kernel_sha256,
        initrd: Some(fd(&parts.image.initrd)),
        initrd_sha256: parts.image.initrd_sha256,
        cmdline: parts.image.cmdline.clone(),
    };
    Ok(VmSpec {
        vcpus: config.vcpus,
        memory: config.memory_mib,
        boot: match &parts.image.stage0 {
            None => Boot::Direct(payload),
            Some(stage0) => Boot::Verified(VerifiedBoot {
                stage0: fd(stage0),
                payload,
            }),
        },
        tee: config.tee,
        reports: parts.endorsement.as_ref().map(|endorsement| SimulatedReports {
            key: endorsement.key.clone(),
            certificates: fd(&endorsement.certificates),
            version: REPORT_VERSION,
        }),
        host_data: HostData(host_data),
        snp: parts.snp.as_ref().map(SnpParts::spec),
        console: Some(fd(&parts.console)),
        control: fd(&parts.control),
        vsock: Some(Vsock {
            listener: fd(&parts.vsock),
        }),
        layers: true,
        scratch: parts.scratch.as_ref().map(|file| Scratch { file: fd(file) }),
        registries: parts.registries.as_ref().map(|file| fd(file)),
        network: Some(Network {
            mac: hardware_address(owner),
        }),
        volumes: Volumes::default(),
        rng: true,
        identity: identity(owner)?,
    })
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
