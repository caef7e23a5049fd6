//! One process: an init or an exec, from its registration to its exit.
//!
//! ```text
//!              start               exit
//! Created ──────────────► Running ──────────► Stopped
//!    │              pause │   ▲ resume          ▲ ▲
//!    │                    ▼   │      killed     │ │
//!    │                    Paused ───────────────┘ │
//!    └──────── killed before its start ───────────┘
//! ```
//! Only an init is ever paused; its execs stand still with it.

use super::{
    container::{Container, lock},
    oom,
};
use crate::{
    error::Error,
    events::Publisher,
    sandbox::agent_call,
    stdio::{StdioPaths, Streams},
    vm::{KILLED, Vm},
};
use agent_protocol::{ExecProcessRequest, StartContainerRequest, WaitProcessRequest};
use containerd_shim_protos::{
    api::{StateResponse, Status},
    events::task::{TaskExecStarted, TaskExit, TaskStart},
    topics::{TASK_EXEC_STARTED_EVENT_TOPIC, TASK_EXIT_EVENT_TOPIC, TASK_START_EVENT_TOPIC},
};
use protobuf::well_known_types::timestamp::Timestamp;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::watch, time::timeout};

/// What was written last gets this long to reach its reader before the exit is told; a grandchild that keeps an
/// output open must not delay it further.
const EXIT_DRAIN: Duration = Duration::from_secs(1);
/// Execs die with the init; their exits are told first, unless they take longer than this.
const EXECS_END: Duration = Duration::from_secs(2);
/// What the guest counted of processes ended for want of memory is told before the exit, unless it takes longer.
const OOM_TOLD: Duration = Duration::from_secs(2);
/// Exit status where none can be known, as containerd has it.
const UNKNOWN: u32 = 255;

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessState {
    /// Registered or made, not started.
    Created,
    /// A start is under way.
    Starting,
    /// Started.
    Running,
    /// Started, and stands still.
    Paused,
    /// Ended.
    Stopped,
}

impl ProcessState {
    /// The word for messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// How a process ended.
#[derive(Clone, Debug)]
pub struct Exit {
    /// Exit code, or 128 + signal.
    pub status: u32,
    /// By the host's clock, like every other time that containerd sees.
    pub at: Timestamp,
}

impl Exit {
    /// An exit that happens now.
    pub fn now(status: u32) -> Self {
        Self {
            status,
            at: Timestamp::now(),
        }
    }
}

struct Changing {
    state: ProcessState,
    pid: u32,
    /// Terminal size that came before the start: columns, rows.
    size: (u32, u32),
    /// `CloseIO` came before there were streams.
    stdin_closed: bool,
    streams: Option<Arc<Streams>>,
}

/// An init or an exec.
pub struct Process {
    /// Empty for an init.
    pub exec_id: String,
    paths: StdioPaths,
    /// OCI process document of an exec, for the agent.
    document: Vec<u8>,
    changing: Mutex<Changing>,
    exit: watch::Sender<Option<Exit>>,
    /// Held through a start and through the telling of an exit, so that the events come in that order.
    order: tokio::sync::Mutex<()>,
}

impl Process {
    /// An init that the agent has made; `pid` is the VMM's.
    pub fn init(paths: StdioPaths, streams: Streams, pid: u32) -> Self {
        Self::new(String::new(), paths, Vec::new(), pid, Some(Arc::new(streams)))
    }

    /// An exec that was registered.
    pub fn exec(exec_id: String, paths: StdioPaths, document: Vec<u8>) -> Self {
        Self::new(exec_id, paths, document, 0, None)
    }

    fn new(exec_id: String, paths: StdioPaths, document: Vec<u8>, pid: u32, streams: Option<Arc<Streams>>) -> Self {
        let changing = Changing {
            state: ProcessState::Created,
            pid,
            size: (0, 0),
            stdin_closed: false,
            streams,
        };
        let (exit, _) = watch::channel(None);
        Self {
            exec_id,
            paths,
            document,
            changing: Mutex::new(changing),
            exit,
            order: tokio::sync::Mutex::default(),
        }
    }

    /// Where it is in its life.
    pub fn state(&self) -> ProcessState {
        lock(&self.changing).state
    }

    /// Process id: the VMM's for an init, the guest's for an exec.
    pub fn pid(&self) -> u32 {
        lock(&self.changing).pid
    }

    /// Starts it; the start is told before any exit.
    ///
    /// # Errors
    /// When it was started before, its container does not run, or the agent refuses.
    pub async fn start(self: &Arc<Self>, container: &Arc<Container>, events: &Publisher) -> Result<u32, Error> {
        if !self.exec_id.is_empty() && container.init.state() != ProcessState::Running {
            return Err(Error::State {
                call: "exec in",
                state: container.init.state().name(),
            });
        }
        self.begin_start()?;
        let _order = self.order.lock().await;
        let started = if self.exec_id.is_empty() {
            self.start_init(container).await
        } else {
            self.start_exec(container).await
        };
        let pid = match started {
            Ok(pid) => pid,
            Err(error) => {
                self.change(ProcessState::Starting, ProcessState::Created);
                return Err(error);
            }
        };
        self.change(ProcessState::Starting, ProcessState::Running);
        let container_id = container.id.clone();
        if self.exec_id.is_empty() {
            crate::phase::reached("started");
            events.publish(
                TASK_START_EVENT_TOPIC,
                &TaskStart {
                    container_id,
                    pid,
                    ..Default::default()
                },
            );
        } else {
            let event = TaskExecStarted {
                container_id,
                exec_id: self.exec_id.clone(),
                pid,
                ..Default::default()
            };
            events.publish(TASK_EXEC_STARTED_EVENT_TOPIC, &event);
            watch(container.clone(), self.clone(), events.clone());
        }
        Ok(pid)
    }

    fn begin_start(&self) -> Result<(), Error> {
        match self.change(ProcessState::Created, ProcessState::Starting) {
            true => Ok(()),
            false => Err(Error::State {
                call: "start",
                state: self.state().name(),
            }),
        }
    }

    async fn start_init(&self, container: &Container) -> Result<u32, Error> {
        let request = StartContainerRequest {
            container_id: container.id.clone(),
            ..Default::default()
        };
        let started = container.vm().agent().start_container(agent_call(), &request).await;
        started.map_err(Error::agent(format!("start container {}", container.id)))?;
        Ok(self.pid())
    }

    async fn start_exec(&self, container: &Container) -> Result<u32, Error> {
        let (streams, mut stdio) = Streams::open(&self.paths, container.vm().vsock()).await?;
        (stdio.width, stdio.height) = lock(&self.changing).size;
        let request = ExecProcessRequest {
            container_id: container.id.clone(),
            exec_id: self.exec_id.clone(),
            process: self.document.clone(),
            stdio: Some(stdio).into(),
            ..Default::default()
        };
        let answer = container.vm().agent().exec_process(agent_call(), &request).await;
        let pid = answer
            .map_err(Error::agent(format!("start exec {} in container {}", self.exec_id, container.id)))?
            .pid;
        let mut changing = lock(&self.changing);
        if changing.stdin_closed {
            streams.close_stdin();
        }
        changing.streams = Some(Arc::new(streams));
        changing.pid = pid;
        Ok(pid)
    }

    /// Waits for its turn among those that change what containerd is told of this process.
    pub async fn in_order(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.order.lock().await
    }

    /// Moves from `from` to `to`; false when it is not in `from`.
    pub fn change(&self, from: ProcessState, to: ProcessState) -> bool {
        let mut changing = lock(&self.changing);
        let fits = changing.state == from;
        if fits {
            changing.state = to;
        }
        fits
    }

    /// Ends it with `exit`, unless it has ended; gives how it ended.
    pub fn finish(&self, exit: Exit) -> Exit {
        lock(&self.changing).state = ProcessState::Stopped;
        self.exit
            .send_if_modified(|known| known.is_none() && known.replace(exit.clone()).is_none());
        self.exit.borrow().clone().unwrap_or(exit)
    }

    /// Waits for its exit.
    pub async fn exited(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        match exit.wait_for(Option::is_some).await {
            Ok(known) => known.clone().unwrap_or_else(|| Exit::now(UNKNOWN)),
            // The sender lives in this process's own struct.
            Err(_) => Exit::now(UNKNOWN),
        }
    }

    /// Whether a signal makes sense.
    ///
    /// # Errors
    /// When it has ended, or is an exec that was never started.
    pub fn may_be_signalled(&self) -> Result<(), Error> {
        match self.state() {
            ProcessState::Stopped => Err(Error::Finished),
            state @ ProcessState::Created if !self.exec_id.is_empty() => Err(Error::State {
                call: "signal",
                state: state.name(),
            }),
            _ => Ok(()),
        }
    }

    /// Its exit if it has ended; `None` for an exec that was never started and may be forgotten too.
    ///
    /// # Errors
    /// While it runs, or for an init that was only created.
    pub fn deletable(&self) -> Result<Option<Exit>, Error> {
        match self.state() {
            ProcessState::Stopped => Ok(self.exit.borrow().clone()),
            ProcessState::Created if !self.exec_id.is_empty() => Ok(None),
            state => Err(Error::State {
                call: "delete",
                state: state.name(),
            }),
        }
    }

    /// Waits until its outputs have ended, as long as they move within `patience`, and then cuts them.
    pub async fn drain(&self, patience: Duration) {
        let streams = lock(&self.changing).streams.clone();
        if let Some(streams) = streams {
            if !streams.drained_while_moving(patience).await {
                log::warn!("outputs are cut: their guest end is still open, and nobody read for {patience:?} or too much came");
            }
            lock(&self.changing).streams = None;
        }
    }

    /// `CloseIO`.
    pub fn close_stdin(&self) {
        let mut changing = lock(&self.changing);
        changing.stdin_closed = true;
        if let Some(streams) = &changing.streams {
            streams.close_stdin();
        }
    }

    /// Takes a terminal size where the guest need not be asked: for an exec not yet started, and where there is no
    /// terminal; false when it must be.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn keep_size(&self, width: u32, height: u32) -> Result<bool, Error> {
        let mut changing = lock(&self.changing);
        if changing.state == ProcessState::Stopped {
            return Err(Error::State {
                call: "resize the terminal of",
                state: changing.state.name(),
            });
        }
        let waits = changing.state == ProcessState::Created && !self.exec_id.is_empty();
        if waits {
            changing.size = (width, height);
        }
        Ok(waits || !self.paths.terminal)
    }

    /// The answer to `State`.
    pub fn describe(&self, container: &Container) -> StateResponse {
        let status = match self.state() {
            ProcessState::Created | ProcessState::Starting => Status::CREATED,
            ProcessState::Running if container.init.state() == ProcessState::Paused => Status::PAUSED,
            ProcessState::Running => Status::RUNNING,
            ProcessState::Paused => Status::PAUSED,
            ProcessState::Stopped => Status::STOPPED,
        };
        let exit = self.exit.borrow().clone();
        StateResponse {
            id: container.id.clone(),
            bundle: container.bundle.clone(),
            pid: self.pid(),
            status: status.into(),
            stdin: self.paths.stdin.clone(),
            stdout: self.paths.stdout.clone(),
            stderr: self.paths.stderr.clone(),
            terminal: self.paths.terminal,
            exit_status: exit.as_ref().map(|exit| exit.status).unwrap_or_default(),
            exited_at: exit.map(|exit| exit.at).into(),
            exec_id: self.exec_id.clone(),
            ..Default::default()
        }
    }
}

/// Waits for the process's end in a task of its own and tells it.
pub fn watch(container: Arc<Container>, process: Arc<Process>, events: Publisher) {
    let is_init = process.exec_id.is_empty();
    let oom = is_init.then(|| tokio::spawn(oom::tell(container.clone(), events.clone())));
    tokio::spawn(async move {
        let exit = wait(container.vm(), &container.id, &process.exec_id).await;
        if let Some(mut oom) = oom
            && timeout(OOM_TOLD, &mut oom).await.is_err()
        {
            oom.abort();
        }
        let _order = process.order.lock().await;
        if is_init {
            crate::phase::reached("exited");
            let execs = container.execs();
            let ended = async {
                for exec in execs
                    .iter()
                    .filter(|exec| matches!(exec.state(), ProcessState::Starting | ProcessState::Running))
                {
                    exec.exited().await;
                }
            };
            let _ = timeout(EXECS_END, ended).await;
        }
        let streams = lock(&process.changing).streams.clone();
        if let Some(streams) = streams {
            streams.end_stdin();
            streams.drained(EXIT_DRAIN).await;
        }
        let id = if is_init { container.id.clone() } else { process.exec_id.clone() };
        let event = TaskExit {
            container_id: container.id.clone(),
            id,
            pid: process.pid(),
            exit_status: exit.status,
            exited_at: Some(exit.at.clone()).into(),
            ..Default::default()
        };
        events.publish(TASK_EXIT_EVENT_TOPIC, &event);
        process.finish(exit);
    });
}

/// The exit of a process, or what the end of its VM makes of it.
async fn wait(vm: &Vm, container: &str, exec: &str) -> Exit {
    let request = WaitProcessRequest {
        container_id: container.to_owned(),
        exec_id: exec.to_owned(),
        ..Default::default()
    };
    let answer = tokio::select! {
        biased;
        answer = vm.agent().wait_process(ttrpc::context::with_timeout(0), &request) => answer,
        () = vm.ended() => Err(ttrpc::Error::RemoteClosed),
    };
    match answer {
        Ok(answer) => Exit::now(answer.exit_status),
        Err(ttrpc::Error::RpcStatus(status)) if !vm.has_ended() => {
            log::error!("the agent cannot tell the exit of {container}/{exec}: {}", status.message());
            Exit::now(UNKNOWN)
        }
        Err(error) => {
            // A VMM closes its sockets before it says how its guest ended, and a guest says why its agent did.
            if vm.end().await.is_none() {
                // Without its agent a guest is of no use and cannot be controlled.
                log::error!("the agent is gone ({error}); ending its VM");
                vm.kill_and_wait().await;
            }
            Exit::now(KILLED)
        }
    }
}
