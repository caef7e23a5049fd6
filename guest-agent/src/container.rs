//! Containers and their processes.
//!
//! ```text
//!            create                 start             init ends            shutdown
//!   (absent) ──────► Created ──────────────► Running ──────────► (ended) ──────────► (absent)
//!                       └─────────────── shutdown ends whatever still runs ─────────────▲
//! ```
//! That the init has ended is read from its exit, never stored twice. The table's lock and each container's are held
//! for look-ups only; what takes time runs under the guest's lock (mutating acts are serial) or under none (waits).

mod spec;
mod user;

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    io::Write,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use agent_protocol::limits::{CONTAINERS, KILL_DEADLINE, PROCESSES};
use nix::unistd::{Gid, Pid, Uid};
use policy::{
    ContainerId, Permit,
    action::{CreateContainer, ExecInContainer, ShutdownContainer, SignalContainerProcess},
};
use tokio::io::{AsyncRead, AsyncWrite};

pub use self::{
    spec::{ForeignSource, Rest, exec_action, split},
    user::{UserDatabase, UserError},
};
use crate::{
    cgroup,
    decode::{ProcessId, Profile, Rlimit, TerminalSize, User},
    guest_dir::Directory,
    launcher::{self, LauncherError, Started, Verb},
    paths,
    reaper::{ExitWatch, Reaper},
    stdio::{self, HostStreams, ProcessEnds, Terminal},
};

/// What libcontainer's init waits to read before it executes the program.
const START_NOTICE: &[u8] = b"start container";

/// Why a container or process is not as wished.
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
    #[error(transparent)]
    Source(#[from] ForeignSource),
    #[error("a mount source lies in or above another")]
    NestedSource,
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

/// A running or ended process.
pub struct Process {
    pid: Pid,
    /// What signals are judged by.
    args: Vec<String>,
    exit: ExitWatch,
    terminal: Option<Arc<Terminal>>,
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
}

struct State {
    phase: Phase,
    processes: HashMap<ProcessId, Arc<Process>>,
}

/// A container that exists.
pub struct Container {
    id: ContainerId,
    seccomp: Option<Profile>,
    users: UserDatabase,
    state: Mutex<State>,
}

/// All containers of the guest.
pub struct Containers {
    reaper: Arc<Reaper>,
    table: Mutex<HashMap<ContainerId, Arc<Container>>>,
    /// Directories of the sandbox that some container has mounted.
    exposed: Mutex<BTreeSet<String>>,
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

    /// Whom a spec's user means in this container.
    pub fn identify(&self, user: &User) -> Result<user::Identity, ContainerError> {
        Ok(self.users.identify(user)?)
    }

    /// The init's pid while the container runs.
    fn running_init(&self) -> Result<Pid, ContainerError> {
        let init = self.process(&ProcessId::Init)?;
        let is = match lock(&self.state).phase {
            _ if init.has_ended() => "stopped",
            Phase::Running => return Ok(init.pid),
            Phase::Created => "created",
        };
        Err(ContainerError::State {
            container: self.id.clone(),
            is,
            needed: "running",
        })
    }
}

impl Containers {
    /// No container yet; exits come from `reaper`.
    pub fn new(reaper: Arc<Reaper>) -> Self {
        Self {
            reaper,
            table: Mutex::default(),
            exposed: Mutex::default(),
        }
    }

    /// A container that exists.
    pub fn get(&self, id: &ContainerId) -> Result<Arc<Container>, ContainerError> {
        lock(&self.table)
            .get(id)
            .cloned()
            .ok_or_else(|| ContainerError::Unknown(id.clone()))
    }

    /// Whether a container of this id could be made now.
    pub fn check_free(&self, id: &ContainerId) -> Result<(), ContainerError> {
        let table = lock(&self.table);
        if table.contains_key(id) {
            Err(ContainerError::Exists(id.clone()))
        } else if table.len() >= CONTAINERS {
            Err(ContainerError::TooMany("containers"))
        } else {
            Ok(())
        }
    }

    /// Makes the container of the permit, its init waiting for [`Self::start`]; the init's pid comes back.
    pub fn create<S>(
        &self,
        permit: Permit<'_, CreateContainer>,
        rest: Rest,
        users: UserDatabase,
        sandbox: &ContainerId,
        size: Option<TerminalSize>,
        streams: HostStreams<S>,
    ) -> Result<Pid, ContainerError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let id = permit.action().container_id.clone();
        self.check_free(&id)?;
        let sandbox_pid = self.get(sandbox).and_then(|container| container.running_init()).ok();
        let namespaces = rest
            .namespaces(sandbox_pid.map(Pid::as_raw))
            .ok_or_else(|| ContainerError::NoSandbox(sandbox.clone()))?;
        self.make_sources(permit.action())?;
        let spec = spec::of_container(permit.action(), permit.verdict(), &rest, &namespaces);
        let streams = if permit.verdict().stdio { streams } else { HostStreams::none() };
        let owner = owner(&spec);
        let process = self.launch(Verb::Create, &id, &spec, owner, size, streams).map_err(|error| {
            // Whatever came into being of the container goes again; the error to tell is the first, unless its traces stay.
            self.clear(&id).map_or(ContainerError::NotUndone, |()| error)
        })?;
        let process = Process {
            args: permit.action().arg_list.clone(),
            ..process
        };
        let pid = process.pid;
        let processes = HashMap::from([(ProcessId::Init, Arc::new(process))]);
        let state = Mutex::new(State {
            phase: Phase::Created,
            processes,
        });
        let container = Container {
            id: id.clone(),
            seccomp: rest.seccomp,
            users,
            state,
        };
        lock(&self.table).insert(id, Arc::new(container));
        permit.commit();
        Ok(pid)
    }

    /// Lets the init of a created container go.
    pub fn start(&self, id: &ContainerId) -> Result<(), ContainerError> {
        let container = self.get(id)?;
        let init = container.process(&ProcessId::Init)?;
        {
            let mut state = lock(&container.state);
            let is = match state.phase {
                _ if init.has_ended() => "stopped",
                Phase::Running => "running",
                Phase::Created => {
                    state.phase = Phase::Running;
                    "created"
                }
            };
            if is != "created" {
                return Err(ContainerError::State {
                    container: id.clone(),
                    is,
                    needed: "created",
                });
            }
        }
        UnixStream::connect(paths::runtime_state(id).join("notify.sock"))
            .and_then(|mut socket| socket.write_all(START_NOTICE))
            .map_err(io_error("starting the container"))
    }

    /// Starts the process of the permit in a running container.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a part of one order, already taken apart for its judgement"
    )]
    pub fn exec<S>(
        &self,
        permit: Permit<'_, ExecInContainer>,
        exec_id: String,
        terminal: bool,
        rlimits: Vec<Rlimit>,
        oom_score_adj: Option<i32>,
        size: Option<TerminalSize>,
        streams: HostStreams<S>,
    ) -> Result<Pid, ContainerError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let action = permit.action();
        let container = self.get(&action.container_id)?;
        let process_id = ProcessId::Exec(exec_id);
        self.check_exec(&container, &process_id)?;
        let init = container.running_init()?;
        if terminal && !permit.verdict().stdio {
            return Err(ContainerError::TerminalWithoutStdio);
        }
        let streams = if permit.verdict().stdio { streams } else { HostStreams::none() };
        let seccomp = container.seccomp.as_ref();
        let spec = spec::of_exec(action, permit.verdict(), terminal, &rlimits, oom_score_adj, init.as_raw(), seccomp);
        let process = self
            .launch(Verb::Exec, &container.id, &spec, owner(&spec), size, streams)
            .map_err(|error| self.undo_exec(&container.id, error))?;
        let process = Process {
            args: action.arg_list.clone(),
            ..process
        };
        let pid = process.pid;
        lock(&container.state).processes.insert(process_id, Arc::new(process));
        permit.commit();
        Ok(pid)
    }

    fn check_exec(&self, container: &Container, id: &ProcessId) -> Result<(), ContainerError> {
        let state = lock(&container.state);
        if state.processes.contains_key(id) {
            Err(ContainerError::ProcessExists {
                container: container.id.clone(),
                process: id.clone(),
            })
        } else if state.processes.len() >= PROCESSES {
            Err(ContainerError::TooMany("processes in the container"))
        } else {
            Ok(())
        }
    }

    fn launch<S>(
        &self,
        verb: Verb,
        id: &ContainerId,
        spec: &serde_json::Value,
        (uid, gid): (Uid, Gid),
        size: Option<TerminalSize>,
        streams: HostStreams<S>,
    ) -> Result<Process, ContainerError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if spec["process"]["terminal"] == true {
            let Started { pid, exit, terminal } = launcher::launch(&self.reaper, verb, id, spec, ProcessEnds::null())?;
            let terminal = terminal.ok_or_else(|| self.abandon(pid, LauncherError::Answer.into()))?;
            let connected = Terminal::new(terminal).and_then(|terminal| {
                terminal.resize(size.unwrap_or_default())?;
                Ok(Arc::new(terminal))
            });
            let terminal = connected.map_err(|error| self.abandon(pid, ContainerError::Stdio(error)))?;
            stdio::start_terminal(&terminal, streams, exit.clone());
            return Ok(Process {
                pid,
                args: Vec::new(),
                exit,
                terminal: Some(terminal),
            });
        }
        let (ends, pipes) = stdio::pipes(streams, uid, gid).map_err(ContainerError::Stdio)?;
        let Started { pid, exit, .. } = launcher::launch(&self.reaper, verb, id, spec, ends)?;
        pipes
            .start(exit.clone())
            .map_err(|error| self.abandon(pid, ContainerError::Stdio(error)))?;
        Ok(Process {
            pid,
            args: Vec::new(),
            exit,
            terminal: None,
        })
    }

    /// What a launcher that fell silent has started by then cannot be told from the container's own processes: all end.
    fn undo_exec(&self, id: &ContainerId, error: ContainerError) -> ContainerError {
        match error {
            ContainerError::Launcher(LauncherError::Silent | LauncherError::Answer) => {
                cgroup::kill(id).map_or(ContainerError::NotUndone, |()| error)
            }
            other => other,
        }
    }

    /// Ends a process that was started and cannot be used.
    fn abandon(&self, pid: Pid, error: ContainerError) -> ContainerError {
        let _ = self.reaper.signal(pid, libc::SIGKILL);
        error
    }

    /// Makes the sandbox's directories that the container mounts.
    ///
    /// No source may lie in another: a container that has the outer one could put a link in the inner one's way.
    fn make_sources(&self, action: &CreateContainer) -> Result<(), ContainerError> {
        let mut exposed = lock(&self.exposed);
        let sources = action.mounts.iter().filter(|mount| mount.kind == "bind").map(|mount| &mount.source);
        for source in sources {
            let nested = |other: &String| is_inside(source, other) || is_inside(other, source);
            if exposed.iter().any(nested) {
                return Err(ContainerError::NestedSource);
            }
            Directory::make(source).map_err(io_error("making a directory of the sandbox"))?;
            exposed.insert(source.clone());
        }
        Ok(())
    }

    /// What a signal to a process is judged by: whether it is the init, and its arguments.
    pub fn signal_action(
        &self,
        id: &ContainerId,
        process: &ProcessId,
        signal: i32,
        all: bool,
    ) -> Result<SignalContainerProcess, ContainerError> {
        let target = if all { &ProcessId::Init } else { process };
        let receiver = self.get(id)?.process(target)?;
        Ok(SignalContainerProcess {
            container_id: id.clone(),
            signal,
            is_init_process: *target == ProcessId::Init,
            arg_list: Some(receiver.args.clone()),
        })
    }

    /// Sends the signal of the permit.
    pub fn signal(&self, permit: Permit<'_, SignalContainerProcess>, process: &ProcessId, all: bool) -> Result<(), ContainerError> {
        let SignalContainerProcess { container_id, signal, .. } = permit.action();
        let failed = io_error("sending a signal");
        if all && *signal == libc::SIGKILL {
            cgroup::kill(container_id).map_err(failed)?;
        } else if all {
            for pid in cgroup::processes(container_id).map_err(io_error("listing processes"))? {
                // One that has just ended needs no signal any more.
                let _ = crate::sys::kill(Pid::from_raw(pid), *signal);
            }
        } else {
            let receiver = self.get(container_id)?.process(process)?;
            if !self.reaper.signal(receiver.pid, *signal).map_err(failed)? {
                return Err(ContainerError::Ended(container_id.clone()));
            }
        }
        permit.commit();
        Ok(())
    }

    /// Tells the end of a process.
    pub fn exit_of(&self, id: &ContainerId, process: &ProcessId) -> Result<ExitWatch, ContainerError> {
        Ok(self.get(id)?.process(process)?.exit.clone())
    }

    /// Forgets an exec process that has ended.
    pub fn delete_process(&self, id: &ContainerId, exec_id: &ProcessId) -> Result<(), ContainerError> {
        let container = self.get(id)?;
        let is = match exec_id {
            ProcessId::Init => "to be shut down whole",
            _ if container.process(exec_id)?.has_ended() => "stopped",
            _ => "running",
        };
        if is != "stopped" {
            return Err(ContainerError::State {
                container: id.clone(),
                is,
                needed: "stopped",
            });
        }
        lock(&container.state).processes.remove(exec_id);
        Ok(())
    }

    /// Sets the size of a process's terminal.
    pub fn resize(&self, id: &ContainerId, process: &ProcessId, size: TerminalSize) -> Result<(), ContainerError> {
        let process = self.get(id)?.process(process)?;
        let terminal = process.terminal.as_ref().ok_or(ContainerError::NoTerminal)?;
        terminal.resize(size).map_err(io_error("resizing the terminal"))
    }

    /// Pids in a container, those of exec processes with their ids.
    pub fn list(&self, id: &ContainerId) -> Result<Vec<(u32, String)>, ContainerError> {
        let container = self.get(id)?;
        let pids = cgroup::processes(id).map_err(io_error("listing processes"))?;
        let state = lock(&container.state);
        let name = |pid: i32| {
            let of_exec = state.processes.iter().find(|(_, process)| process.pid.as_raw() == pid);
            match of_exec {
                Some((ProcessId::Exec(exec_id), _)) => exec_id.clone(),
                _ => String::new(),
            }
        };
        Ok(pids.into_iter().map(|pid| (pid as u32, name(pid))).collect())
    }

    /// Kills what runs of the permit's container, which stays: nothing is committed.
    pub fn end(&self, permit: Permit<'_, ShutdownContainer>) -> Result<(), ContainerError> {
        cgroup::kill(&permit.action().container_id).map_err(io_error("ending the container"))
    }

    /// Waits for the last process of a container that was killed.
    pub async fn ended(&self, id: &ContainerId) -> Result<(), ContainerError> {
        let is_empty = cgroup::emptied(id, KILL_DEADLINE).await.map_err(io_error("ending the container"))?;
        is_empty.then_some(()).ok_or_else(|| ContainerError::Busy(id.clone()))
    }

    /// Ends whatever still runs of the permit's container and forgets it.
    pub fn shutdown(&self, permit: Permit<'_, ShutdownContainer>) -> Result<(), ContainerError> {
        let id = permit.action().container_id.clone();
        self.get(&id)?;
        self.clear(&id)?;
        lock(&self.table).remove(&id);
        permit.commit();
        Ok(())
    }

    /// Ends and removes all containers, for the end of the guest.
    pub fn end_all(&self) {
        let ids = lock(&self.table).keys().cloned().collect::<Vec<_>>();
        for id in ids {
            let _ = cgroup::kill(&id);
        }
    }

    /// Kills, waits, and removes what the launcher left.
    fn clear(&self, id: &ContainerId) -> Result<(), ContainerError> {
        cgroup::kill(id).map_err(io_error("ending the container"))?;
        if !cgroup::wait_empty(id, KILL_DEADLINE).map_err(io_error("ending the container"))? {
            return Err(ContainerError::Busy(id.clone()));
        }
        cgroup::remove(id).map_err(io_error("removing the cgroup"))?;
        for directory in [paths::bundle(id), paths::runtime_state(id)] {
            match fs::remove_dir_all(directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error("removing the bundle")(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

/// User and group that the spec gives the process.
fn owner(spec: &serde_json::Value) -> (Uid, Gid) {
    let number = |name: &str| {
        spec["process"]["user"][name]
            .as_u64()
            .and_then(|n| u32::try_from(n).ok())
            .unwrap_or(0)
    };
    (Uid::from_raw(number("uid")), Gid::from_raw(number("gid")))
}

/// Whether `inner` lies strictly below `outer`.
fn is_inside(inner: &str, outer: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_begin_alike_are_not_nested() {
        assert!(is_inside("/a/b", "/a"));
        assert!(!is_inside("/ab", "/a"));
        assert!(!is_inside("/a", "/a"));
    }
}
