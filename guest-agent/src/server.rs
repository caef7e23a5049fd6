//! The ttrpc service. Each method decodes, enforces and acts; [`handlers`] has those that take more than a line.

use std::{io, net::IpAddr, process, sync::Arc, time::Duration};

use agent_protocol::{
    Agent, AttachDiskRequest, AttachDiskResponse, CONTROL_PORT, ConfigureNetworkRequest, ConfigureNetworkResponse, ContainerStatsRequest,
    ContainerStatsResponse, CreateContainerRequest, CreateContainerResponse, DeleteProcessRequest, DeleteProcessResponse,
    DetachDiskRequest, DetachDiskResponse, DumpStacksRequest, DumpStacksResponse, ExecExternalRequest, ExecExternalResponse,
    ExecProcessRequest, ExecProcessResponse, ForwardPortRequest, ForwardPortResponse, ListProcessesRequest, ListProcessesResponse,
    LoadFragmentRequest, LoadFragmentResponse, MountLayerRequest, MountLayerResponse, MountOverlayRequest, MountOverlayResponse,
    MountScratchRequest, MountScratchResponse, MountShareRequest, MountShareResponse, PauseContainerRequest, PauseContainerResponse,
    PowerOffRequest, PowerOffResponse, PullImageRequest, PullImageResponse, ResizeTerminalRequest, ResizeTerminalResponse,
    ResumeContainerRequest, ResumeContainerResponse, STREAM_PORT, SetPolicyRequest, SetPolicyResponse, ShutdownContainerRequest,
    ShutdownContainerResponse, SignalProcessRequest, SignalProcessResponse, StartContainerRequest, StartContainerResponse,
    UnmountLayerRequest, UnmountLayerResponse, UnmountOverlayRequest, UnmountOverlayResponse, UnmountScratchRequest,
    UnmountScratchResponse, UnmountShareRequest, UnmountShareResponse, UpdateContainerRequest, UpdateContainerResponse, WaitOomRequest,
    WaitOomResponse, WaitProcessRequest, WaitProcessResponse, WritePodFilesRequest, WritePodFilesResponse, create_agent, limits::PULLS,
};
use permit_log::Entry;
use policy::action::{
    DumpStacks, MountBlockdev, Plan9Mount, Plan9Unmount, RwUnmountDevice, ShutdownContainer, UnmountBlockdev, UnmountDevice,
};
use tokio::sync::{Semaphore, watch};
use tokio_vsock::VsockStream;
use ttrpc::r#async::{Server, TtrpcContext};

use crate::{
    admission,
    container::ContainerError,
    decode,
    error::RequestError,
    evidence::{BootEvidence, Evidence},
    judge,
    launcher::Program,
    log, network, paths,
    reaper::Reaper,
    report_socket,
    sandbox::Sandbox,
    stacks,
    storage::{self, StorageError, unsupported},
    streams::{self, Streams},
};

mod handlers;
mod reports;

/// Threads for acts that block. Acts are serial, so more are needed only for look-ups.
const BLOCKING_THREADS: usize = 8;
/// Signatures that are checked at once.
const VERIFICATIONS: usize = 2;
/// Time for the last answer to be sent before the guest powers off.
const LAST_ANSWER: Duration = Duration::from_millis(20);

/// Why the service ended, and with it the guest.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("the runtime cannot be created")]
    Runtime(#[source] io::Error),
    #[error("port {port} cannot be served")]
    Port {
        port: u32,
        #[source]
        cause: io::Error,
    },
    #[error("the service cannot be started")]
    Ttrpc(#[source] ttrpc::Error),
    #[error("the reaper ended")]
    Reaper(#[source] io::Error),
}

/// Serves until the guest is powered off; `program` starts the containers.
pub fn run(program: Program) -> Result<(), ServerError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(ServerError::Runtime)?
        .block_on(serve(program))
}

async fn serve(program: Program) -> Result<(), ServerError> {
    let listen = |port| agent_protocol::listen(port).map_err(|cause| ServerError::Port { port, cause });
    let reaper = Arc::new(Reaper::default());
    let reaping = tokio::spawn(reaper.clone().run());
    let stream_table = Arc::new(Streams::default());
    tokio::spawn(streams::serve(stream_table.clone(), listen(STREAM_PORT)?));
    let (desk, orders) = report_socket::desk();
    let reaper_of_pullers = reaper.clone();
    let sandbox = Arc::new(Sandbox::new(BootEvidence::default(), program, reaper, desk));
    tokio::spawn(reports::serve(sandbox.clone(), orders));
    let service = Service {
        sandbox,
        streams: stream_table,
        verifications: Arc::new(Semaphore::new(VERIFICATIONS)),
        pulls: Semaphore::new(PULLS),
        reaper: reaper_of_pullers,
        nameservers: watch::Sender::default(),
    };
    let control = listen(CONTROL_PORT)?;
    let mut server = Server::new()
        .add_listener(control.into_ttrpc())
        .register_service(admission::limited(create_agent(Arc::new(service))));
    server.start().await.map_err(ServerError::Ttrpc)?;
    match reaping.await {
        Ok(Err(error)) => Err(ServerError::Reaper(error)),
        Ok(Ok(())) => Err(ServerError::Reaper(io::ErrorKind::UnexpectedEof.into())),
        Err(panicked) => Err(ServerError::Reaper(io::Error::other(panicked))),
    }
}

struct Service<E> {
    sandbox: Arc<Sandbox<E>>,
    streams: Arc<Streams<VsockStream>>,
    /// Room for checks of signatures, which nothing cancels once they have begun.
    verifications: Arc<Semaphore>,
    /// Room for pulls.
    pulls: Semaphore,
    /// Starts their pullers.
    reaper: Arc<Reaper>,
    /// Whom pullers ask for names, since the network is configured.
    nameservers: watch::Sender<Vec<IpAddr>>,
}

type Answer<T> = ttrpc::Result<T>;

#[async_trait::async_trait]
impl<E: Evidence + 'static> Agent for Service<E> {
    async fn set_policy(&self, _: &TtrpcContext, request: SetPolicyRequest) -> Answer<SetPolicyResponse> {
        let order = decode::policy(request).map_err(RequestError::from)?;
        let digest = self.sandbox.set_policy(order).await?;
        log::follow_with_kernel();
        let mut response = SetPolicyResponse::new();
        response.digest = digest.to_vec();
        Ok(response)
    }

    async fn load_fragment(&self, _: &TtrpcContext, request: LoadFragmentRequest) -> Answer<LoadFragmentResponse> {
        self.load_fragment(request).await?;
        Ok(LoadFragmentResponse::new())
    }

    async fn mount_layer(&self, _: &TtrpcContext, request: MountLayerRequest) -> Answer<MountLayerResponse> {
        self.mount_layer(request.try_into().map_err(RequestError::from)?).await?;
        Ok(MountLayerResponse::new())
    }

    async fn pull_image(&self, _: &TtrpcContext, request: PullImageRequest) -> Answer<PullImageResponse> {
        let roots = self.pull_image(request.try_into().map_err(RequestError::from)?).await?;
        let mut response = PullImageResponse::new();
        response.root_hashes = roots.iter().map(|root| root.to_vec()).collect();
        Ok(response)
    }

    async fn unmount_layer(&self, _: &TtrpcContext, request: UnmountLayerRequest) -> Answer<UnmountLayerResponse> {
        let slot = decode::layer_slot(request.slot).map_err(RequestError::from)?;
        let act = self.sandbox.exclusive(move |judge, storage, _| {
            let permit = judge.enforce(UnmountDevice {
                unmount_target: paths::layer(slot),
            })?;
            Ok(storage.unmount_layer(permit, slot)?)
        });
        act.await?;
        Ok(UnmountLayerResponse::new())
    }

    async fn mount_scratch(&self, _: &TtrpcContext, request: MountScratchRequest) -> Answer<MountScratchResponse> {
        let (sandbox, asked) = decode::scratch(&request).map_err(RequestError::from)?;
        let act = self.sandbox.exclusive(move |judge, storage, _| {
            let permit = judge.enforce(asked)?;
            Ok(storage.mount_scratch(permit, sandbox)?)
        });
        act.await?;
        Ok(MountScratchResponse::new())
    }

    async fn unmount_scratch(&self, _: &TtrpcContext, request: UnmountScratchRequest) -> Answer<UnmountScratchResponse> {
        let sandbox = decode::sandbox_id(&request.sandbox_id).map_err(RequestError::from)?;
        let act = self.sandbox.exclusive(move |judge, storage, _| {
            let permit = judge.enforce(RwUnmountDevice {
                unmount_target: paths::container(&sandbox),
            })?;
            Ok(storage.unmount_scratch(permit, &sandbox)?)
        });
        act.await?;
        Ok(UnmountScratchResponse::new())
    }

    async fn mount_share(&self, _: &TtrpcContext, request: MountShareRequest) -> Answer<MountShareResponse> {
        let container = decode::container_id(&request.container_id).map_err(RequestError::from)?;
        let share = decode::share("share", request.share).map_err(RequestError::from)?;
        let act = self.sandbox.exclusive(move |judge, _, _| {
            let permit = judge.enforce(Plan9Mount::new(paths::share(&container, share)))?;
            Err(unsupported::mount_share(permit).into())
        });
        Ok(act.await?)
    }

    async fn unmount_share(&self, _: &TtrpcContext, request: UnmountShareRequest) -> Answer<UnmountShareResponse> {
        let container = decode::container_id(&request.container_id).map_err(RequestError::from)?;
        let share = decode::share("share", request.share).map_err(RequestError::from)?;
        let act = self.sandbox.exclusive(move |judge, _, _| {
            let unmount_target = paths::share(&container, share);
            let permit = judge.enforce(Plan9Unmount { unmount_target })?;
            Err(unsupported::unmount_share(permit).into())
        });
        Ok(act.await?)
    }

    async fn attach_disk(&self, _: &TtrpcContext, request: AttachDiskRequest) -> Answer<AttachDiskResponse> {
        let slot = decode::share("slot", request.slot).map_err(RequestError::from)?;
        let act = self.sandbox.exclusive(move |judge, _, _| {
            let permit = judge.enforce(MountBlockdev { target: paths::disk(slot) })?;
            Err(unsupported::attach_disk(permit).into())
        });
        Ok(act.await?)
    }

    async fn detach_disk(&self, _: &TtrpcContext, request: DetachDiskRequest) -> Answer<DetachDiskResponse> {
        let slot = decode::share("slot", request.slot).map_err(RequestError::from)?;
        let act = self.sandbox.exclusive(move |judge, _, _| {
            let unmount_target = paths::disk(slot);
            let permit = judge.enforce(UnmountBlockdev { unmount_target })?;
            Err(unsupported::detach_disk(permit).into())
        });
        Ok(act.await?)
    }

    async fn mount_overlay(&self, _: &TtrpcContext, request: MountOverlayRequest) -> Answer<MountOverlayResponse> {
        let (container, sandbox, slots) = decode::overlay(&request).map_err(RequestError::from)?;
        let act = self
            .sandbox
            .exclusive(move |judge, storage, _| Ok(storage::mount_rootfs(storage, judge, &sandbox, &container, slots)?));
        act.await?;
        Ok(MountOverlayResponse::new())
    }

    async fn unmount_overlay(&self, _: &TtrpcContext, request: UnmountOverlayRequest) -> Answer<UnmountOverlayResponse> {
        let container = decode::container_id(&request.container_id).map_err(RequestError::from)?;
        let act = self.sandbox.exclusive(move |judge, storage, containers| {
            if containers.get(&container).is_ok() {
                return Err(StorageError::InUse(storage::rootfs_of(&container)).into());
            }
            Ok(storage::unmount_rootfs(storage, judge, &container)?)
        });
        act.await?;
        Ok(UnmountOverlayResponse::new())
    }

    async fn write_pod_files(&self, _: &TtrpcContext, request: WritePodFilesRequest) -> Answer<WritePodFilesResponse> {
        self.write_files(request).await?;
        Ok(WritePodFilesResponse::new())
    }

    async fn create_container(&self, _: &TtrpcContext, request: CreateContainerRequest) -> Answer<CreateContainerResponse> {
        let mut response = CreateContainerResponse::new();
        response.pid = self.create(request.try_into().map_err(RequestError::from)?).await?;
        Ok(response)
    }

    async fn start_container(&self, _: &TtrpcContext, request: StartContainerRequest) -> Answer<StartContainerResponse> {
        self.sandbox.check_open().map_err(RequestError::from)?;
        let container = decode::container_id(&request.container_id).map_err(RequestError::from)?;
        // Serial with the creation of others, which counts on what has not been started.
        let act = self.sandbox.exclusive(move |judge, _, containers| {
            judge.note(Entry::Start {
                container: judge::id(&container),
            })?;
            Ok(containers.start(&container)?)
        });
        act.await?;
        Ok(StartContainerResponse::new())
    }

    async fn exec_process(&self, _: &TtrpcContext, request: ExecProcessRequest) -> Answer<ExecProcessResponse> {
        let mut response = ExecProcessResponse::new();
        response.pid = self.exec(request.try_into().map_err(RequestError::from)?).await?;
        Ok(response)
    }

    async fn exec_external(&self, _: &TtrpcContext, request: ExecExternalRequest) -> Answer<ExecExternalResponse> {
        let mut response = ExecExternalResponse::new();
        response.pid = self.exec_external(request.try_into().map_err(RequestError::from)?).await?;
        Ok(response)
    }

    async fn signal_process(&self, _: &TtrpcContext, request: SignalProcessRequest) -> Answer<SignalProcessResponse> {
        self.signal((&request).try_into().map_err(RequestError::from)?).await?;
        Ok(SignalProcessResponse::new())
    }

    async fn wait_process(&self, _: &TtrpcContext, request: WaitProcessRequest) -> Answer<WaitProcessResponse> {
        Ok(self.wait(request).await?)
    }

    async fn delete_process(&self, _: &TtrpcContext, request: DeleteProcessRequest) -> Answer<DeleteProcessResponse> {
        self.sandbox.check_open().map_err(RequestError::from)?;
        let container = decode::container_id(&request.container_id).map_err(RequestError::from)?;
        let process = decode::process_id(&request.exec_id).map_err(RequestError::from)?;
        self.sandbox
            .containers
            .delete_process(&container, &process)
            .map_err(RequestError::from)?;
        Ok(DeleteProcessResponse::new())
    }

    async fn shutdown_container(&self, _: &TtrpcContext, request: ShutdownContainerRequest) -> Answer<ShutdownContainerResponse> {
        let container_id = decode::container_id(&request.container_id).map_err(RequestError::from)?;
        self.sandbox.check_open().map_err(RequestError::from)?;
        self.sandbox.containers.get(&container_id).map_err(RequestError::from)?;
        // Judged when it is killed and again when it is removed, so that no permit is held while its processes die slowly.
        for taken_away in [false, true] {
            if taken_away {
                self.sandbox.containers.ended(&container_id).await.map_err(RequestError::from)?;
            }
            let container_id = container_id.clone();
            let act = self.sandbox.exclusive(move |judge, _, containers| {
                containers.get(&container_id)?;
                let container = judge::id(&container_id);
                let entry = if taken_away {
                    Entry::Remove { container }
                } else {
                    Entry::End { container }
                };
                let permit = judge.enforce_as(ShutdownContainer { container_id }, entry)?;
                Ok(if taken_away {
                    containers.shutdown(permit)
                } else {
                    containers.end(permit)
                }?)
            });
            act.await?;
        }
        Ok(ShutdownContainerResponse::new())
    }

    async fn resize_terminal(&self, _: &TtrpcContext, request: ResizeTerminalRequest) -> Answer<ResizeTerminalResponse> {
        self.sandbox.check_open().map_err(RequestError::from)?;
        let (container, process, size) = decode::resize(&request).map_err(RequestError::from)?;
        self.sandbox
            .containers
            .resize(&container, &process, size)
            .map_err(RequestError::from)?;
        Ok(ResizeTerminalResponse::new())
    }

    async fn list_processes(&self, _: &TtrpcContext, request: ListProcessesRequest) -> Answer<ListProcessesResponse> {
        Ok(self.list(request).await?)
    }

    async fn forward_port(&self, _: &TtrpcContext, request: ForwardPortRequest) -> Answer<ForwardPortResponse> {
        self.forward(request.try_into().map_err(RequestError::from)?).await?;
        Ok(ForwardPortResponse::new())
    }

    async fn configure_network(&self, _: &TtrpcContext, request: ConfigureNetworkRequest) -> Answer<ConfigureNetworkResponse> {
        let action = decode::network(request).map_err(RequestError::from)?;
        let servers = action.nameservers.iter().filter_map(|server| server.parse().ok()).collect();
        let act = self
            .sandbox
            .exclusive(move |judge, _, _| Ok(network::configure(judge.enforce(action)?)?));
        act.await?;
        self.nameservers.send_replace(servers);
        Ok(ConfigureNetworkResponse::new())
    }

    async fn pause_container(&self, _: &TtrpcContext, request: PauseContainerRequest) -> Answer<PauseContainerResponse> {
        self.pause(request).await?;
        Ok(PauseContainerResponse::new())
    }

    async fn resume_container(&self, _: &TtrpcContext, request: ResumeContainerRequest) -> Answer<ResumeContainerResponse> {
        let container = decode::container_id(&request.container_id).map_err(RequestError::from)?;
        let act = self.sandbox.exclusive(move |judge, _, containers| {
            judge.note(judge::resumed(&container))?;
            Ok(containers.resume(&container)?)
        });
        act.await?;
        Ok(ResumeContainerResponse::new())
    }

    async fn update_container(&self, _: &TtrpcContext, request: UpdateContainerRequest) -> Answer<UpdateContainerResponse> {
        self.update(request).await?;
        Ok(UpdateContainerResponse::new())
    }

    async fn container_stats(&self, _: &TtrpcContext, request: ContainerStatsRequest) -> Answer<ContainerStatsResponse> {
        Ok(self.stats(request).await?)
    }

    async fn wait_oom(&self, _: &TtrpcContext, request: WaitOomRequest) -> Answer<WaitOomResponse> {
        Ok(self.wait_oom(request).await?)
    }

    async fn dump_stacks(&self, _: &TtrpcContext, _: DumpStacksRequest) -> Answer<DumpStacksResponse> {
        let act = self.sandbox.exclusive(|judge, _, _| {
            let stacks = stacks::read(judge.enforce(DumpStacks {})?);
            stacks.map_err(|cause| {
                let step = "reading the stacks";
                ContainerError::Io { step, cause }.into()
            })
        });
        let mut response = DumpStacksResponse::new();
        response.stacks = act.await?;
        Ok(response)
    }

    async fn power_off(&self, _: &TtrpcContext, _: PowerOffRequest) -> Answer<PowerOffResponse> {
        self.sandbox.check_open().map_err(RequestError::from)?;
        self.sandbox.note_power_off();
        self.sandbox.containers.end_all();
        tokio::spawn(async {
            tokio::time::sleep(LAST_ANSWER).await;
            // PID 1 sees this process exit, and powers off.
            process::exit(0);
        });
        Ok(PowerOffResponse::new())
    }
}
