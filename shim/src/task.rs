//! The Task service: each call finds its container or process and is answered in containerd's terms.
//!
//! ttrpc drops a handler when its client disconnects or its deadline passes. Calls that change something therefore run to
//! completion in a task of their own. The only lock held across an await here is the one that orders a process's events.

mod container;
mod create;
mod exit;
mod freeze;
mod oom;
mod pids;
mod process;
mod start;
mod stats;

use crate::{
    bundle::Role,
    error::Error,
    events::Publisher,
    sandbox::{AGENT_CALL, Sandbox, agent_call, with_vm_exit},
};
use agent_protocol::{
    ContainerStatsRequest, DeleteProcessRequest, ResizeTerminalRequest, SignalProcessRequest, UpdateContainerRequest, limits::SPEC_BYTES,
};
use async_trait::async_trait;
use container::{Container, Containers};
use containerd_shim_protos::{
    api::{
        CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse, DeleteRequest,
        DeleteResponse, ExecProcessRequest, KillRequest, PauseRequest, PidsRequest, PidsResponse, ResizePtyRequest, ResumeRequest,
        ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse, UpdateTaskRequest,
        WaitRequest, WaitResponse,
    },
    events::task::{TaskDelete, TaskExecAdded},
    shim_async::Task,
    topics::{TASK_DELETE_EVENT_TOPIC, TASK_EXEC_ADDED_EVENT_TOPIC},
};
use process::{Exit, Process, ProcessState};
use protobuf::well_known_types::empty::Empty;
use std::{
    future::Future,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;
use ttrpc::r#async::TtrpcContext;

/// `Delete` waits this long for a client to read the outputs of an ended process.
const DELETE_DRAIN: Duration = Duration::from_secs(10);
/// An init must have ended within this time after SIGKILL, or its VM is ended.
const KILL_GRACE: Duration = Duration::from_secs(30);
/// How often a shim without a container checks whether containerd still wants it.
const ABANDONED_POLL: Duration = Duration::from_millis(500);
/// SIGKILL (signal(7)).
const SIGKILL: u32 = 9;
/// Exit status of an exec that is deleted before its start, as runc's shim has it: nothing has failed.
const NEVER_STARTED: u32 = 0;

/// The service behind both names of the Task API.
pub struct TaskService(Arc<Tasks>);

/// What a shim knows of its containers.
struct Tasks {
    sandbox: Arc<Sandbox>,
    /// Address of containerd's gRPC socket.
    containerd: String,
    events: Publisher,
    containers: Containers,
    /// containerd called `Shutdown`, or was restarted, while a container was being created.
    ending: AtomicBool,
    finished: Arc<Notify>,
}

impl TaskService {
    /// A service without containers; `containerd` is the address of its gRPC socket, `finished` is notified when the shim
    /// may end.
    pub fn new(sandbox: Arc<Sandbox>, containerd: String, events: Publisher, finished: Arc<Notify>) -> Self {
        Self(Arc::new(Tasks {
            sandbox,
            containerd,
            events,
            containers: Containers::default(),
            ending: AtomicBool::new(false),
            finished,
        }))
    }

    /// Returns when containerd has abandoned this shim before it created a container: containerd removes the `bundle` of a shim
    /// that it fails to start, for example on a full disk, and does not end the process.
    pub async fn abandoned(&self, bundle: &Path) {
        while self.0.containers.is_empty() {
            if !bundle.try_exists().unwrap_or(true) {
                return;
            }
            tokio::time::sleep(ABANDONED_POLL).await;
        }
        // containerd knows this shim now and will call `Shutdown`.
        std::future::pending().await
    }
}

/// Runs `work` to completion even if the caller disconnects; a panic becomes an error.
async fn detached<T: Send + 'static>(work: impl Future<Output = Result<T, Error>> + Send + 'static) -> ttrpc::Result<T> {
    match tokio::spawn(work).await {
        Ok(result) => result.map_err(Into::into),
        Err(failure) => {
            log::error!("a call failed: {failure}");
            Err(ttrpc::Error::RpcStatus(ttrpc::get_status(
                ttrpc::Code::INTERNAL,
                "the shim failed in this call",
            )))
        }
    }
}

#[async_trait]
impl Task for TaskService {
    async fn create(&self, _ctx: &TtrpcContext, request: CreateTaskRequest) -> ttrpc::Result<CreateTaskResponse> {
        let tasks = self.0.clone();
        detached(async move { create::create(&tasks, request).await }).await
    }

    async fn start(&self, _ctx: &TtrpcContext, request: StartRequest) -> ttrpc::Result<StartResponse> {
        let tasks = self.0.clone();
        let work = async move {
            let container = tasks.containers.get(&request.id)?;
            let process = container.process(&request.exec_id)?;
            let pid = match start::start(&container, &process, &tasks.events).await {
                Ok(pid) => pid,
                Err(error) => return Err(with_vm_exit(container.vm(), error).await),
            };
            Ok(StartResponse { pid, ..Default::default() })
        };
        detached(work).await
    }

    async fn state(&self, _ctx: &TtrpcContext, request: StateRequest) -> ttrpc::Result<StateResponse> {
        let container = self.0.containers.get(&request.id)?;
        let process = container.process(&request.exec_id)?;
        Ok(container.describe(&process))
    }

    async fn wait(&self, _ctx: &TtrpcContext, request: WaitRequest) -> ttrpc::Result<WaitResponse> {
        let process = self.0.containers.get(&request.id)?.process(&request.exec_id)?;
        let exit = process.exited().await;
        Ok(WaitResponse {
            exit_status: exit.status,
            exited_at: Some(exit.at).into(),
            ..Default::default()
        })
    }

    async fn kill(&self, _ctx: &TtrpcContext, request: KillRequest) -> ttrpc::Result<Empty> {
        let tasks = self.0.clone();
        detached(async move { tasks.kill(request).await }).await
    }

    async fn exec(&self, _ctx: &TtrpcContext, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        let container = self.0.containers.get(&request.id)?;
        let exec = request.exec_id.clone();
        container.add_exec(request)?;
        let added = TaskExecAdded {
            container_id: container.id.clone(),
            exec_id: exec,
            ..Default::default()
        };
        self.0.events.publish(TASK_EXEC_ADDED_EVENT_TOPIC, &added);
        Ok(Empty::new())
    }

    async fn delete(&self, _ctx: &TtrpcContext, request: DeleteRequest) -> ttrpc::Result<DeleteResponse> {
        let tasks = self.0.clone();
        detached(async move { tasks.delete(request).await }).await
    }

    async fn pids(&self, _ctx: &TtrpcContext, request: PidsRequest) -> ttrpc::Result<PidsResponse> {
        let processes = pids::of(&*self.0.containers.get(&request.id)?).await;
        Ok(PidsResponse {
            processes,
            ..Default::default()
        })
    }

    async fn resize_pty(&self, _ctx: &TtrpcContext, request: ResizePtyRequest) -> ttrpc::Result<Empty> {
        let container = self.0.containers.get(&request.id)?;
        let process = container.process(&request.exec_id)?;
        if process.keep_size(request.width, request.height)? {
            return Ok(Empty::new());
        }
        let resize = ResizeTerminalRequest {
            container_id: request.id,
            exec_id: request.exec_id,
            width: request.width,
            height: request.height,
            ..Default::default()
        };
        container
            .vm()
            .agent()
            .resize_terminal(agent_call(), &resize)
            .await
            .map_err(Error::agent("resize the terminal"))?;
        Ok(Empty::new())
    }

    async fn close_io(&self, _ctx: &TtrpcContext, request: CloseIORequest) -> ttrpc::Result<Empty> {
        let process = self.0.containers.get(&request.id)?.process(&request.exec_id)?;
        if request.stdin {
            process.close_stdin();
        }
        Ok(Empty::new())
    }

    async fn connect(&self, _ctx: &TtrpcContext, request: ConnectRequest) -> ttrpc::Result<ConnectResponse> {
        // containerd calls this on every shim after a restart, and only then. The client of a container that is not created yet
        // has gone, and containerd 1.6 would keep a shim without a container forever.
        if !self.0.containers.has_any() {
            self.0.ending.store(true, Ordering::SeqCst);
            if self.0.containers.is_empty() {
                log::info!("containerd was restarted and there is no container: the shim ends");
                self.0.finished.notify_one();
            }
        }
        let task_pid = self
            .0
            .containers
            .get(&request.id)
            .map(|container| container.vm().pid())
            .unwrap_or_default();
        Ok(ConnectResponse {
            shim_pid: std::process::id(),
            task_pid,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        })
    }

    async fn shutdown(&self, _ctx: &TtrpcContext, request: ShutdownRequest) -> ttrpc::Result<Empty> {
        self.0.ending.store(true, Ordering::SeqCst);
        if request.now || self.0.containers.is_empty() {
            self.0.finished.notify_one();
        }
        Ok(Empty::new())
    }

    async fn pause(&self, _ctx: &TtrpcContext, request: PauseRequest) -> ttrpc::Result<Empty> {
        let tasks = self.0.clone();
        let work = async move {
            let container = tasks.containers.get(&request.id)?;
            freeze::pause(&container, &tasks.events).await?;
            Ok(Empty::new())
        };
        detached(work).await
    }

    async fn resume(&self, _ctx: &TtrpcContext, request: ResumeRequest) -> ttrpc::Result<Empty> {
        let tasks = self.0.clone();
        let work = async move {
            let container = tasks.containers.get(&request.id)?;
            freeze::resume(&container, &tasks.events).await?;
            Ok(Empty::new())
        };
        detached(work).await
    }

    async fn checkpoint(&self, _ctx: &TtrpcContext, _request: CheckpointTaskRequest) -> ttrpc::Result<Empty> {
        Err(Error::Unimplemented("checkpoint").into())
    }

    async fn update(&self, _ctx: &TtrpcContext, request: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        let tasks = self.0.clone();
        detached(async move { tasks.update(request).await }).await
    }

    async fn stats(&self, _ctx: &TtrpcContext, request: StatsRequest) -> ttrpc::Result<StatsResponse> {
        let container = self.0.containers.get(&request.id)?;
        Ok(self.0.stats(&container).await?)
    }
}

impl Tasks {
    /// Changes limits in the guest; the agent parses the document.
    async fn update(&self, request: UpdateTaskRequest) -> Result<Empty, Error> {
        let container = self.containers.get(&request.id)?;
        let state = container.init.state();
        if state == ProcessState::Stopped {
            return Err(Error::State {
                call: "update",
                state: state.name(),
            });
        }
        let resources = request.resources.into_option().map(|any| any.value).unwrap_or_default();
        if resources.is_empty() || resources.len() > SPEC_BYTES {
            return Err(Error::Invalid("an update needs a document of resources"));
        }
        let update = UpdateContainerRequest {
            container_id: request.id,
            resources,
            ..Default::default()
        };
        let updated = container.vm().agent().update_container(agent_call(), &update).await;
        updated.map_err(Error::agent(format!("update container {}", container.id)))?;
        Ok(Empty::new())
    }

    async fn stats(&self, container: &Container) -> Result<StatsResponse, Error> {
        let request = ContainerStatsRequest {
            container_id: container.id.clone(),
            ..Default::default()
        };
        let counters = container.vm().agent().container_stats(agent_call(), &request).await;
        let counters = counters.map_err(Error::agent(format!("read the counters of container {}", container.id)))?;
        Ok(StatsResponse {
            stats: Some(stats::metrics(&counters).map_err(Error::Encode)?).into(),
            ..Default::default()
        })
    }

    async fn kill(&self, request: KillRequest) -> Result<Empty, Error> {
        let container = self.containers.get(&request.id)?;
        let process = container.process(&request.exec_id)?;
        process.may_be_signalled()?;
        let signal = SignalProcessRequest {
            container_id: request.id,
            exec_id: request.exec_id.clone(),
            signal: request.signal,
            all: request.all,
            ..Default::default()
        };
        let last_resort = request.signal == SIGKILL && request.exec_id.is_empty();
        let owns_sandbox = container.role == Role::Sandbox;
        let limit = if last_resort && owns_sandbox { KILL_GRACE } else { AGENT_CALL };
        let context = ttrpc::context::with_duration(limit);
        let sent = container.vm().agent().signal_process(context, &signal).await;
        let sent = sent.map_err(Error::agent(format!(
            "send signal {} to container {}",
            request.signal, container.id
        )));
        match sent {
            answer if !last_resort => answer.map(|_| Empty::new()),
            Ok(_) => {
                tokio::spawn(end_vm_unless_exited(container, process));
                Ok(Empty::new())
            }
            // An ended process needs no signal. In a pod, a denied SIGKILL must not cost the other containers: the pod can be
            // ended by its sandbox container.
            Err(error) if error.is_not_found() || error.is_denial() && !owns_sandbox => Err(error),
            Err(error) => {
                // The host may end the VM at any time. To refuse SIGKILL would protect nothing and would leave a pod that
                // cannot be removed, also where the guest is sealed, hangs or lies.
                log::warn!("{}: the VM is ended instead", crate::describe::describe(&error));
                container.vm().kill();
                Ok(Empty::new())
            }
        }
    }

    async fn delete(&self, request: DeleteRequest) -> Result<DeleteResponse, Error> {
        // containerd deletes what it could not create in time.
        self.containers.abort(&request.id);
        let container = self.containers.get(&request.id)?;
        let process = container.process(&request.exec_id)?;
        let exit = process.deletable()?;
        process.drain(DELETE_DRAIN).await;
        let response = |exit: Exit| DeleteResponse {
            pid: process.pid(),
            exit_status: exit.status,
            exited_at: Some(exit.at).into(),
            ..Default::default()
        };
        if request.exec_id.is_empty() {
            let exit = exit.ok_or(Error::State {
                call: "delete",
                state: process.state().name(),
            })?;
            self.delete_container(&container, &exit).await?;
            Ok(response(exit))
        } else {
            container.remove_exec(&request.exec_id)?;
            if exit.is_some() && !container.vm().has_ended() {
                let delete = DeleteProcessRequest {
                    container_id: request.id,
                    exec_id: request.exec_id,
                    ..Default::default()
                };
                if let Err(error) = container.vm().agent().delete_process(agent_call(), &delete).await {
                    log::warn!("cannot remove exec {} in the guest: {error}", delete.exec_id);
                }
            }
            // `Wait` for an exec that never ran must not block for ever.
            let exit = exit.unwrap_or_else(|| process.finish(Exit::now(NEVER_STARTED)));
            Ok(response(exit))
        }
    }

    async fn delete_container(&self, container: &Arc<Container>, exit: &Exit) -> Result<(), Error> {
        let last = self.containers.remove(&container.id)?;
        if last {
            self.sandbox.stop().await;
        } else {
            self.sandbox.remove_container(&container.id, &container.rootfs).await;
        }
        let event = TaskDelete {
            container_id: container.id.clone(),
            pid: container.vm().pid(),
            exit_status: exit.status,
            exited_at: Some(exit.at.clone()).into(),
            ..Default::default()
        };
        self.events.publish(TASK_DELETE_EVENT_TOPIC, &event);
        Ok(())
    }

    /// After a failed creation: ends the VM if it has no other container, and the shim if containerd called `Shutdown`.
    async fn after_failure(&self, id: &str) {
        if self.containers.forget(id) {
            self.sandbox.discard().await;
            if self.ending.load(Ordering::SeqCst) {
                self.finished.notify_one();
            }
        }
    }
}

async fn end_vm_unless_exited(container: Arc<Container>, process: Arc<Process>) {
    if tokio::time::timeout(KILL_GRACE, process.exited()).await.is_err() && process.state() != ProcessState::Stopped {
        log::warn!(
            "container {} did not end within {KILL_GRACE:?} after SIGKILL: its VM is ended",
            container.id
        );
        container.vm().kill();
    }
}

#[cfg(test)]
mod tests;
