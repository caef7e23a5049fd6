//! Operations on containers and processes that exist.

use std::{fs, io};

use agent_protocol::limits::{FREEZE_DEADLINE, KILL_DEADLINE};
use policy::{
    ContainerId, Permit,
    action::{PauseContainer, ShutdownContainer, SignalContainerProcess, UpdateContainer},
};

use super::{ContainerError, Containers, Phase, io_error, lock};
use crate::{
    cgroup::{self, counters::Counters, freezer, limits::BelowUse, oom::OomCount},
    decode::{Limits, ProcessId, TerminalSize},
    paths,
};

impl Containers {
    /// What the policy knows of a process when it judges a signal: whether it is the init, and its arguments.
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

    /// Execs that a signal to all reaches although it is not theirs by their init's: the kernel itself ends the processes of a pid
    /// namespace with its first process, and no other signal goes to all.
    pub fn execs_reached(&self, id: &ContainerId, signal: i32) -> Result<Vec<ProcessId>, ContainerError> {
        if signal == libc::SIGKILL && !self.get(id)?.shares_pids {
            return Ok(Vec::new());
        }
        self.execs(id)
    }

    /// What the policy judges a pause by if it has no rule for it: SIGSTOP to the init and to each exec.
    pub fn stop_actions(&self, id: &ContainerId) -> Result<Vec<SignalContainerProcess>, ContainerError> {
        let processes = std::iter::once(ProcessId::Init).chain(self.execs(id)?);
        processes
            .map(|process| self.signal_action(id, &process, libc::SIGSTOP, false))
            .collect()
    }

    /// Execs of a container that still run.
    fn execs(&self, id: &ContainerId) -> Result<Vec<ProcessId>, ContainerError> {
        let container = self.get(id)?;
        let state = lock(&container.state);
        let execs = state
            .processes
            .iter()
            .filter(|(id, process)| **id != ProcessId::Init && !process.has_ended());
        Ok(execs.map(|(id, _)| id.clone()).collect())
    }

    /// Sends the signal of the permit.
    pub fn signal(&self, permit: Permit<'_, SignalContainerProcess>, process: &ProcessId, all: bool) -> Result<(), ContainerError> {
        let SignalContainerProcess { container_id, signal, .. } = permit.action();
        let failed = io_error("sending a signal");
        if all && *signal == libc::SIGKILL {
            cgroup::kill(container_id).map_err(failed)?;
        } else if all {
            cgroup::signal(container_id, *signal).map_err(failed)?;
        } else {
            let receiver = self.get(container_id)?.process(process)?;
            if !self.reaper.signal(receiver.pid, *signal).map_err(failed)? {
                return Err(ContainerError::Ended(container_id.clone()));
            }
        }
        permit.commit();
        Ok(())
    }

    /// Deletes an exec that has exited.
    pub fn delete_process(&self, id: &ContainerId, exec_id: &ProcessId) -> Result<(), ContainerError> {
        let container = self.get(id)?;
        let is = match exec_id {
            ProcessId::Init => "to be shut down as a whole",
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

    /// Pids in a container, with the exec ids of exec processes.
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

    /// Freezes every process of the permit's container, which runs.
    ///
    /// Serial with other acts, as a start is: otherwise a process could be frozen halfway through its start.
    pub fn pause(&self, permit: Permit<'_, PauseContainer>) -> Result<(), ContainerError> {
        let id = &permit.action().container_id;
        let container = self.get(id)?;
        container.init_in(Phase::Running)?;
        if !freezer::freeze(id, FREEZE_DEADLINE).map_err(io_error("pausing the container"))? {
            return Err(ContainerError::Restless(id.clone()));
        }
        lock(&container.state).phase = Phase::Paused;
        permit.commit();
        Ok(())
    }

    /// Thaws the processes of a paused container. No policy judges this: it takes back what one allowed.
    pub fn resume(&self, id: &ContainerId) -> Result<(), ContainerError> {
        let container = self.get(id)?;
        container.init_in(Phase::Paused)?;
        freezer::thaw(id).map_err(io_error("resuming the container"))?;
        lock(&container.state).phase = Phase::Running;
        Ok(())
    }

    /// Sets the limits of the permit, which are `limits`, for a container that has not exited. Where no policy judged them (`judged`), none
    /// is set below what is in use: the host could choose so which process the kernel ends, and when.
    pub fn update(&self, permit: Permit<'_, UpdateContainer>, limits: &Limits, judged: bool) -> Result<(), ContainerError> {
        let id = &permit.action().container_id;
        let container = self.get(id)?;
        if container.process(&ProcessId::Init)?.has_ended() {
            return Err(ContainerError::State {
                container: id.clone(),
                is: "stopped",
                needed: Phase::Running.name(),
            });
        }
        let below = if judged {
            None
        } else {
            cgroup::limits::below_use(id, &permit.action().limits).map_err(io_error("reading what is in use"))?
        };
        if let Some(BelowUse { file, requested, least }) = below {
            return Err(ContainerError::BelowUse {
                container: id.clone(),
                file,
                requested,
                least,
            });
        }
        cgroup::limits::set(id, limits).map_err(io_error("setting limits"))?;
        permit.commit();
        Ok(())
    }

    /// The resources that a container has used so far. The caller has asked the policy, and no longer holds its permit.
    pub fn counters(&self, id: &ContainerId) -> Result<Counters, ContainerError> {
        self.get(id)?;
        cgroup::counters::read(id).map_err(io_error("reading counters"))
    }

    /// Waits until more than `seen` processes were OOM-killed, or until the init has exited.
    pub async fn oom_beyond(&self, id: &ContainerId, seen: u64) -> Result<OomCount, ContainerError> {
        let init = self.exit_of(id, &ProcessId::Init)?;
        cgroup::oom::beyond(id, seen, init)
            .await
            .map_err(io_error("watching for OOM kills"))
    }

    /// Kills the processes of the permit's container, which continues to exist: nothing is committed.
    pub fn end(&self, permit: Permit<'_, ShutdownContainer>) -> Result<(), ContainerError> {
        check_is_container(&permit.action().container_id)?;
        cgroup::kill(&permit.action().container_id).map_err(io_error("killing the container"))
    }

    /// Waits for the last process of a container that was killed.
    pub async fn ended(&self, id: &ContainerId) -> Result<(), ContainerError> {
        let is_empty = cgroup::emptied(id, KILL_DEADLINE)
            .await
            .map_err(io_error("killing the container"))?;
        is_empty.then_some(()).ok_or_else(|| ContainerError::Busy(id.clone()))
    }

    /// Kills what still runs of the permit's container and removes it.
    pub fn shutdown(&self, permit: Permit<'_, ShutdownContainer>) -> Result<(), ContainerError> {
        let id = permit.action().container_id.clone();
        check_is_container(&id)?;
        let container = self.get(&id)?;
        self.clear(&id)?;
        if let Some(reports) = lock(&container.reports).take() {
            reports.close();
        }
        lock(&self.table).remove(&id);
        permit.commit();
        Ok(())
    }

    /// Kills and removes all containers, before the guest powers off.
    pub fn end_all(&self) {
        let ids = lock(&self.table).keys().cloned().collect::<Vec<_>>();
        for id in ids {
            let _ = cgroup::kill(&id);
        }
    }

    /// Kills, waits, and removes what the launcher left.
    pub(super) fn clear(&self, id: &ContainerId) -> Result<(), ContainerError> {
        cgroup::kill(id).map_err(io_error("killing the container"))?;
        if !cgroup::wait_empty(id, KILL_DEADLINE).map_err(io_error("killing the container"))? {
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

/// The guest itself is not a container that could be shut down.
fn check_is_container(id: &ContainerId) -> Result<(), ContainerError> {
    if *id == paths::guest() {
        return Err(ContainerError::Unknown(id.clone()));
    }
    Ok(())
}
