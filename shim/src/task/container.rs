//! A container and its processes, and the table of all containers.

use super::process::{Process, ProcessState, lock};
use crate::{bundle::Role, error::Error, sandbox::Rootfs, stdio::StdioPaths, vm::Vm};
use agent_protocol::valid_caller_id;
use containerd_shim_protos::api::{ExecProcessRequest, StateResponse, Status};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};
use tokio::sync::Notify;

/// A created container.
pub struct Container {
    /// Its id, as the caller wrote it.
    pub id: String,
    /// Bundle directory.
    pub bundle: String,
    /// What it is in its sandbox.
    pub role: Role,
    /// Its root file system, mounted in the guest.
    pub rootfs: Rootfs,
    /// Its first process.
    pub init: Arc<Process>,
    execs: Mutex<HashMap<String, Arc<Process>>>,
}

impl Container {
    /// A container whose init the agent has created.
    pub fn new(id: String, bundle: String, role: Role, rootfs: Rootfs, init: Arc<Process>) -> Self {
        Self {
            id,
            bundle,
            role,
            rootfs,
            init,
            execs: Mutex::default(),
        }
    }

    /// The VM it is in.
    pub fn vm(&self) -> &Arc<Vm> {
        &self.rootfs.vm
    }

    /// The process of exec id `exec`; an empty one means the init.
    ///
    /// # Errors
    /// When there is no such exec.
    pub fn process(&self, exec: &str) -> Result<Arc<Process>, Error> {
        if exec.is_empty() {
            return Ok(self.init.clone());
        }
        let found = lock(&self.execs).get(exec).cloned();
        found.ok_or_else(|| Error::NoExec {
            container: self.id.clone(),
            exec: exec.to_owned(),
        })
    }

    /// Registers an exec, to be started later.
    ///
    /// # Errors
    /// When the id is taken or not valid, or the container has ended or is paused.
    pub fn add_exec(&self, request: ExecProcessRequest) -> Result<(), Error> {
        valid_caller_id(&request.exec_id).map_err(|_| Error::Invalid("the exec id is not an identifier"))?;
        if let state @ (ProcessState::Stopped | ProcessState::Paused) = self.init.state() {
            return Err(Error::State {
                call: "exec in",
                state: state.name(),
            });
        }
        let document = request.spec.into_option().map(|spec| spec.value).unwrap_or_default();
        let paths = StdioPaths {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
            namespace: self.vm().namespace().to_owned(),
            id: request.exec_id.clone(),
        };
        let mut execs = lock(&self.execs);
        if execs.contains_key(&request.exec_id) {
            return Err(Error::ExecExists {
                container: self.id.clone(),
                exec: request.exec_id,
            });
        }
        let process = Process::exec(request.exec_id.clone(), paths, document);
        execs.insert(request.exec_id, Arc::new(process));
        Ok(())
    }

    /// Forgets an exec.
    ///
    /// # Errors
    /// When another call has removed it.
    pub fn remove_exec(&self, exec: &str) -> Result<(), Error> {
        let removed = lock(&self.execs).remove(exec);
        removed.map(drop).ok_or_else(|| Error::NoExec {
            container: self.id.clone(),
            exec: exec.to_owned(),
        })
    }

    /// Every exec.
    pub fn execs(&self) -> Vec<Arc<Process>> {
        lock(&self.execs).values().cloned().collect()
    }

    /// The answer to `State` for one of its processes.
    pub fn describe(&self, process: &Process) -> StateResponse {
        let status = match process.state() {
            ProcessState::Created | ProcessState::Starting => Status::CREATED,
            ProcessState::Running if self.init.state() == ProcessState::Paused => Status::PAUSED,
            ProcessState::Running => Status::RUNNING,
            ProcessState::Paused => Status::PAUSED,
            ProcessState::Stopped => Status::STOPPED,
        };
        let exit = process.exit();
        StateResponse {
            id: self.id.clone(),
            bundle: self.bundle.clone(),
            pid: process.pid(),
            status: status.into(),
            stdin: process.paths().stdin.clone(),
            stdout: process.paths().stdout.clone(),
            stderr: process.paths().stderr.clone(),
            terminal: process.paths().terminal,
            exit_status: exit.as_ref().map(|exit| exit.status).unwrap_or_default(),
            exited_at: exit.map(|exit| exit.at).into(),
            exec_id: process.exec_id.clone(),
            ..Default::default()
        }
    }
}

enum Entry {
    /// Being created; notified to abort the creation.
    Creating(Arc<Notify>),
    Ready(Arc<Container>),
}

/// All containers of a shim, those being created included.
#[derive(Default)]
pub struct Containers(Mutex<HashMap<String, Entry>>);

impl Containers {
    /// The container `id`, once it is created. One being created is not found, as with runc's shim.
    pub fn get(&self, id: &str) -> Result<Arc<Container>, Error> {
        match lock(&self.0).get(id) {
            Some(Entry::Ready(container)) => Ok(container.clone()),
            _ => Err(Error::NoContainer(id.to_owned())),
        }
    }

    /// Reserves the id of a container to be created; the returned notice aborts the creation.
    ///
    /// # Errors
    /// When the id is taken.
    pub fn reserve(&self, id: &str) -> Result<Arc<Notify>, Error> {
        let mut entries = lock(&self.0);
        if entries.contains_key(id) {
            return Err(Error::ContainerExists(id.to_owned()));
        }
        let abort = Arc::new(Notify::new());
        entries.insert(id.to_owned(), Entry::Creating(abort.clone()));
        Ok(abort)
    }

    /// Aborts a creation under way.
    pub fn abort(&self, id: &str) {
        if let Some(Entry::Creating(abort)) = lock(&self.0).get(id) {
            abort.notify_one();
        }
    }

    /// Replaces a reservation by the created container.
    pub fn insert(&self, container: Arc<Container>) {
        lock(&self.0).insert(container.id.clone(), Entry::Ready(container));
    }

    /// Removes a container; true when it was the last.
    ///
    /// # Errors
    /// When another call has removed it.
    pub fn remove(&self, id: &str) -> Result<bool, Error> {
        let mut entries = lock(&self.0);
        match entries.remove(id) {
            Some(Entry::Ready(_)) => Ok(entries.is_empty()),
            Some(creating) => {
                entries.insert(id.to_owned(), creating);
                Err(Error::NoContainer(id.to_owned()))
            }
            None => Err(Error::NoContainer(id.to_owned())),
        }
    }

    /// Frees a reserved id; true when nothing is left.
    pub fn forget(&self, id: &str) -> bool {
        let mut entries = lock(&self.0);
        entries.remove(id);
        entries.is_empty()
    }

    /// Whether there is a container that was created.
    pub fn has_any(&self) -> bool {
        lock(&self.0).values().any(|entry| matches!(entry, Entry::Ready(_)))
    }

    /// Whether there is neither a container nor one being created.
    pub fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_reserved_at_once_and_found_when_created() {
        let containers = Containers::default();
        let _abort = containers.reserve("web").unwrap();
        assert!(matches!(containers.reserve("web"), Err(Error::ContainerExists(_))));
        assert!(matches!(containers.get("web"), Err(Error::NoContainer(_))));
        assert!(matches!(containers.remove("web"), Err(Error::NoContainer(_))));
        assert!(!containers.is_empty());
        assert!(containers.forget("web"));
        assert!(containers.is_empty() && containers.reserve("web").is_ok());
    }

    #[tokio::test]
    async fn an_abort_before_the_first_await_is_not_lost() {
        let containers = Containers::default();
        let abort = containers.reserve("web").unwrap();
        containers.abort("web");
        tokio::time::timeout(std::time::Duration::from_secs(1), abort.notified())
            .await
            .unwrap();
    }
}
