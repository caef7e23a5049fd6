//! One VMM process from its boot to its end: the files it gets, the agent in it, and how it is made to stop.
//!
//! [`Vm::boot`] is the recipe. The VMM is a child of the shim; its end is seen by one task that waits for it,
//! and everybody else asks that task's [`watch`] channel.

mod cgroup;
mod control;
mod image;
pub mod orphan;
mod process;
mod spawn;
mod state;

pub use control::ControlError;
pub use image::{ImageError, References};
pub use spawn::starting_alone;
pub use state::{Record, StateDir, StateError};

use crate::{config::Config, policy_text::PolicyText};
use agent_protocol::{AgentClient, ConnectError, PowerOffRequest, agent_client};
use control::Control;
use image::GuestImage;
use nix::sys::signal::Signal;
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
    process::Child,
    sync::{Notify, watch},
    time::{Instant, sleep, timeout, timeout_at},
};
use vm_spec::{SpecError, control::Extent};

/// Exit status of a container whose VM ended under it: 128 + SIGKILL.
pub const KILLED: u32 = 137;
/// Pause between attempts to reach the agent while the guest boots.
const CONNECT_PAUSE: Duration = Duration::from_millis(10);
/// One attempt to reach the agent: a request that the guest lost before its driver was there is never answered.
const CONNECT_ATTEMPT: Duration = Duration::from_secs(2);
/// The agent must answer a power-off within this time.
const POWER_OFF: Duration = Duration::from_secs(3);
/// The end of a VM shows within this time after its agent is gone.
const END_SHOWS: Duration = Duration::from_secs(2);
/// The kernel must have ended a killed VMM after this time.
const KILL: Duration = Duration::from_secs(10);
/// Lines of the console that an error shows.
const CONSOLE_LINES: usize = 12;

/// Why there is no VM.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// The directory of the sandbox cannot be made.
    #[error(transparent)]
    State(#[from] StateError),
    /// The guest image cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A file or socket of the VM cannot be made.
    #[error("cannot {0}")]
    Io(&'static str, #[source] io::Error),
    /// The spec cannot be written.
    #[error("cannot write the VM's spec")]
    Spec(#[from] SpecError),
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
        /// What the last attempt said.
        #[source]
        source: Option<ConnectError>,
    },
}

/// What a VM is booted for.
pub struct BootRequest<'a> {
    /// containerd namespace.
    pub namespace: &'a str,
    /// Sandbox id.
    pub id: &'a str,
    /// Configuration, annotations applied.
    pub config: &'a Config,
    /// Becomes host data.
    pub policy: &'a PolicyText,
    /// `linux.cgroupsPath` of the sandbox's container.
    pub cgroups_path: &'a str,
}

/// A running VM.
pub struct Vm {
    vmm: Vmm,
    agent: AgentClient,
    control: Control,
    vsock: PathBuf,
    state: StateDir,
}

impl Vm {
    /// Boots a VM and waits until its agent answers.
    ///
    /// # Errors
    /// See [`VmError`]; nothing is left then.
    pub async fn boot(request: BootRequest<'_>) -> Result<Self, VmError> {
        let config = request.config;
        let deadline = Instant::now() + config.boot_timeout();
        let state = StateDir::create(&config.state_dir, request.namespace, request.id)?;
        let image = GuestImage::open(&config.image_dir)?;
        let console = state.path_of("console.log");
        let parts = spawn::Parts {
            control: state.bind_control()?,
            vsock: state.bind_vsock()?,
            console: File::create(&console).map_err(|e| VmError::Io("make the console's file", e))?,
            scratch: scratch(config)?,
            image,
        };
        let identity = format!("{}/{}", request.namespace, request.id);
        let (child, program) = spawn::vmm(config, request.policy.digest, &identity, parts)?;
        crate::phase::reached("vmm");
        let Some(pid) = child.id() else {
            return Err(VmError::Spawn(program, io::ErrorKind::NotFound.into()));
        };
        let cgroups = cgroup::place(request.cgroups_path, pid);
        // Before anybody waits for it: even a VMM that has ended already can be looked up until then.
        let recorded = state.record(pid, &cgroups);
        let vmm = Vmm::supervise(child, pid, cgroups);
        recorded?;
        let control = Control::new(state.reachable("control.sock"));
        let vsock = state.reachable("vsock.sock");
        let agent = reach_agent(&vmm, &vsock, deadline, config.boot_timeout(), &console).await?;
        crate::phase::reached("agent");
        Ok(Self {
            vmm,
            agent,
            control,
            vsock,
            state,
        })
    }

    /// The VMM's process id: the live host process that stands for every init in it.
    pub fn pid(&self) -> u32 {
        self.vmm.pid
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

    /// Puts `files`, each whole, at the end of the layer disk; gives the first sector of each.
    ///
    /// # Errors
    /// When the VMM refuses or has ended.
    pub async fn append(&self, files: Vec<(File, u64)>) -> Result<Vec<u64>, ControlError> {
        let (files, lengths): (Vec<_>, Vec<_>) = files.into_iter().unzip();
        let extents = lengths.into_iter().map(|length| Extent { offset: 0, length }).collect();
        self.control.append(files, extents).await
    }

    /// Whether the VMM has ended.
    pub fn has_ended(&self) -> bool {
        self.vmm.exit.borrow().is_some()
    }

    /// Waits for the VMM's end.
    pub async fn ended(&self) {
        self.vmm.ended().await;
    }

    /// How it ended, where its agent is gone because of that: the VMM's exit status and the last lines of the console.
    pub async fn end(&self) -> Option<(String, String)> {
        let status = timeout(END_SHOWS, self.vmm.ended()).await.ok()?;
        Some((status, last_lines(&self.state.path_of("console.log"))))
    }

    /// Asks for the VMM's end at once; [`Vm::ended`] tells when.
    pub fn kill(&self) {
        self.vmm.kill.notify_one();
    }

    /// Lets the agent end all containers, and then the VMM. What the guest's kernel would still do about a power-off serves
    /// nobody: its scratch disk is lost with its key, and no other disk was written to.
    pub async fn power_off(&self) {
        let request = PowerOffRequest::new();
        if let Err(error) = self.agent.power_off(ttrpc::context::with_duration(POWER_OFF), &request).await {
            log::warn!("the guest did not power off ({error}); killing its VMM {}", self.vmm.pid);
        }
        self.kill_and_wait().await;
    }

    /// Removes the VM's sockets and files from the host, once it has ended.
    pub fn forget(&self) {
        self.state.remove();
    }

    /// Ends the VMM at once and waits until it is gone.
    pub async fn kill_and_wait(&self) {
        self.vmm.kill_and_wait().await;
    }
}

/// Tries to reach the agent until it answers, the VMM ends, or the deadline is over.
async fn reach_agent(vmm: &Vmm, vsock: &Path, deadline: Instant, limit: Duration, console: &Path) -> Result<AgentClient, VmError> {
    let mut last = None;
    while Instant::now() < deadline {
        let attempt = timeout_at(deadline.min(Instant::now() + CONNECT_ATTEMPT), agent_client(vsock));
        tokio::select! {
            biased;
            status = vmm.ended() => return Err(VmError::Died { status, console: last_lines(console) }),
            outcome = attempt => match outcome {
                Ok(Ok(agent)) => return Ok(agent),
                Ok(Err(error)) => last = Some(error),
                Err(_) => {}
            },
        }
        sleep(CONNECT_PAUSE).await;
    }
    vmm.kill_and_wait().await;
    Err(VmError::Timeout {
        limit,
        console: last_lines(console),
        source: last,
    })
}

/// The VMM's process. Dropping this kills it.
struct Vmm {
    pid: u32,
    exit: watch::Receiver<Option<ExitStatus>>,
    kill: Arc<Notify>,
}

impl Vmm {
    /// Waits for the child in a task of its own, which alone signals its process id: a number that was reused can
    /// never be hit. The cgroups made for it go when it is gone.
    fn supervise(mut child: Child, pid: u32, cgroups: Vec<PathBuf>) -> Self {
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
            sender.send_replace(Some(status.unwrap_or_default()));
        });
        Self { pid, exit, kill }
    }

    /// Waits for the process's end and says how it was.
    async fn ended(&self) -> String {
        let mut exit = self.exit.clone();
        // The sender is dropped only after it has sent.
        match exit.wait_for(Option::is_some).await {
            Ok(status) => status.map(describe).unwrap_or_default(),
            Err(_) => "unknown".to_owned(),
        }
    }

    async fn kill_and_wait(&self) {
        self.kill.notify_one();
        if timeout(KILL, self.ended()).await.is_err() {
            log::error!("VMM {} did not end after SIGKILL", self.pid);
        }
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        self.kill.notify_one();
    }
}

/// How a VMM ended. What its exit codes mean it has said itself, on the console; of its death by a signal it cannot speak.
fn describe(status: ExitStatus) -> String {
    if status.signal() == Some(Signal::SIGSYS as i32) {
        format!("{status}: a thread of the VMM made a system call that its filter forbids, so its guest may have taken it over")
    } else {
        status.to_string()
    }
}

/// The scratch disk: sparse, on the cache's file system, without a name, so that it vanishes with its last user.
fn scratch(config: &Config) -> Result<File, VmError> {
    let failed = |e| VmError::Io("make the scratch disk", e);
    let dir = config.cache_dir.join("scratch");
    std::fs::create_dir_all(&dir).map_err(failed)?;
    let file = tempfile::tempfile_in(dir).map_err(failed)?;
    file.set_len(config.scratch_mib << 20).map_err(failed)?;
    Ok(file)
}

/// The end of the guest's console, as far as it is text.
fn last_lines(console: &Path) -> String {
    let bytes = state::read_end(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let printable: String = text.chars().filter(|c| *c == '\n' || !c.is_control()).collect();
    let lines: Vec<_> = printable.lines().filter(|line| !line.trim().is_empty()).collect();
    match lines.len() {
        0 => "(nothing was written)".to_owned(),
        n => lines[n.saturating_sub(CONSOLE_LINES)..].join("\n"),
    }
}

#[cfg(test)]
mod tests;
