//! What is done to containers and processes that exist.

use std::{fs, io};

use agent_protocol::limits::{FREEZE_DEADLINE, KILL_DEADLINE};
use nix::unistd::Pid;
use policy::{
    ContainerId, Permit,
    action::{ShutdownContainer, SignalContainerProcess},
};

use super::{ContainerError, Containers, Phase, io_error, lock};
use crate::{
    cgroup::{self, counters::Counters, freezer, oom::OomCount},
    decode::{Limits, ProcessId, TerminalSize},
    paths,
};

impl Containers {
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

    /// Execs of a container that still run.
    pub fn execs(&self, id: &ContainerId) -> Result<Vec<ProcessId>, ContainerError> {
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

    /// Stops every process of a running container. No policy judges this: it can only deny service.
    ///
    /// Runs alone among acts, like a start: a process that was being started would stop halfway.
    pub fn pause(&self, id: &ContainerId) -> Result<(), ContainerError> {
        let container = self.get(id)?;
        container.init_in(Phase::Running)?;
        if !freezer::freeze(id, FREEZE_DEADLINE).map_err(io_error("pausing the container"))? {
            return Err(ContainerError::Restless(id.clone()));
        }
        lock(&container.state).phase = Phase::Paused;
        Ok(())
    }

    /// Lets the processes of a paused container go on. No policy judges this.
    pub fn resume(&self, id: &ContainerId) -> Result<(), ContainerError> {
        let container = self.get(id)?;
        container.init_in(Phase::Paused)?;
        freezer::thaw(id).map_err(io_error("resuming the container"))?;
        lock(&container.state).phase = Phase::Running;
        Ok(())
    }

    /// Sets limits of a container that has not ended. No policy judges this: it can only deny service.
    pub fn update(&self, id: &ContainerId, limits: &Limits) -> Result<(), ContainerError> {
        let container = self.get(id)?;
        if container.process(&ProcessId::Init)?.has_ended() {
            return Err(ContainerError::State {
                container: id.clone(),
                is: "stopped",
                needed: Phase::Running.name(),
            });
        }
        cgroup::limits::set(id, limits).map_err(io_error("setting limits"))
    }

    /// What a container has used so far. The caller has asked the policy, and holds no permit any more.
    pub fn counters(&self, id: &ContainerId) -> Result<Counters, ContainerError> {
        self.get(id)?;
        cgroup::counters::read(id).map_err(io_error("reading counters"))
    }

    /// Waits until more than `seen` processes were OOM-killed, or until the init has ended.
    pub async fn oom_beyond(&self, id: &ContainerId, seen: u64) -> Result<OomCount, ContainerError> {
        let init = self.exit_of(id, &ProcessId::Init)?;
        cgroup::oom::beyond(id, seen, init)
            .await
            .map_err(io_error("watching for OOM kills"))
    }

    /// Kills what runs of the permit's container, which stays: nothing is committed.
    pub fn end(&self, permit: Permit<'_, ShutdownContainer>) -> Result<(), ContainerError> {
        check_mortal(&permit.action().container_id)?;
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
        check_mortal(&id)?;
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
    pub(super) fn clear(&self, id: &ContainerId) -> Result<(), ContainerError> {
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

/// The guest itself is no container that could be shut down.
fn check_mortal(id: &ContainerId) -> Result<(), ContainerError> {
    if *id == paths::guest() {
        return Err(ContainerError::Unknown(id.clone()));
    }
    Ok(())
}
