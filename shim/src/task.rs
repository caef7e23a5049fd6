//! The Task service: each call finds its container or process and is answered in containerd's terms.
//!
//! ttrpc drops a handler when its client disconnects or its deadline passes. Calls that change something therefore run to
//! completion in a task of their own. The only lock held across an await here is the one that orders a process's events.

mod container;
mod create;
mod delete;
mod end;
mod exit;
mod freeze;
mod kill;
mod oom;
mod pids;
mod ports;
mod process;
mod start;
mod stats;

use crate::{
    config::Config,
    error::Error,
    events::Publisher,
    sandbox::{Sandbox, agent_call, with_vm_exit},
};
use agent_protocol::{ContainerStatsRequest, ResizeTerminalRequest, UpdateContainerRequest, limits::SPEC_BYTES};
use async_trait::async_trait;
use container::{Container, Containers};
use containerd_shim_protos::{
    api::{
        CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse, DeleteRequest,
        DeleteResponse, ExecProcessRequest, KillRequest, PauseRequest, PidsRequest, PidsResponse, ResizePtyRequest, ResumeRequest,
        ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse, UpdateTaskRequest,
        WaitRequest, WaitResponse,
    },
    events::task::TaskExecAdded,
    shim_async::Task,
    topics::TASK_EXEC_ADDED_EVENT_TOPIC,
};
use process::ProcessState;
use protobuf::well_known_types::empty::Empty;
pub use stats::metrics;
use std::{
    future::Future,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::OnceCell;
use ttrpc::r#async::TtrpcContext;

/// Exit status of a process that SIGKILL ended.
const SIGKILL_STATUS: u32 = crate::vm::KILLED;

/// The service behind both names of the Task API.
pub struct TaskService(Arc<Tasks>);

/// What a shim knows of its containers.
struct Tasks {
    sandbox: Arc<Sandbox>,
    /// Address of containerd's gRPC socket.
    containerd: String,
    events: Publisher,
    /// The bundle that this shim was started for.
    bundle: PathBuf,
    /// Read with the first container.
    config: OnceCell<Config>,
    containers: Containers,
    /// containerd called `Shutdown`.
    ending: AtomicBool,
    door: Box<dyn Ending>,
}

/// How a shim ends; each of the calls may come again.
pub trait Ending: Send + Sync + 'static {
    /// Frees the shim's name and ends it.
    fn end(&self);
    /// The same if no container is announced that the shim will be asked to create, and then `close` says so too.
    fn end_if(&self, close: &dyn Fn() -> bool) -> bool;
    /// The container is no longer only announced.
    fn joined(&self, id: &str);
}

impl TaskService {
    /// A service without containers; `containerd` is the address of its gRPC socket, `bundle` the one that this shim was started
    /// for. `door` is asked when the shim ends: it frees the name, so that the next start of this sandbox gets a shim of its own.
    pub fn new(sandbox: Arc<Sandbox>, containerd: String, events: Publisher, bundle: PathBuf, door: impl Ending) -> Self {
        Self(Arc::new(Tasks {
            sandbox,
            containerd,
            events,
            bundle,
            config: OnceCell::new(),
            containers: Containers::default(),
            ending: AtomicBool::new(false),
            door: Box::new(door),
        }))
    }

    /// Returns when the shim has ended without a call, for example because containerd failed to start it and removed its bundle.
    pub async fn watch_end(&self) {
        self.0.watch_end().await;
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
            let pid = match start::start(&tasks.sandbox, &container, &process, &tasks.events).await {
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
        detached(async move { tasks.kill(request).await.map(|()| Empty::new()) }).await
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
        // Not found where there is no such container: containerd, which asks after its restart, then removes the bundle of a
        // container that was never created. containerd 1.6 would otherwise keep it, and this shim, forever.
        let container = self.0.containers.get(&request.id)?;
        Ok(ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: container.vm().pid(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        })
    }

    async fn shutdown(&self, _ctx: &TtrpcContext, request: ShutdownRequest) -> ttrpc::Result<Empty> {
        self.0.ending.store(true, Ordering::SeqCst);
        if request.now {
            self.0.end_now();
        } else {
            self.0.end_if_over();
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
            stats: Some(metrics(&counters).map_err(Error::Encode)?).into(),
            ..Default::default()
        })
    }

    /// After a failed creation: ends the VM if it has no other container, and the shim if it is to end.
    async fn after_failure(&self, id: &str) {
        if self.containers.forget(id) {
            self.sandbox.discard().await;
        }
        self.end_if_over();
    }
}

#[cfg(test)]
mod tests;
