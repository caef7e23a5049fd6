//! Creates containers and processes that a permit allows, through the launcher.

use std::{
    collections::HashMap,
    io::Write,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex},
};

use agent_protocol::limits::{FREEZE_DEADLINE, PROCESSES};
use launcher_protocol::{Request, START_NOTICE, notify_socket};
use nix::unistd::{Gid, Pid, Uid};
use policy::{
    ContainerId, Permit,
    action::{Action, CreateContainer, ExecExternal, ExecInContainer, Rlimit},
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Confinement, Container, ContainerError, Containers, Phase, Process, State, UnjudgedSpec, UserDatabase, io_error, lock, request,
    sources::Sources,
};
use crate::{
    cgroup::{self, freezer},
    decode::{Limits, ProcessId, TerminalSize},
    guest_dir::Directory,
    launcher::{self, LauncherError, Started},
    paths, pod_files,
    reaper::{ExitWatch, ended},
    report_socket::{self, Socket},
    security_context::Written,
    stdio::{self, HostStreams, ProcessEnds, Terminal},
    sysctl,
};

impl Containers {
    /// Creates the container of the permit, with its init waiting for [`Self::start`]; returns the init's pid.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a part of one request, already split for the judgement"
    )]
    pub fn create<S>(
        &self,
        permit: Permit<'_, CreateContainer>,
        confinement: Confinement,
        unjudged: UnjudgedSpec,
        users: UserDatabase,
        limits: &Limits,
        sandbox: &ContainerId,
        size: Option<TerminalSize>,
        streams: HostStreams<S>,
    ) -> Result<Pid, ContainerError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let id = permit.action().container_id.clone();
        self.check_free(&id)?;
        let pod = self.get(sandbox).and_then(|container| container.init_in(Phase::Running)).ok();
        let namespaces = confinement
            .namespaces(pod.as_ref().and_then(|init| init.namespaces.as_ref()))
            .ok_or_else(|| ContainerError::NoSandbox(sandbox.clone()))?;
        if let Some(name) = sysctl::outside_namespaces(confinement.sysctls().keys()).map_err(io_error("checking kernel parameters"))? {
            return Err(ContainerError::Sysctl(name));
        }
        let sources = self.stage_sources(permit.action(), sandbox)?;
        let context = self.write_context(&id, &unjudged)?;
        let reports = context.as_ref().map(|written| self.serve_reports(written, &id)).transpose()?;
        let variable = context.as_ref().map(Written::variable);
        let request = request::of_container(
            permit.action(),
            permit.verdict(),
            &confinement,
            &unjudged,
            namespaces,
            &sources,
            variable,
        );
        let streams = if permit.verdict().stdio { streams } else { HostStreams::none() };
        let _still = confinement.shares_pids().then(|| self.freeze_pod(sandbox)).transpose()?;
        // Before anything runs in it, and exactly as judged: libcontainer would translate the document's numbers in its own way.
        let limited = cgroup::create(&id).and_then(|()| cgroup::limits::set(&id, limits));
        let process = limited
            .map_err(io_error("setting limits"))
            .and_then(|()| self.launch(&request, size, streams));
        let process = process.map_err(|error| {
            // Everything that was created for the container is removed again. The first error is reported, unless something is left.
            let cleared = self.clear(&id).is_ok() && context.as_ref().is_none_or(|written| written.remove().is_ok());
            if cleared { error } else { ContainerError::NotUndone }
        })?;
        let process = Process {
            args: permit.action().arg_list.clone(),
            ..process
        };
        let (pid, exit) = (process.pid, process.exit.clone());
        let processes = HashMap::from([(ProcessId::Init, Arc::new(process))]);
        let state = Mutex::new(State {
            phase: Phase::Created,
            processes,
        });
        let container = Container {
            id: id.clone(),
            seccomp: unjudged.seccomp,
            rlimits: confinement.rlimits_of_execs(),
            oom_score_adj: confinement.oom_score_adj(),
            users,
            reports: Mutex::new(reports),
            shares_pids: confinement.shares_pids(),
            state,
        };
        let container = Arc::new(container);
        if container.shares_pids {
            end_with_init(&container, exit);
        }
        lock(&self.table).insert(id, container);
        permit.commit();
        Ok(pid)
    }

    /// Freezes every container in the pid namespace of `sandbox`, until the value is dropped.
    ///
    /// An init appears in that namespace while its root is still the guest's. Until pivot_root, a process that may trace the init
    /// could follow its `/proc/<pid>/root` to the guest's files. An init with a pid namespace of its own is visible to no container.
    fn freeze_pod(&self, sandbox: &ContainerId) -> Result<FrozenContainers, ContainerError> {
        let mut held = FrozenContainers(Vec::new());
        let see = |container: &&Arc<Container>| container.id == *sandbox || container.shares_pids;
        let onlookers: Vec<_> = lock(&self.table).values().filter(see).cloned().collect();
        for container in onlookers {
            // A paused container is already frozen and stays so; in a created one no program runs yet.
            if lock(&container.state).phase == Phase::Running {
                let id = container.id.clone();
                if !freezer::freeze(&id, FREEZE_DEADLINE).map_err(io_error("freezing the pod's processes"))? {
                    return Err(ContainerError::Restless(id));
                }
                held.0.push(id);
            }
        }
        Ok(held)
    }

    /// Writes the security context directory, if the container gets one.
    fn write_context(&self, id: &ContainerId, unjudged: &UnjudgedSpec) -> Result<Option<Written>, ContainerError> {
        let Some(certificate) = &unjudged.host_certificate else {
            return Ok(None);
        };
        let written = self.context().write(&paths::rootfs(id), certificate);
        written.map_err(io_error("writing the security context directory"))
    }

    /// Serves reports in the security context directory, which is removed if that fails.
    fn serve_reports(&self, written: &Written, id: &ContainerId) -> Result<Socket, ContainerError> {
        report_socket::serve(written.directory(), id.clone(), self.desk.clone()).map_err(|cause| {
            if written.remove().is_err() {
                return ContainerError::NotUndone;
            }
            io_error("serving reports")(cause)
        })
    }

    /// Starts the init of a created container.
    pub fn start(&self, id: &ContainerId) -> Result<(), ContainerError> {
        let container = self.get(id)?;
        container.init_in(Phase::Created)?;
        {
            let mut state = lock(&container.state);
            // Another call may have been faster.
            if state.phase != Phase::Created {
                return Err(ContainerError::State {
                    container: id.clone(),
                    is: state.phase.name(),
                    needed: Phase::Created.name(),
                });
            }
            state.phase = Phase::Running;
        }
        UnixStream::connect(notify_socket(id.as_hex()))
            .and_then(|mut socket| socket.write_all(START_NOTICE))
            .map_err(io_error("starting the container"))
    }

    /// Starts the process of the permit in a running container.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a part of one request, already split for the judgement"
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
        let init = container.init_in(Phase::Running)?;
        let namespaces = init
            .namespaces
            .as_ref()
            .ok_or_else(|| ContainerError::Unknown(container.id.clone()))?;
        if terminal && !permit.verdict().stdio {
            return Err(ContainerError::TerminalWithoutStdio);
        }
        let streams = if permit.verdict().stdio { streams } else { HostStreams::none() };
        let seccomp = container.seccomp.as_ref();
        let rlimits = container.rlimits.as_ref().unwrap_or(&rlimits);
        // Not less likely than the init, which was judged.
        let oom_score_adj = oom_score_adj.map_or(container.oom_score_adj, |score| score.clamp(container.oom_score_adj, 1000));
        let request = request::of_exec(action, permit.verdict(), terminal, rlimits, oom_score_adj, namespaces, seccomp);
        let process = match self.launch(&request, size, streams) {
            Ok(process) => process,
            Err(error) => return Err(self.undo_exec(permit, &container.id, error)),
        };
        let process = Process {
            args: action.arg_list.clone(),
            ..process
        };
        let pid = process.pid;
        lock(&container.state).processes.insert(process_id, Arc::new(process));
        permit.commit();
        Ok(pid)
    }

    /// Starts the process of the permit in the guest itself.
    pub fn exec_external<S>(
        &self,
        permit: Permit<'_, ExecExternal>,
        exec_id: String,
        size: Option<TerminalSize>,
        streams: HostStreams<S>,
    ) -> Result<Pid, ContainerError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let guest = self.get(&paths::guest())?;
        let process_id = ProcessId::Exec(exec_id);
        self.check_exec(&guest, &process_id)?;
        let action = permit.action();
        if size.is_some() && !permit.verdict().stdio {
            return Err(ContainerError::TerminalWithoutStdio);
        }
        let streams = if permit.verdict().stdio { streams } else { HostStreams::none() };
        let request = request::of_external(action, permit.verdict(), size.is_some());
        let process = match self.launch(&request, size, streams) {
            Ok(process) => process,
            Err(error) => return Err(self.undo_exec(permit, &guest.id, error)),
        };
        let process = Process {
            args: action.arg_list.clone(),
            ..process
        };
        let pid = process.pid;
        lock(&guest.state).processes.insert(process_id, Arc::new(process));
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

    fn launch<S>(&self, request: &Request, size: Option<TerminalSize>, streams: HostStreams<S>) -> Result<Process, ContainerError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (terminal, uid, gid) = match request {
            Request::Create(container) => ends_of(&container.process),
            Request::Exec(exec) => ends_of(&exec.process),
            Request::External(process) => (process.terminal, ROOT.0, ROOT.1),
        };
        if terminal {
            let Started {
                pid,
                exit,
                terminal,
                namespaces,
            } = launcher::launch(&self.program, &self.reaper, request, ProcessEnds::null())?;
            let terminal = terminal.ok_or_else(|| self.kill_unusable(pid, LauncherError::Answer.into()))?;
            let connected = Terminal::new(terminal).and_then(|terminal| {
                terminal.resize(size.unwrap_or_default())?;
                Ok(Arc::new(terminal))
            });
            let terminal = connected.map_err(|error| self.kill_unusable(pid, ContainerError::Stdio(error)))?;
            stdio::start_terminal(&terminal, streams, exit.clone());
            return Ok(Process {
                pid,
                args: Vec::new(),
                exit,
                terminal: Some(terminal),
                namespaces,
            });
        }
        let (ends, pipes) = stdio::pipes(streams, uid, gid).map_err(ContainerError::Stdio)?;
        let Started { pid, exit, namespaces, .. } = launcher::launch(&self.program, &self.reaper, request, ends)?;
        pipes
            .start(exit.clone())
            .map_err(|error| self.kill_unusable(pid, ContainerError::Stdio(error)))?;
        Ok(Process {
            pid,
            args: Vec::new(),
            exit,
            terminal: None,
            namespaces,
        })
    }

    /// Kills what a failed launch may have started. If a process may have run, the policy remembers it as allowed, because
    /// its children live on in the container; if it cannot have run, the permit is dropped and nothing is remembered.
    fn undo_exec<A: Action>(&self, permit: Permit<'_, A>, id: &ContainerId, error: ContainerError) -> ContainerError {
        let error = match error {
            ContainerError::Launcher(LauncherError::Silent | LauncherError::Answer) => self.end_unknown(id).err().unwrap_or(error),
            // It may have run until `kill_unusable` killed it.
            ContainerError::Stdio(_) => error,
            _ => return error,
        };
        permit.commit();
        error
    }

    /// Kills what a launcher without an answer may have started, and nothing else of the container.
    ///
    /// The launcher has exited, so its child is now a child of this process. No other process of the container is,
    /// unless the reaper knows it: orphans inside are reparented to the container's init.
    fn end_unknown(&self, id: &ContainerId) -> Result<(), ContainerError> {
        let pids = cgroup::processes(id).map_err(|_| ContainerError::NotUndone)?;
        for pid in pids.into_iter().map(Pid::from_raw) {
            self.reaper.kill_unknown_child(pid);
        }
        Ok(())
    }

    /// Kills a process that was started and cannot be used.
    fn kill_unusable(&self, pid: Pid, error: ContainerError) -> ContainerError {
        let _ = self.reaper.signal(pid, libc::SIGKILL);
        error
    }

    /// Creates the sandbox's directories that the container mounts.
    ///
    /// No source may lie in another: a container that has the outer one could put a symbolic link in the path of the inner one.
    fn stage_sources(&self, action: &CreateContainer, sandbox: &ContainerId) -> Result<Sources, ContainerError> {
        let mut staged = Sources::new(paths::staged_sources(&action.container_id));
        let mut exposed = lock(&self.exposed);
        let sources = action.mounts.iter().filter(|mount| mount.kind == "bind").map(|mount| &mount.source);
        for source in sources {
            if let Some(place) = pod_files::place_of(sandbox, source) {
                staged.take(source, place);
                continue;
            }
            let nested = |other: &String| is_inside(source, other) || is_inside(other, source);
            if exposed.iter().any(nested) {
                return Err(ContainerError::NestedSource);
            }
            let open = Directory::make(source).map_err(io_error("creating a directory of the sandbox"))?;
            staged
                .stage(source, &open)
                .map_err(io_error("binding a directory of the sandbox"))?;
            exposed.insert(source.clone());
        }
        Ok(staged)
    }
}

/// Kills what is left of a container when its init has ended. In a pid namespace of its own the kernel does that; in the pod's, a
/// process that goes on would hold the outputs open, for which containerd waits before it deletes the container (runc's shim does the same).
fn end_with_init(container: &Arc<Container>, exit: ExitWatch) {
    let container = Arc::downgrade(container);
    tokio::spawn(async move {
        ended(exit).await;
        // One that was removed meanwhile has no process.
        if let Some(container) = container.upgrade() {
            let _ = cgroup::kill(&container.id);
        }
    });
}

/// Containers that are frozen while another is created.
struct FrozenContainers(Vec<ContainerId>);

impl Drop for FrozenContainers {
    fn drop(&mut self) {
        for id in &self.0 {
            // Nothing else can be done: a container that is still frozen can be resumed or killed.
            let _ = freezer::thaw(id);
        }
    }
}

/// Numeric ids of the guest's own processes.
const ROOT: (Uid, Gid) = (Uid::from_raw(0), Gid::from_raw(0));

/// Whether the process has a terminal, and the owner of its pipes.
fn ends_of(process: &launcher_protocol::Process) -> (bool, Uid, Gid) {
    (process.terminal, Uid::from_raw(process.user.uid), Gid::from_raw(process.user.gid))
}

/// Whether `inner` lies strictly below `outer`.
fn is_inside(inner: &str, outer: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_prefix_of_names_is_not_nesting() {
        assert!(is_inside("/a/b", "/a"));
        assert!(!is_inside("/ab", "/a"));
        assert!(!is_inside("/a", "/a"));
    }
}
