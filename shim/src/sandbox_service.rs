//! containerd's Sandbox API (`containerd.runtime.sandbox.v1.Sandbox`): a pod without a pause container of containerd's.
//!
//! It is the Task API's other door to the same rooms: the sandbox is the guest's own pause, created, started, awaited and deleted by the
//! calls that CRI makes for a pause container elsewhere, from a document that [`pod_config`] makes. So one policy serves both.

mod bundle;
mod metrics;

use crate::{bundle::BundleError, error::Error, sandbox::Sandbox as Pod, task::TaskService};
use async_trait::async_trait;
use containerd_shim_protos::{
    api::{CreateTaskRequest, DeleteRequest, KillRequest, ShutdownRequest, StartRequest, StateRequest, Status, WaitRequest},
    sandbox_api::{
        CreateSandboxRequest, CreateSandboxResponse, PingRequest, PingResponse, PlatformRequest, PlatformResponse, SandboxMetricsRequest,
        SandboxMetricsResponse, SandboxStatusRequest, SandboxStatusResponse, ShutdownSandboxRequest, ShutdownSandboxResponse,
        StartSandboxRequest, StartSandboxResponse, StopSandboxRequest, StopSandboxResponse, WaitSandboxRequest, WaitSandboxResponse,
    },
    sandbox_async::Sandbox,
    shim_async::Task,
    types::platform::Platform,
};
use pod_config::PodConfigError;
use protobuf::well_known_types::timestamp::Timestamp;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::timeout;
use ttrpc::{Code, r#async::TtrpcContext};

pub use bundle::keep_options;

/// SIGTERM, then SIGKILL (signal(7)).
const SIGTERM: u32 = 15;
const SIGKILL: u32 = 9;
/// A sandbox has ended within this time after SIGKILL, or its deletion says that it runs: longer than the Task API gives the guest.
const ENDED: Duration = Duration::from_secs(60);
/// States of a sandbox as CRI names them.
const READY: &str = "SANDBOX_READY";
const NOT_READY: &str = "SANDBOX_NOTREADY";

/// Why a call of the Sandbox API failed before it became one of the Task API.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Another sandbox than this shim's.
    #[error("this shim serves sandbox {own}, not {asked:?}")]
    Other {
        /// This shim's.
        own: String,
        /// The one asked for.
        asked: String,
    },
    /// It was created before.
    #[error("sandbox {0} exists")]
    Exists(String),
    /// `CreateSandbox` has not been called.
    #[error("sandbox {0} has not been created")]
    Missing(String),
    /// The VM has ended.
    #[error("the VM of sandbox {0} has ended")]
    Ended(String),
    /// The pod's configuration cannot be used.
    #[error(transparent)]
    Config(#[from] PodConfigError),
    /// The bundle cannot be written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

impl From<SandboxError> for ttrpc::Error {
    fn from(error: SandboxError) -> Self {
        let code = match &error {
            SandboxError::Other { .. } | SandboxError::Missing(_) => Code::NOT_FOUND,
            SandboxError::Exists(_) => Code::ALREADY_EXISTS,
            SandboxError::Ended(_) => Code::UNAVAILABLE,
            SandboxError::Config(_) => Code::INVALID_ARGUMENT,
            SandboxError::Bundle(_) => Code::INTERNAL,
        };
        Self::RpcStatus(ttrpc::get_status(code, crate::describe::describe(&error)))
    }
}

/// What has happened to the sandbox.
#[derive(Default)]
struct Life {
    /// Where it was created.
    bundle: Option<PathBuf>,
    started: Option<(u32, Timestamp)>,
    exit: Option<(u32, Timestamp)>,
}

/// The service.
pub struct SandboxService {
    tasks: Arc<TaskService>,
    pod: Arc<Pod>,
    life: Mutex<Life>,
}

impl SandboxService {
    /// The service of the sandbox that `tasks` has the containers of.
    pub fn new(tasks: Arc<TaskService>, pod: Arc<Pod>) -> Self {
        Self {
            tasks,
            pod,
            life: Mutex::default(),
        }
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own(&self, asked: &str) -> Result<String, SandboxError> {
        match self.pod.id() {
            own if own == asked => Ok(own.to_owned()),
            own => Err(SandboxError::Other {
                own: own.to_owned(),
                asked: asked.to_owned(),
            }),
        }
    }

    /// Sends a signal and waits for the end; whether it has come within `limit`.
    async fn ends_by(&self, ctx: &TtrpcContext, id: &str, signal: u32, limit: Duration) -> ttrpc::Result<bool> {
        let kill = KillRequest {
            id: id.to_owned(),
            signal,
            all: true,
            ..Default::default()
        };
        match self.tasks.kill(ctx, kill).await {
            Err(error) if !is_not_found(&error) => return Err(error),
            _ => {}
        }
        let wait = WaitRequest {
            id: id.to_owned(),
            ..Default::default()
        };
        match timeout(limit, self.tasks.wait(ctx, wait)).await {
            Ok(Ok(exit)) => {
                self.life().exit = Some((exit.exit_status, exit.exited_at.unwrap_or_default()));
                Ok(true)
            }
            Ok(Err(error)) if is_not_found(&error) => Ok(true),
            Ok(Err(error)) => Err(error),
            Err(_) => Ok(false),
        }
    }
}

fn is_not_found(error: &ttrpc::Error) -> bool {
    matches!(error, ttrpc::Error::RpcStatus(status) if status.code() == Code::NOT_FOUND)
}

#[async_trait]
impl Sandbox for SandboxService {
    /// Writes the document and the pod's files into the bundle; nothing runs yet.
    async fn create_sandbox(&self, _ctx: &TtrpcContext, request: CreateSandboxRequest) -> ttrpc::Result<CreateSandboxResponse> {
        let id = self.own(&request.sandbox_id)?;
        let mut life = self.life();
        if life.bundle.is_some() {
            return Err(SandboxError::Exists(id).into());
        }
        let options = request.options.into_option().unwrap_or_default();
        let mut config = pod_config::read(&options.type_url, &options.value).map_err(SandboxError::from)?;
        config.annotations.extend(request.annotations);
        let dir = PathBuf::from(request.bundle_path);
        bundle::write(&dir, &config, &id, &request.netns_path).map_err(SandboxError::from)?;
        life.bundle = Some(dir);
        Ok(CreateSandboxResponse::new())
    }

    /// Boots the VM and starts the guest's pause.
    async fn start_sandbox(&self, ctx: &TtrpcContext, request: StartSandboxRequest) -> ttrpc::Result<StartSandboxResponse> {
        let id = self.own(&request.sandbox_id)?;
        let dir = self.life().bundle.clone().ok_or_else(|| SandboxError::Missing(id.clone()))?;
        let create = CreateTaskRequest {
            id: id.clone(),
            bundle: dir.display().to_string(),
            options: bundle::kept_options(&dir).into(),
            ..Default::default()
        };
        self.tasks.create(ctx, create).await?;
        let start = StartRequest {
            id: id.clone(),
            ..Default::default()
        };
        let pid = match self.tasks.start(ctx, start).await {
            Ok(started) => started.pid,
            Err(error) => {
                let delete = DeleteRequest { id, ..Default::default() };
                // The first error is the answer.
                let _ = self.tasks.delete(ctx, delete).await;
                return Err(error);
            }
        };
        let now = Timestamp::now();
        self.life().started = Some((pid, now.clone()));
        Ok(StartSandboxResponse {
            pid,
            created_at: Some(now).into(),
            ..Default::default()
        })
    }

    async fn platform(&self, _ctx: &TtrpcContext, request: PlatformRequest) -> ttrpc::Result<PlatformResponse> {
        self.own(&request.sandbox_id)?;
        let platform = Platform {
            os: "linux".to_owned(),
            architecture: "amd64".to_owned(),
            ..Default::default()
        };
        Ok(PlatformResponse {
            platform: Some(platform).into(),
            ..Default::default()
        })
    }

    /// Ends the pod's pause and with it the VM; what has ended already is no error.
    async fn stop_sandbox(&self, ctx: &TtrpcContext, request: StopSandboxRequest) -> ttrpc::Result<StopSandboxResponse> {
        let id = self.own(&request.sandbox_id)?;
        let grace = Duration::from_secs(request.timeout_secs.into());
        // A policy may deny SIGTERM; SIGKILL ends the VM where the guest does not obey.
        let ended = !grace.is_zero() && matches!(self.ends_by(ctx, &id, SIGTERM, grace).await, Ok(true));
        if !ended {
            self.ends_by(ctx, &id, SIGKILL, ENDED).await?;
        }
        let delete = DeleteRequest { id, ..Default::default() };
        match self.tasks.delete(ctx, delete).await {
            Err(error) if !is_not_found(&error) => Err(error),
            _ => Ok(StopSandboxResponse::new()),
        }
    }

    async fn wait_sandbox(&self, ctx: &TtrpcContext, request: WaitSandboxRequest) -> ttrpc::Result<WaitSandboxResponse> {
        let id = self.own(&request.sandbox_id)?;
        let wait = WaitRequest { id, ..Default::default() };
        let (exit_status, exited_at) = match self.tasks.wait(ctx, wait).await {
            Ok(exit) => (exit.exit_status, exit.exited_at.unwrap_or_default()),
            // It was stopped before.
            Err(error) => self.life().exit.clone().ok_or(error)?,
        };
        self.life().exit = Some((exit_status, exited_at.clone()));
        Ok(WaitSandboxResponse {
            exit_status,
            exited_at: Some(exited_at).into(),
            ..Default::default()
        })
    }

    async fn sandbox_status(&self, ctx: &TtrpcContext, request: SandboxStatusRequest) -> ttrpc::Result<SandboxStatusResponse> {
        let id = self.own(&request.sandbox_id)?;
        let asked = StateRequest {
            id: id.clone(),
            ..Default::default()
        };
        let task = self.tasks.state(ctx, asked).await.ok();
        let is_ready = task.is_some_and(|task| task.status.enum_value() == Ok(Status::RUNNING));
        let life = self.life();
        let mut info = std::collections::HashMap::new();
        if request.verbose {
            info.insert("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        }
        Ok(SandboxStatusResponse {
            sandbox_id: id,
            pid: life.started.as_ref().map_or(0, |(pid, _)| *pid),
            state: if is_ready { READY } else { NOT_READY }.to_owned(),
            info,
            created_at: life.started.as_ref().map(|(_, at)| at.clone()).into(),
            exited_at: life.exit.as_ref().map(|(_, at)| at.clone()).into(),
            ..Default::default()
        })
    }

    async fn ping_sandbox(&self, _ctx: &TtrpcContext, request: PingRequest) -> ttrpc::Result<PingResponse> {
        let id = self.own(&request.sandbox_id)?;
        match self.pod.current() {
            Some(vm) if !vm.has_ended() => Ok(PingResponse::new()),
            _ => Err(SandboxError::Ended(id).into()),
        }
    }

    /// Ends the shim, and the VM if it runs.
    async fn shutdown_sandbox(&self, ctx: &TtrpcContext, request: ShutdownSandboxRequest) -> ttrpc::Result<ShutdownSandboxResponse> {
        let id = self.own(&request.sandbox_id)?;
        let shutdown = ShutdownRequest {
            id,
            now: true,
            ..Default::default()
        };
        self.tasks.shutdown(ctx, shutdown).await?;
        Ok(ShutdownSandboxResponse::new())
    }

    /// What the VM costs the host.
    async fn sandbox_metrics(&self, _ctx: &TtrpcContext, request: SandboxMetricsRequest) -> ttrpc::Result<SandboxMetricsResponse> {
        let id = self.own(&request.sandbox_id)?;
        let vm = self.pod.current().ok_or_else(|| SandboxError::Ended(id.clone()))?;
        Ok(metrics::of(id, vm.pid()).map_err(Error::Encode)?)
    }
}

#[cfg(test)]
mod tests;
