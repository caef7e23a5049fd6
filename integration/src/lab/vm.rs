//! A VM started without containerd and shim: `casemate-vmm` with a spec, and a client of its agent.

use agent_protocol::{AgentClient, ConnectError, agent_client};
use anyhow::{Context, Result, bail};
use guest_manifest::Manifest;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use shim_state::{DEFAULT_ROOT, SandboxDir, console};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use vm_spec::control::{Client, Extent, Reply, Request, Stats};
use vm_spec::{Boot, Fd, HostData, Payload, Scratch, Tee, VmSpec, Volumes, Vsock};

const GUEST: &str = "/usr/local/share/casemate";
const VMM: &str = "/usr/local/bin/casemate-vmm";
/// Namespace of the VM's state directory. [`Watch`](super::watch::Watch) follows the consoles of every namespace.
const NAMESPACE: &str = "no-containerd";
const SCRATCH_BYTES: u64 = 64 << 20;
const MEMORY_MIB: u32 = 256;
/// An emulated guest needs two to five seconds until its agent listens.
const BOOT_DEADLINE: Duration = Duration::from_secs(60);
const CALL_DEADLINE: Duration = Duration::from_secs(30);
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// Time for a VMM to report why its guest exited, after it has closed its sockets; far less is enough.
const EXIT_REPORT: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(100);

/// A running VM.
pub struct Vm {
    child: Child,
    dir: SandboxDir,
    console: File,
    vsock: PathBuf,
    scratch: File,
}

impl Vm {
    /// Boots the installed guest image with the digest of `policy` as host data.
    pub fn boot(name: &str, policy: &[u8]) -> Result<Self> {
        let path = SandboxDir::path_below(Path::new(DEFAULT_ROOT), NAMESPACE, name);
        std::fs::create_dir_all(&path).context("cannot create the VM's directory")?;
        let dir = SandboxDir::open(path)?;
        let vsock = dir.vsock_socket();
        let manifest = installed_manifest()?;
        let open = |name: &str| inherited(File::open(Path::new(GUEST).join(name)).with_context(|| format!("no {name} installed"))?);
        let kernel = open("vmlinux")?;
        let initrd = open("initramfs.cpio")?;
        let console_file = console::create(&dir.console()).context("cannot create the console's file")?;
        let console = inherited(console_file.try_clone().context("cannot share the console's file")?)?;
        let scratch_file = tempfile::tempfile().context("cannot create the scratch disk")?;
        scratch_file.set_len(SCRATCH_BYTES).context("cannot size the scratch disk")?;
        let scratch = inherited(scratch_file.try_clone().context("cannot share the scratch disk")?)?;
        let control = inherited(listen_seqpacket(&dir.control_socket())?)?;
        let vsock_listener = inherited(UnixListener::bind(&vsock).context("cannot listen for vsock connections")?)?;
        let spec = VmSpec {
            vcpus: 1.try_into()?,
            memory: MEMORY_MIB.try_into()?,
            boot: Boot::Direct(Payload {
                kernel: fd(&kernel),
                kernel_sha256: HostData(manifest.kernel.sha256),
                initrd: Some(fd(&initrd)),
                initrd_sha256: HostData(manifest.initrd.sha256),
                cmdline: manifest.cmdline,
            }),
            tee: Tee::Plain,
            reports: None,
            host_data: HostData(super::digest(policy)),
            snp: None,
            console: Some(fd(&console)),
            control: fd(&control),
            vsock: Some(Vsock {
                listener: fd(&vsock_listener),
            }),
            layers: true,
            scratch: Some(Scratch { file: fd(&scratch) }),
            registries: None,
            network: None,
            volumes: Volumes::default(),
            rng: true,
            identity: None,
        };
        let mut spec_file = tempfile::tempfile().context("cannot create the spec's file")?;
        spec_file
            .write_all(&spec.to_json()?)
            .and_then(|()| spec_file.rewind())
            .context("cannot write the spec")?;
        let spec_file = inherited(spec_file)?;
        println!("  $ casemate-vmm --spec-fd {}", spec_file.as_raw_fd());
        let child = Command::new(VMM)
            .args(["--spec-fd", &spec_file.as_raw_fd().to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start casemate-vmm")?;
        Ok(Self {
            child,
            dir,
            console: console_file,
            vsock,
            scratch: scratch_file,
        })
    }

    /// Runs `calls` with a client of the agent, as soon as the agent listens. The second argument makes the context of one call, with
    /// its time limit.
    pub fn with_agent(&self, calls: impl AsyncFnOnce(AgentClient, fn() -> ttrpc::context::Context) -> Result<()>) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        runtime.block_on(async {
            let end = Instant::now() + BOOT_DEADLINE;
            let client = loop {
                match agent_client(&self.vsock).await {
                    Ok(client) => break client,
                    Err(error @ ConnectError::Socket(_)) => return Err(error).context("the VM is not running"),
                    Err(error) if Instant::now() > end => return Err(error).context("the agent does not listen"),
                    Err(_) => tokio::time::sleep(POLL).await,
                }
            };
            calls(client, || ttrpc::context::with_timeout(CALL_DEADLINE.as_nanos() as i64)).await
        })
    }

    /// The socket through which the agent is reached.
    pub fn vsock(&self) -> &Path {
        &self.vsock
    }

    /// The scratch disk, as a host has it.
    pub fn scratch(&self) -> &File {
        &self.scratch
    }

    /// What the guest has written to its console so far.
    pub fn console(&self) -> Result<String> {
        let bytes = console::content(&self.console).context("cannot read the console")?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Appends `file` to the layer disk; returns its first sector.
    pub fn append_layer(&self, file: &File) -> Result<u64> {
        let length = file.metadata().context("cannot size a layer")?.len();
        let request = Request::AppendExtents(vec![Extent { offset: 0, length }]);
        match ask_with(&self.dir.control_socket(), &request, &[file.as_raw_fd()])? {
            Reply::Appended { first_sectors, .. } => first_sectors.first().copied().context("the VMM returned no sector"),
            other => bail!("the VMM answered AppendExtents with {other:?}"),
        }
    }

    /// Stops the VM through its control socket and removes its directory.
    pub fn stop(mut self) -> Result<()> {
        match ask(&self.dir.control_socket(), &Request::Stop)? {
            Reply::Done => {}
            other => bail!("the VMM answered Stop with {other:?}"),
        }
        let end = Instant::now() + STOP_DEADLINE;
        let status = loop {
            if let Some(status) = self.child.try_wait().context("cannot wait for the VMM")? {
                break status;
            }
            if Instant::now() > end {
                bail!("the VMM still runs {STOP_DEADLINE:?} after a stop");
            }
            std::thread::sleep(POLL);
        };
        // The watch copies the end of a console only while the file exists.
        std::thread::sleep(POLL);
        std::fs::remove_dir_all(self.dir.path()).context("cannot remove the VM's directory")?;
        let _ = std::fs::remove_dir(Path::new(DEFAULT_ROOT).join(NAMESPACE));
        if !status.success() {
            bail!("the VMM exited with {status} after a stop");
        }
        Ok(())
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // A VMM whose guest died closes its sockets before it writes the reason: wait for the reason.
        let end = Instant::now() + EXIT_REPORT;
        while Instant::now() < end && !matches!(self.child.try_wait(), Ok(Some(_))) {
            std::thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        // As under the shim, the VMM's last words follow the guest's.
        let mut words = Vec::new();
        if let Some(mut stderr) = self.child.stderr.take()
            && stderr.read_to_end(&mut words).is_ok()
        {
            let _ = console::append(&self.console, &words);
        }
    }
}

/// The manifest of the installed guest image.
pub fn installed_manifest() -> Result<Manifest> {
    let path = Path::new(GUEST).join(guest_manifest::FILE_NAME);
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}: no guest image is installed", path.display()))?;
    Manifest::from_json(&text).with_context(|| format!("{} is not valid", path.display()))
}

/// Counters of the VM whose control socket is `socket`.
pub fn stats(socket: &Path) -> Result<Stats> {
    match ask(socket, &Request::Stats)? {
        Reply::Stats(stats) => Ok(stats),
        other => bail!("the VMM answered Stats with {other:?}"),
    }
}

/// One request, one reply over a control socket.
fn ask(socket: &Path, request: &Request) -> Result<Reply> {
    ask_with(socket, request, &[])
}

/// [`ask`] with descriptors attached to the request.
fn ask_with(socket: &Path, request: &Request, descriptors: &[RawFd]) -> Result<Reply> {
    let client = Client::connect(socket).with_context(|| format!("cannot connect to {}", socket.display()))?;
    client.ask(request, descriptors).context("the VMM did not answer")
}

/// A listening control socket at `path`.
pub fn listen_seqpacket(path: &Path) -> Result<OwnedFd> {
    let socket =
        socket::socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).context("cannot create a socket")?;
    socket::bind(socket.as_raw_fd(), &UnixAddr::new(path)?).context("cannot bind the control socket")?;
    socket::listen(&socket, Backlog::new(8)?).context("cannot listen on the control socket")?;
    Ok(socket)
}

/// Lets a child inherit the descriptor. This program starts one VMM at a time, so no other child inherits it.
fn inherited(file: impl Into<OwnedFd>) -> Result<OwnedFd> {
    let file = file.into();
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).context("cannot make a descriptor inheritable")?;
    Ok(file)
}

fn fd(file: &OwnedFd) -> Fd {
    Fd(file.as_raw_fd())
}
