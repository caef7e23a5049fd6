//! Containers and their processes.
//!
//! ```text
//!            create                 start             init ends            shutdown
//!   (absent) ──────► Created ──────────────► Running ──────────► (ended) ──────────► (absent)
//!                       │               pause │   ▲ resume            ▲                 ▲
//!                       │                     ▼   │    init killed    │                 │
//!                       │                     Paused ─────────────────┘                 │
//!                       └─────────────── shutdown ends whatever still runs ─────────────┘
//! ```
//! `start` creates containers and processes, `control` does everything to those that exist. Whether the init has exited is
//! read from its exit and stored nowhere else. The table's lock and each container's lock are held for look-ups only; slow
//! operations run under the guest's lock (mutating acts are serial) or under no lock (waits).

mod confinement;
mod control;
pub mod pause;
mod request;
mod sources;
mod spec;
mod start;
mod user;

use std::{
    collections::{BTreeSet, HashMap},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use agent_protocol::limits::{CONTAINERS, FREEZE_DEADLINE};
use container_document::{ForeignDevice, ForeignSource};
use launcher_protocol::Profile;
use nix::unistd::Pid;
use policy::{ContainerId, action::Rlimit};

pub use self::{
    confinement::{Confinement, UnknownMask},
    spec::{UnjudgedSpec, exec_action, split},
    user::{UserDatabase, UserError},
};
use crate::{
    decode::{ProcessId, User},
    launcher::{LauncherError, Namespaces, Program},
    paths,
    reaper::{ExitWatch, Reaper},
    report_socket::{Desk, Socket},
    security_context::SecurityContext,
    stdio::Terminal,
};

/// Why a request about a container or process failed.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    #[error("container \"{0}\" is unknown")]
    Unknown(ContainerId),
    #[error("process \"{process}\" of container \"{container}\" is unknown")]
    UnknownProcess { container: ContainerId, process: ProcessId },
    #[error("container \"{0}\" exists already")]
    Exists(ContainerId),
    #[error("process \"{process}\" of container \"{container}\" exists already")]
    ProcessExists { container: ContainerId, process: ProcessId },
    #[error("container \"{container}\" is {is}, not {needed}")]
    State {
        container: ContainerId,
        is: &'static str,
        needed: &'static str,
    },
    #[error("a process of container \"{0}\" has ended")]
    Ended(ContainerId),
    #[error("container \"{0}\" has no root file system: mount its overlay first")]
    NoRootfs(ContainerId),
    #[error("sandbox \"{0}\" has no running container whose namespaces could be shared")]
    NoSandbox(ContainerId),
    #[error("{file} of container \"{container}\" may not be {requested}: {least} is in use")]
    BelowUse {
        container: ContainerId,
        file: &'static str,
        requested: u64,
        least: u64,
    },
    #[error("there are too many {0}")]
    TooMany(&'static str),
    #[error("the process has no terminal")]
    NoTerminal,
    #[error("exec in container of process that requires terminal access denied due to policy not allowing stdio access")]
    TerminalWithoutStdio,
    #[error("a request failed, and what it had done could not be undone")]
    NotUndone,
    #[error("processes of container \"{0}\" do not end")]
    Busy(ContainerId),
    #[error("processes of container \"{0}\" could not be frozen within {FREEZE_DEADLINE:?}")]
    Restless(ContainerId),
    #[error(transparent)]
    Source(#[from] ForeignSource),
    #[error(transparent)]
    Device(#[from] ForeignDevice),
    #[error(transparent)]
    Mask(#[from] UnknownMask),
    #[error("a mount source lies in or above another")]
    NestedSource,
    #[error("linux.sysctl: {0} is the kernel's and not a network namespace's, and the container is in the guest's")]
    Sysctl(String),
    #[error(transparent)]
    User(#[from] UserError),
    #[error(transparent)]
    Launcher(#[from] LauncherError),
    #[error("streams cannot be connected")]
    Stdio(#[source] io::Error),
    #[error("{step} failed")]
    Io {
        step: &'static str,
        #[source]
        cause: io::Error,
    },
}

fn io_error(step: &'static str) -> impl FnOnce(io::Error) -> ContainerError {
    move |cause| ContainerError::Io { step, cause }
}

/// A running or exited process.
pub struct Process {
    pid: Pid,
    /// What the policy knows of it when it judges a signal.
    args: Vec<String>,
    exit: ExitWatch,
    terminal: Option<Arc<Terminal>>,
    /// Of an init: what execs and the other containers of its pod enter.
    namespaces: Option<Namespaces>,
}

impl Process {
    fn has_ended(&self) -> bool {
        self.exit.borrow().is_some()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Created,
    Running,
    Paused,
}

impl Phase {
    const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
        }
    }
}

struct State {
    phase: Phase,
    processes: HashMap<ProcessId, Arc<Process>>,
}

/// A container that exists.
pub struct Container {
    id: ContainerId,
    seccomp: Option<Profile>,
    /// Limits of execs, if the policy judges them.
    rlimits: Option<Vec<Rlimit>>,
    /// How likely the OOM killer chooses its init.
    oom_score_adj: i32,
    users: UserDatabase,
    /// Where its processes ask for reports; closed with the container.
    reports: Mutex<Option<Socket>>,
    /// Whether its processes and those of its pod's first container see each other.
    shares_pids: bool,
    state: Mutex<State>,
}

/// All containers of the guest.
pub struct Containers {
    program: Program,
    reaper: Arc<Reaper>,
    table: Mutex<HashMap<ContainerId, Arc<Container>>>,
    /// Directories of the sandbox that containers have mounted.
    exposed: Mutex<BTreeSet<String>>,
    context: Mutex<SecurityContext>,
    desk: Desk,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Container {
    fn process(&self, id: &ProcessId) -> Result<Arc<Process>, ContainerError> {
        let unknown = || ContainerError::UnknownProcess {
            container: self.id.clone(),
            process: id.clone(),
        };
        lock(&self.state).processes.get(id).cloned().ok_or_else(unknown)
    }

    /// Resolves a spec's user by the container's own user database.
    pub fn identify(&self, user: &User) -> Result<user::Identity, ContainerError> {
        Ok(self.users.identify(user)?)
    }

    /// The init, if the container is in that phase and the init has not ended.
    fn init_in(&self, needed: Phase) -> Result<Arc<Process>, ContainerError> {
        let init = self.process(&ProcessId::Init)?;
        let is = match lock(&self.state).phase {
            _ if init.has_ended() => "stopped",
            phase if phase == needed => return Ok(init),
            phase => phase.name(),
        };
        Err(ContainerError::State {
            container: self.id.clone(),
            is,
            needed: needed.name(),
        })
    }
}

impl Containers {
    /// No container yet, only the entry of the guest itself, which has processes but no init. `program` starts
    /// containers; exits come from `reaper`, and reports are asked for at `desk`.
    pub fn new(program: Program, reaper: Arc<Reaper>, desk: Desk) -> Self {
        let guest = Container {
            id: paths::guest(),
            seccomp: None,
            rlimits: None,
            oom_score_adj: 0,
            users: UserDatabase::default(),
            reports: Mutex::default(),
            shares_pids: false,
            state: Mutex::new(State {
                phase: Phase::Running,
                processes: HashMap::new(),
            }),
        };
        Self {
            program,
            reaper,
            table: Mutex::new(HashMap::from([(guest.id.clone(), Arc::new(guest))])),
            exposed: Mutex::default(),
            context: Mutex::default(),
            desk,
        }
    }

    /// A container that exists.
    pub fn get(&self, id: &ContainerId) -> Result<Arc<Container>, ContainerError> {
        lock(&self.table)
            .get(id)
            .cloned()
            .ok_or_else(|| ContainerError::Unknown(id.clone()))
    }

    /// The content of the security context directory of later containers.
    pub fn context(&self) -> MutexGuard<'_, SecurityContext> {
        lock(&self.context)
    }

    /// Whether a container with this id could be created now.
    pub fn check_free(&self, id: &ContainerId) -> Result<(), ContainerError> {
        let table = lock(&self.table);
        // The entry of the guest itself does not count.
        if table.contains_key(id) {
            Err(ContainerError::Exists(id.clone()))
        } else if table.len() > CONTAINERS {
            Err(ContainerError::TooMany("containers"))
        } else {
            Ok(())
        }
    }

    /// Returns the exit of a process.
    pub fn exit_of(&self, id: &ContainerId, process: &ProcessId) -> Result<ExitWatch, ContainerError> {
        Ok(self.get(id)?.process(process)?.exit.clone())
    }
}
