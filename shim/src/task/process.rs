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
//! Only an init is paused; its execs are frozen with it.

use crate::{
    error::Error,
    stdio::{StdioPaths, Streams},
};
use protobuf::well_known_types::timestamp::Timestamp;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// Exit status where none can be known, as containerd has it.
pub const UNKNOWN: u32 = 255;

/// The phase of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessState {
    /// Registered or created, not started.
    Created,
    /// A start is under way.
    Starting,
    /// Started.
    Running,
    /// Started and frozen.
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
    /// Process id in the guest of an init.
    guest_pid: u32,
    paths: StdioPaths,
    /// OCI process document of an exec, for the agent.
    document: Vec<u8>,
    changing: Mutex<Changing>,
    exit: watch::Sender<Option<Exit>>,
    /// Held through a start and through the report of an exit, so that the events come in that order.
    order: tokio::sync::Mutex<()>,
}

impl Process {
    /// An init that the agent has created; `pid` is the VMM's, `guest_pid` its own.
    pub fn init(paths: StdioPaths, streams: Streams, pid: u32, guest_pid: u32) -> Self {
        let init = Self::new(String::new(), paths, Vec::new(), pid, Some(Arc::new(streams)));
        Self { guest_pid, ..init }
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
            guest_pid: 0,
            paths,
            document,
            changing: Mutex::new(changing),
            exit,
            order: tokio::sync::Mutex::default(),
        }
    }

    /// Its phase.
    pub fn state(&self) -> ProcessState {
        lock(&self.changing).state
    }

    /// Process id: the VMM's for an init, the guest's for an exec.
    pub fn pid(&self) -> u32 {
        lock(&self.changing).pid
    }

    /// Process id in the guest of an init.
    pub fn guest_pid(&self) -> u32 {
        self.guest_pid
    }

    /// Begins a start.
    ///
    /// # Errors
    /// When it was started before.
    pub fn begin_start(&self) -> Result<(), Error> {
        match self.change(ProcessState::Created, ProcessState::Starting) {
            true => Ok(()),
            false => Err(Error::State {
                call: "start",
                state: self.state().name(),
            }),
        }
    }

    /// Where its streams lead.
    pub fn paths(&self) -> &StdioPaths {
        &self.paths
    }

    /// OCI process document of an exec.
    pub fn document(&self) -> &[u8] {
        &self.document
    }

    /// The terminal size that was set before the start: columns, rows.
    pub fn size(&self) -> (u32, u32) {
        lock(&self.changing).size
    }

    /// A started exec: its process id in the guest and its streams.
    pub fn attach(&self, pid: u32, streams: Streams) {
        let mut changing = lock(&self.changing);
        if changing.stdin_closed {
            streams.close_stdin();
        }
        changing.streams = Some(Arc::new(streams));
        changing.pid = pid;
    }

    /// Its streams, until they have been drained.
    pub fn streams(&self) -> Option<Arc<Streams>> {
        lock(&self.changing).streams.clone()
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        self.exit.borrow().clone()
    }

    /// Waits until no other task reports an event of this process.
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

    /// Ends it with `exit`, unless it has ended; returns how it ended.
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

    /// Waits until its outputs have ended, as long as bytes move within `patience`; then closes them.
    pub async fn drain(&self, patience: Duration) {
        let streams = lock(&self.changing).streams.clone();
        if let Some(streams) = streams {
            if !streams.drained_while_moving(patience).await {
                log::warn!("outputs are closed while the guest still has them open: no byte moved for {patience:?}, or too many did");
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

    /// Keeps a terminal size for an exec not yet started and drops it where there is no terminal; false when the guest must be
    /// called.
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
}

/// Every value is changed in one step, so what a panicking thread left is sound.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
