//! A container and its processes, and the table of all containers.

use super::process::{Process, ProcessState, lock};
use crate::{bundle::Role, error::Error, sandbox::Rootfs, stdio::StdioPaths, vm::Vm};
use agent_protocol::valid_caller_id;
use containerd_shim_protos::api::{ExecProcessRequest, StateResponse, Status};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::{Notify, watch};

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
    killed_in_vain: AtomicBool,
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
            killed_in_vain: AtomicBool::new(false),
        }
    }

    /// SIGKILL did not end it.
    pub fn killed_in_vain(&self) {
        self.killed_in_vain.store(true, Ordering::SeqCst);
    }

    /// Whether SIGKILL did not end it.
    pub fn was_killed_in_vain(&self) -> bool {
        self.killed_in_vain.load(Ordering::SeqCst)
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

/// A container that is being created.
pub struct Creation {
    abort: Notify,
    /// Changed under the table's lock.
    aborted: AtomicBool,
    ended: watch::Sender<bool>,
}

impl Creation {
    fn new() -> Self {
        Self {
            abort: Notify::new(),
            aborted: AtomicBool::new(false),
            ended: watch::Sender::new(false),
        }
    }

    /// Returns when the creation is to be aborted.
    pub async fn abort(&self) {
        self.abort.notified().await;
    }

    /// Whether it is to be aborted. Only [`Containers::insert`] decides; this saves work.
    pub fn is_aborted(&self) -> bool {
        self.aborted.load(Ordering::SeqCst)
    }

    /// Marks that nothing of it is left.
    pub fn end(&self) {
        self.ended.send_replace(true);
    }

    /// Returns when nothing of it is left.
    pub async fn ended(&self) {
        // Never fails: the sender is this value's own.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }
}

enum Entry {
    Creating(Arc<Creation>),
    Ready(Arc<Container>),
}

#[derive(Default)]
struct Table {
    entries: HashMap<String, Entry>,
    /// The shim ends: nothing is created any more.
    closed: bool,
}

/// All containers of a shim, those being created included.
#[derive(Default)]
pub struct Containers(Mutex<Table>);

impl Containers {
    /// The container `id`, once it is created. One being created is not found, as with runc's shim.
    ///
    /// # Errors
    /// When there is none.
    pub fn get(&self, id: &str) -> Result<Arc<Container>, Error> {
        match lock(&self.0).entries.get(id) {
            Some(Entry::Ready(container)) => Ok(container.clone()),
            _ => Err(Error::NoContainer(id.to_owned())),
        }
    }

    /// Reserves the id of a container to be created.
    ///
    /// # Errors
    /// When the id is taken, or the shim ends.
    pub fn reserve(&self, id: &str) -> Result<Arc<Creation>, Error> {
        let mut table = lock(&self.0);
        if table.closed {
            return Err(Error::Sandbox("ending"));
        }
        if table.entries.contains_key(id) {
            return Err(Error::ContainerExists(id.to_owned()));
        }
        let creation = Arc::new(Creation::new());
        table.entries.insert(id.to_owned(), Entry::Creating(creation.clone()));
        Ok(creation)
    }

    /// Aborts a creation under way, which is returned: it will not be inserted.
    pub fn abort(&self, id: &str) -> Option<Arc<Creation>> {
        match lock(&self.0).entries.get(id) {
            Some(Entry::Creating(creation)) => {
                creation.aborted.store(true, Ordering::SeqCst);
                creation.abort.notify_one();
                Some(creation.clone())
            }
            _ => None,
        }
    }

    /// Replaces a reservation by the created container.
    ///
    /// # Errors
    /// When the creation was aborted; the id stays reserved.
    pub fn insert(&self, container: Arc<Container>) -> Result<(), Error> {
        let mut table = lock(&self.0);
        match table.entries.get_mut(&container.id) {
            Some(Entry::Creating(creation)) if creation.is_aborted() => Err(Error::Aborted),
            Some(entry @ Entry::Creating(_)) => {
                *entry = Entry::Ready(container);
                Ok(())
            }
            _ => Err(Error::NoContainer(container.id.clone())),
        }
    }

    /// Removes a container; true when it was the last.
    ///
    /// # Errors
    /// When another call has removed it.
    pub fn remove(&self, id: &str) -> Result<bool, Error> {
        let entries = &mut lock(&self.0).entries;
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
        let entries = &mut lock(&self.0).entries;
        entries.remove(id);
        entries.is_empty()
    }

    /// Whether there is neither a container nor one being created.
    pub fn is_empty(&self) -> bool {
        lock(&self.0).entries.is_empty()
    }

    /// Every created container.
    pub fn all(&self) -> Vec<Arc<Container>> {
        let table = lock(&self.0);
        let ready = table.entries.values().filter_map(|entry| match entry {
            Entry::Ready(container) => Some(container.clone()),
            Entry::Creating(_) => None,
        });
        ready.collect()
    }

    /// Whether `fits` holds for every container but `id`; one being created fits nothing.
    pub fn every_other(&self, id: &str, fits: impl Fn(&Container) -> bool) -> bool {
        let table = lock(&self.0);
        let mut others = table.entries.iter().filter(|(other, _)| *other != id);
        others.all(|(_, entry)| matches!(entry, Entry::Ready(container) if fits(container)))
    }

    /// Lets nothing be created any more, if `over` holds for every container and none is being created; true when it is so.
    pub fn close_if(&self, over: impl Fn(&Container) -> bool) -> bool {
        let mut table = lock(&self.0);
        let all_over = table
            .entries
            .values()
            .all(|entry| matches!(entry, Entry::Ready(container) if over(container)));
        table.closed |= all_over;
        all_over
    }

    /// Lets nothing be created any more.
    pub fn close(&self) {
        lock(&self.0).closed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_reserved_at_once_and_found_when_created() {
        let containers = Containers::default();
        let _creation = containers.reserve("web").unwrap();
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
        let creation = containers.reserve("web").unwrap();
        assert!(containers.abort("web").is_some());
        tokio::time::timeout(std::time::Duration::from_secs(1), creation.abort())
            .await
            .unwrap();
        assert!(creation.is_aborted() && containers.abort("db").is_none());
    }

    #[test]
    fn a_table_that_is_closed_takes_no_container() {
        let containers = Containers::default();
        let _creation = containers.reserve("web").unwrap();
        assert!(!containers.close_if(|_| true), "one is being created");
        assert!(containers.forget("web") && containers.close_if(|_| false));
        assert!(matches!(containers.reserve("web"), Err(Error::Sandbox("ending"))));
    }
}
