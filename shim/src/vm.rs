//! One VMM process from its start to its exit: the files it inherits, the agent in its guest, and how it is stopped.
//!
//! The VMM is a child of the shim. One task waits for its exit; all others read that task's [`watch`] channel.

mod console;
mod control;
mod endorsement;
mod image;
mod oom;
mod registries;
mod snp;
mod spawn;

pub use control::ControlError;
pub use endorsement::EndorsementError;
pub use image::{ImageError, References};
pub use registries::RegistriesError;
pub use snp::SnpFileError;

use crate::{
    cgroup,
    config::{Config, Scratch},
    policy_text::PolicyText,
};
use agent_protocol::{AgentClient, ConnectError, PowerOffRequest, agent_client};
use console::last_lines;
use control::Control;
use endorsement::Endorsement;
use image::GuestImage;
use nix::sys::signal::Signal;
use oom::OomScore;
use shim_state::{OwnedSandboxDir, Record, SandboxDir, StateError, console as console_file};
use snp::SnpParts;
use spawn::{PROGRAM, Started, UnsentSpec};
use std::{
    fs::File,
    io,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::AsyncReadExt,
    process::Child,
    sync::{Notify, watch},
    task::spawn_blocking,
    time::{Instant, sleep, timeout, timeout_at},
};
use vm_spec::{SpecError, Tee, control::Extent};

/// Exit status of a container whose VM ended under it: 128 + SIGKILL.
pub const KILLED: u32 = 137;
/// Pause between attempts to reach the agent while the guest boots.
const CONNECT_PAUSE: Duration = Duration::from_millis(10);
/// One attempt to reach the agent: a request that the guest lost before its driver was there is never answered.
const CONNECT_ATTEMPT: Duration = Duration::from_secs(2);
/// The agent must answer a power-off within this time.
const POWER_OFF: Duration = Duration::from_secs(3);
/// The VMM exits within this time after its agent is gone, or after it has closed the pipe of its spec.
const EXIT_FOLLOWS: Duration = Duration::from_secs(2);
/// What a VMM that has ended said is read within this time, at most this much.
const LAST_WORDS: Duration = Duration::from_millis(200);
const LAST_WORDS_BYTES: u64 = 8 * 1024;
/// A killed VMM must have exited within this time.
const KILL: Duration = Duration::from_secs(10);
/// The threads of a killed VMM have left its cgroups after this time; leaves room within containerd's five seconds.
const CGROUPS_EMPTY: Duration = Duration::from_secs(1);

/// Why there is no VM.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// The directory of the sandbox cannot be made.
    #[error(transparent)]
    State(#[from] StateError),
    /// The guest image cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// There is nothing to sign simulated reports with.
    #[error(transparent)]
    Endorsement(#[from] EndorsementError),
    /// A file for the launch of a guest with SEV-SNP.
    #[error(transparent)]
    Snp(#[from] SnpFileError),
    /// The configuration of registries cannot be handed to the guest.
    #[error("cannot hand the configuration of registries {} to the guest", .0.display())]
    Registries(PathBuf, #[source] RegistriesError),
    /// A file or socket of the VM cannot be made.
    #[error("cannot {0}")]
    Io(&'static str, #[source] io::Error),
    /// The spec cannot be written.
    #[error("cannot write the VM's spec")]
    Spec(#[from] SpecError),
    /// No VMM is installed where the configuration says.
    #[error("{PROGRAM} is neither beside this shim nor in PATH: install it there, or name it as `vmm` in the configuration")]
    NoProgram,
    /// The VMM cannot be started.
    #[error("cannot start {}", .0.display())]
    Spawn(PathBuf, #[source] io::Error),
    /// The VMM ended before the agent answered.
    #[error("the VM ended while booting ({status}); its console ends with:\n{console}")]
    Died {
        /// How the VMM ended.
        status: String,
        /// Last lines of the console.
        console: String,
    },
    /// The agent did not answer in time.
    #[error("the agent did not answer within {limit:?}; the VM's console ends with:\n{console}")]
    Timeout {
        /// Configured limit.
        limit: Duration,
        /// Last lines of the console.
        console: String,
        /// Why the last attempt failed.
        #[source]
        source: Option<ConnectError>,
    },
}

/// What a VM is booted from.
pub struct BootRequest<'a> {
    /// containerd namespace.
    pub namespace: &'a str,
    /// Sandbox id.
    pub id: &'a str,
    /// Configuration, annotations applied.
    pub config: &'a Config,
    /// Its digest becomes the guest's host data.
    pub policy: &'a PolicyText,
    /// `linux.cgroupsPath` of the sandbox's container.
    pub cgroups_path: &'a str,
    /// `process.oomScoreAdj` of that container.
    pub oom_score_adj: Option<i32>,
}

/// A running VM.
pub struct Vm {
    vmm: Vmm,
    agent: AgentClient,
    control: Control,
    vsock: PathBuf,
    state: OwnedSandboxDir,
    oom_score: OomScore,
    tee: Tee,
}

impl Vm {
    /// Boots a VM and waits until its agent answers.
    ///
    /// # Errors
    /// See [`VmError`]; nothing of the VM is left then.
    pub async fn boot(request: BootRequest<'_>) -> Result<Self, VmError> {
        let config = request.config;
        let dir = SandboxDir::path_below(&config.state_dir, request.namespace, request.id);
        if let Some(dead) = Record::load(&dir)?.filter(|record| !record.vmm.is_alive()) {
            remove_cgroups(&dead);
        }
        let state = OwnedSandboxDir::create(&config.state_dir, request.namespace, request.id)?;
        let image = GuestImage::open(&config.image_dir, config.boot)?;
        let endorsement = endorsement(config).await?;
        let deadline = Instant::now() + config.boot_timeout();
        let console = console_file::create(&state.dir().console()).map_err(|e| VmError::Io("make the console's file", e))?;
        let parts = spawn::Parts {
            control: state.bind_control()?,
            vsock: state.bind_vsock()?,
            console: console.try_clone().map_err(|e| VmError::Io("share the console's file", e))?,
            scratch: scratch(config)?,
            registries: registries::disk(&config.registries)?,
            image,
            endorsement,
            snp: (config.tee == Tee::Snp).then(|| SnpParts::open(&config.snp)).transpose()?,
        };
        let identity = format!("{}/{}", request.namespace, request.id);
        let Started { child, program, spec } = spawn::vmm(config, request.policy.digest, &identity, parts)?;
        crate::timeline::reached("vmm");
        let Some(pid) = child.id() else {
            return Err(VmError::Spawn(program, io::ErrorKind::NotFound.into()));
        };
        // The record comes first, so that `delete` finds the cgroups of a shim that dies here; the spec comes last, so that a
        // VMM without a record ends by itself. A VMM that has exited can be recorded until it is reaped.
        let cgroups = cgroup::leaves(request.cgroups_path);
        let oom_score = OomScore::of(pid, request.oom_score_adj).map_err(|e| VmError::Io("open the VMM's OOM score", e))?;
        let recorded = state.record(pid, &cgroups);
        if recorded.is_ok() {
            cgroup::place(&cgroups, "VMM", pid);
        }
        let vmm = Vmm::supervise(child, pid, cgroups, console);
        recorded?;
        let limit = Limit {
            deadline,
            boot_timeout: config.boot_timeout(),
        };
        send_spec(&vmm, spec, &limit).await?;
        let control = Control::new(state.dir().control_socket());
        let vsock = state.dir().vsock_socket();
        let agent = reach_agent(&vmm, &vsock, &limit).await?;
        crate::timeline::reached("agent");
        Ok(Self {
            vmm,
            agent,
            control,
            vsock,
            state,
            oom_score,
            tee: config.tee,
        })
    }

    /// The VMM's process id, which containerd is given as the pid of every init in the VM.
    pub fn pid(&self) -> u32 {
        self.vmm.pid
    }

    /// What protects its guest.
    pub fn tee(&self) -> Tee {
        self.tee
    }

    /// Takes the OOM score of one more container of the pod.
    pub fn add_oom_score(&self, score: Option<i32>) {
        self.oom_score.add_container(score);
    }

    /// containerd namespace of its sandbox.
    pub fn namespace(&self) -> &str {
        self.state.namespace()
    }

    /// The agent; its calls fail once the VM has ended.
    pub fn agent(&self) -> &AgentClient {
        &self.agent
    }

    /// The unix socket that leads to the guest's ports.
    pub fn vsock(&self) -> &Path {
        &self.vsock
    }

    /// Appends `files`, each whole, to the layer disk; returns the first sector of each.
    ///
    /// # Errors
    /// When the VMM refuses or has ended.
    pub async fn append(&self, files: Vec<(File, u64)>) -> Result<Vec<u64>, ControlError> {
        let (files, lengths): (Vec<_>, Vec<_>) = files.into_iter().unzip();
        let extents = lengths.into_iter().map(|length| Extent { offset: 0, length }).collect();
        self.control.append(files, extents).await
    }

    /// Takes extents of the layer disk back, by their first sectors, in messages of which each is done or not.
    ///
    /// # Errors
    /// When the VMM refuses or has ended.
    pub async fn release(&self, first_sectors: Vec<u64>) -> Result<(), ControlError> {
        self.control.release(first_sectors).await
    }

    /// Gives the network device its TAP.
    ///
    /// # Errors
    /// When the VMM refuses or has ended.
    pub async fn attach_tap(&self, tap: File) -> Result<(), ControlError> {
        self.control.attach_tap(tap).await
    }

    /// Whether the VMM has ended.
    pub fn has_ended(&self) -> bool {
        self.vmm.exit.borrow().is_some()
    }

    /// Waits until the VMM has ended.
    pub async fn ended(&self) {
        self.vmm.ended().await;
    }

    /// After the agent has gone: the VMM's exit status and the last lines of the console, if the VMM has ended too.
    pub async fn exit_report(&self) -> Option<(String, String)> {
        let Exit { status, console } = timeout(EXIT_FOLLOWS, self.vmm.ended()).await.ok()?;
        Some((status, console))
    }

    /// Kills the VMM without waiting for its exit; see [`Vm::ended`].
    pub fn kill(&self) {
        self.vmm.kill.notify_one();
    }

    /// Lets the agent end all containers, then kills the VMM. The guest's kernel need not power off: the scratch disk is lost
    /// with its key, and no other disk was written to.
    pub async fn power_off(&self) {
        let request = PowerOffRequest::new();
        if let Err(error) = self.agent.power_off(ttrpc::context::with_duration(POWER_OFF), &request).await {
            log::warn!("the guest did not power off ({error}); killing its VMM {}", self.vmm.pid);
        }
        self.kill_and_wait().await;
    }

    /// Removes the VM's sockets and files from the host, once it has ended.
    pub fn forget(&self) {
        if let Err(error) = self.state.remove() {
            log::warn!("{}", crate::describe::describe(&error));
        }
    }

    /// Kills the VMM and waits for its exit.
    pub async fn kill_and_wait(&self) {
        let _ = self.vmm.kill_and_wait().await;
    }
}

/// Removes the cgroups of a recorded VMM that has ended.
pub fn remove_cgroups(record: &Record) {
    cgroup::remove_within(&record.cgroups, CGROUPS_EMPTY);
}

/// How long a boot may take.
struct Limit {
    deadline: Instant,
    boot_timeout: Duration,
}

/// Sends the spec to a VMM that waits for it.
async fn send_spec(vmm: &Vmm, spec: UnsentSpec, limit: &Limit) -> Result<(), VmError> {
    match timeout_at(limit.deadline, spec.send()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            // It has exited or is about to: it closes its end of the pipe only after the whole spec.
            Err(match timeout(EXIT_FOLLOWS, vmm.ended()).await {
                Ok(exit) => exit.into(),
                Err(_) => Exit {
                    status: "killed without having read its spec".to_owned(),
                    console: vmm.kill_and_wait().await,
                }
                .into(),
            })
        }
        Ok(Err(error)) => Err(VmError::Io("send the VM's spec to the VMM", error)),
        Err(_) => Err(timed_out(vmm, limit, None).await),
    }
}

/// Tries to reach the agent until it answers, the VMM ends, or the deadline is over.
async fn reach_agent(vmm: &Vmm, vsock: &Path, limit: &Limit) -> Result<AgentClient, VmError> {
    let mut last = None;
    while Instant::now() < limit.deadline {
        let attempt = timeout_at(limit.deadline.min(Instant::now() + CONNECT_ATTEMPT), agent_client(vsock));
        tokio::select! {
            biased;
            exit = vmm.ended() => return Err(exit.into()),
            outcome = attempt => match outcome {
                Ok(Ok(agent)) => return Ok(agent),
                Ok(Err(error)) => last = Some(error),
                Err(_) => {}
            },
        }
        sleep(CONNECT_PAUSE).await;
    }
    Err(timed_out(vmm, limit, last).await)
}

/// Ends a VMM whose boot took too long.
async fn timed_out(vmm: &Vmm, limit: &Limit, source: Option<ConnectError>) -> VmError {
    VmError::Timeout {
        limit: limit.boot_timeout,
        console: vmm.kill_and_wait().await,
        source,
    }
}

/// How a VMM ended.
#[derive(Clone, Debug, Default)]
struct Exit {
    status: String,
    /// Last lines of the console, and then of the VMM itself.
    console: String,
}

impl From<Exit> for VmError {
    fn from(Exit { status, console }: Exit) -> Self {
        Self::Died { status, console }
    }
}

/// The VMM's process. Dropping this kills it.
struct Vmm {
    pid: u32,
    exit: watch::Receiver<Option<Exit>>,
    kill: Arc<Notify>,
}

impl Vmm {
    /// Waits for the child in a task of its own. Only this task signals the process id, so a reused id is never signalled. The
    /// VMM's cgroups are removed after its exit, and its last words are put behind the guest's in `console`.
    fn supervise(mut child: Child, pid: u32, cgroups: Vec<PathBuf>, console: File) -> Self {
        let (sender, exit) = watch::channel(None);
        let kill = Arc::new(Notify::new());
        let wanted = kill.clone();
        tokio::spawn(async move {
            let status = loop {
                tokio::select! {
                    status = child.wait() => break status,
                    () = wanted.notified() => {
                        let _ = child.start_kill();
                    }
                }
            };
            cgroup::remove(&cgroups);
            match &status {
                Ok(status) => log::info!("VMM {pid} ended: {}", describe(*status)),
                Err(error) => log::error!("cannot wait for VMM {pid}: {error}"),
            }
            let words = last_words(&mut child).await;
            sender.send_replace(Some(Exit {
                status: describe(status.unwrap_or_default()),
                console: last_lines(&shown(&console, &words)),
            }));
        });
        Self { pid, exit, kill }
    }

    /// Waits for the exit.
    async fn ended(&self) -> Exit {
        let mut exit = self.exit.clone();
        // The sender is dropped only after it has sent.
        let exit = exit.wait_for(Option::is_some).await;
        exit.ok().and_then(|exit| exit.clone()).unwrap_or_default()
    }

    /// Kills it; returns the last lines of its console.
    async fn kill_and_wait(&self) -> String {
        self.kill.notify_one();
        let Ok(exit) = timeout(KILL, self.ended()).await else {
            log::error!("VMM {} did not end after SIGKILL", self.pid);
            return String::new();
        };
        exit.console
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        self.kill.notify_one();
    }
}

/// What a VMM that has ended wrote to standard error.
async fn last_words(child: &mut Child) -> Vec<u8> {
    let mut words = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        // A child of it may still hold the pipe's other end.
        let _ = timeout(LAST_WORDS, stderr.take(LAST_WORDS_BYTES).read_to_end(&mut words)).await;
    }
    words
}

/// What the guest and then its VMM said; it is in the console's file too, for whoever looks there later.
fn shown(console: &File, words: &[u8]) -> Vec<u8> {
    let guest = console_file::content(console).unwrap_or_default();
    if !words.is_empty()
        && let Err(error) = console_file::append(console, words)
    {
        log::warn!("cannot write to the console's file: {error}");
    }
    [&guest, words].join(&b'\n')
}

/// How a VMM ended. It explains its exit codes itself, on the console; only a signal needs an explanation here.
fn describe(status: ExitStatus) -> String {
    if status.signal() == Some(Signal::SIGSYS as i32) {
        format!("{status}: a thread of the VMM made a system call that its filter forbids, so its guest may have taken it over")
    } else {
        status.to_string()
    }
}

/// What simulated reports are signed with, in a guest that has them. Its making takes seconds, once on a host.
async fn endorsement(config: &Config) -> Result<Option<Endorsement>, VmError> {
    if config.tee != Tee::Simulated {
        return Ok(None);
    }
    let dir = config.simulated_dir.clone();
    let opened = spawn_blocking(move || Endorsement::open(&dir)).await;
    let opened = opened.map_err(|e| VmError::Io("make the keys of the simulated TEE", io::Error::other(e)))?;
    Ok(Some(opened?))
}

/// The scratch disk, if there is to be one: a sparse file on the cache's file system, unlinked, so that it vanishes with its last
/// user.
fn scratch(config: &Config) -> Result<Option<File>, VmError> {
    if config.scratch == Scratch::Memory {
        return Ok(None);
    }
    let failed = |e| VmError::Io("make the scratch disk", e);
    let dir = config.cache_dir.join("scratch");
    std::fs::create_dir_all(&dir).map_err(failed)?;
    let file = tempfile::tempfile_in(dir).map_err(failed)?;
    file.set_len(config.scratch_mib << 20).map_err(failed)?;
    Ok(Some(file))
}

#[cfg(test)]
mod tests;
