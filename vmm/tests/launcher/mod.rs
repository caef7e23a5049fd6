//! Starts `casemate-vmm` as the shim does: opens files, passes descriptors, connects to the control socket.
#![allow(dead_code, reason = "each test program uses its part")]

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, getsockname, listen, socket},
};
use std::{
    error::Error,
    fs::File,
    io::{Write, pipe},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::{Child, Command, Stdio},
};
use vm_spec::{
    Boot, Fd, HostData, Payload, Scratch, SignedIdFiles, Snp, Tee, VerifiedBoot, VmSpec, Volumes, Vsock,
    control::{Client, Extent, Reply, Request},
};

/// Result with any error.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// A VM to be started.
pub struct Launcher {
    /// The spec so far.
    pub spec: VmSpec,
    inherited: Vec<OwnedFd>,
    control: Control,
}

/// Address of a VM's control socket.
#[derive(Clone)]
pub struct Control(UnixAddr);

impl Launcher {
    /// A plain VM with one vCPU, 128 MiB, `kernel`, `console`, and no virtio device.
    pub fn new(kernel: File, console: OwnedFd) -> Outcome<Self> {
        let listener = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        bind(listener.as_raw_fd(), &UnixAddr::new_unnamed())?;
        listen(&listener, Backlog::new(8)?)?;
        let control = Control(getsockname(listener.as_raw_fd())?);
        let mut inherited = Vec::new();
        let spec = VmSpec {
            vcpus: 1.try_into()?,
            memory: 128.try_into()?,
            boot: Boot::Direct(Payload {
                kernel: inherit(&mut inherited, kernel)?,
                kernel_sha256: HostData([0; 32]),
                initrd: None,
                initrd_sha256: HostData([0; 32]),
                cmdline: String::new(),
            }),
            tee: Tee::Plain,
            reports: None,
            host_data: HostData([0; 32]),
            snp: None,
            console: Some(inherit(&mut inherited, console)?),
            control: inherit(&mut inherited, listener)?,
            vsock: None,
            layers: false,
            scratch: None,
            registries: None,
            network: None,
            volumes: Volumes::default(),
            rng: false,
            identity: None,
        };
        Ok(Self { spec, inherited, control })
    }

    /// Sets the kernel's command line.
    pub fn cmdline(&mut self, text: &str) {
        self.spec.boot.payload_mut().cmdline = text.into();
    }

    /// Boots through stage0, which `program` is.
    pub fn verified(&mut self, program: File) -> Outcome<()> {
        let stage0 = inherit(&mut self.inherited, program)?;
        let payload = self.spec.boot.payload().clone();
        self.spec.boot = Boot::Verified(VerifiedBoot { stage0, payload });
        Ok(())
    }

    /// For the launch of an SNP guest: ID block with its signatures, and certificates.
    pub fn snp(&mut self, policy: Option<u64>, id: Option<[File; 2]>, certificates: Option<File>) -> Outcome<()> {
        self.spec.tee = Tee::Snp;
        let id = match id {
            None => None,
            Some([block, authentication]) => Some(SignedIdFiles {
                block: inherit(&mut self.inherited, block)?,
                authentication: inherit(&mut self.inherited, authentication)?,
            }),
        };
        let certificates = certificates.map(|file| inherit(&mut self.inherited, file)).transpose()?;
        self.spec.snp = Some(Snp {
            policy,
            id,
            certificates,
            without_vcek: false,
        });
        Ok(())
    }

    /// Adds an initrd.
    pub fn initrd(&mut self, file: File) -> Outcome<()> {
        let fd = inherit(&mut self.inherited, file)?;
        self.spec.boot.payload_mut().initrd = Some(fd);
        Ok(())
    }

    /// Adds a scratch disk.
    pub fn scratch(&mut self, file: File) -> Outcome<()> {
        self.spec.scratch = Some(Scratch {
            file: inherit(&mut self.inherited, file)?,
        });
        Ok(())
    }

    /// Adds a vsock device behind a listening socket.
    pub fn vsock(&mut self, listener: OwnedFd) -> Outcome<()> {
        self.spec.vsock = Some(Vsock {
            listener: inherit(&mut self.inherited, listener)?,
        });
        Ok(())
    }

    /// Starts the VMM; appends `--spec-fd N` to its arguments.
    pub fn start(mut self, mut vmm: Command, stderr: Stdio) -> Outcome<(Child, Control)> {
        let (reader, mut writer) = pipe()?;
        let Fd(spec) = inherit(&mut self.inherited, reader)?;
        let child = vmm.arg("--spec-fd").arg(spec.to_string()).stderr(stderr).spawn()?;
        writer.write_all(&self.spec.to_json()?)?;
        Ok((child, self.control))
    }
}

/// Makes a descriptor inheritable and returns its number. VMs that other tests start at the same time inherit it too.
fn inherit(inherited: &mut Vec<OwnedFd>, file: impl Into<OwnedFd>) -> Outcome<Fd> {
    let file = file.into();
    fcntl(file.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))?;
    let number = Fd(file.as_raw_fd());
    inherited.push(file);
    Ok(number)
}

impl Control {
    /// Sends a request with files and waits for the reply.
    pub fn ask(&self, request: &Request, files: &[File]) -> Outcome<Reply> {
        Ok(Client::connect_to(&self.0)?.ask(request, files)?)
    }

    /// Appends whole files to the layer disk.
    pub fn append(&self, files: &[File]) -> Outcome<Reply> {
        let extents = files
            .iter()
            .map(|f| {
                Ok(Extent {
                    offset: 0,
                    length: f.metadata()?.len(),
                })
            })
            .collect::<Outcome<_>>()?;
        self.ask(&Request::AppendExtents(extents), files)
    }
}
