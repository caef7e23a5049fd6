//! Handlers of the methods that take more than a few lines.

use agent_protocol::{
    BlockIo, ContainerStatsRequest, ContainerStatsResponse, GuestProcess, ListProcessesRequest, ListProcessesResponse, LoadFragmentRequest,
    PauseContainerRequest, StreamToken, UpdateContainerRequest, WaitOomRequest, WaitOomResponse, WaitProcessRequest, WaitProcessResponse,
    WritePodFilesRequest, limits::CAPACITY_DEADLINE,
};
use permit_log::{Entry, Receiver};
use policy::{
    ContainerId,
    action::{GetProperties, HostNetwork, MountDevice, PauseContainer, UpdateContainer},
};
use tokio::{sync::SemaphorePermit, task::spawn_blocking};
use tokio_vsock::VsockStream;

use super::Service;
use crate::{
    cgroup::counters::Counters,
    container::{Confinement, ContainerError, UserDatabase, exec_action, pause, split},
    decode::{
        self, CreateOrder, ExecOrder, ExternalOrder, ForwardOrder, LayerOrder, LayerSource, ProcessId, PullOrder, SignalOrder, StdioPlan,
    },
    error::RequestError,
    evidence::Evidence,
    fragments,
    images::{self, PullError},
    judge::Recorded,
    network, paths,
    pod_files::{self, Present},
    reaper::ended,
    stdio::HostStreams,
    storage::{self, StorageError},
    streams::{ClaimError, Stream},
};

impl<E: Evidence + 'static> Service<E> {
    /// Claims the connections that a request names: all of them, or an error.
    async fn claim(&self, plan: &StdioPlan) -> Result<HostStreams<VsockStream>, RequestError> {
        let claim = async |token: Option<StreamToken>| -> Result<Option<Stream<VsockStream>>, ClaimError> {
            match token {
                Some(token) => self.streams.claim(token).await.map(Some),
                None => Ok(None),
            }
        };
        let (stdin, stdout, stderr) = tokio::try_join!(claim(plan.stdin), claim(plan.stdout), claim(plan.stderr))?;
        Ok(HostStreams { stdin, stdout, stderr })
    }

    pub(super) async fn load_fragment(&self, request: LoadFragmentRequest) -> Result<(), RequestError> {
        self.sandbox.check_open()?;
        let injection = decode::injection(request)?;
        // Verify chain and signature before the policy is asked: no permit may be held during a computation whose length the host chooses.
        let room = self
            .verifications
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| RequestError::Panicked)?;
        let opened = spawn_blocking(move || {
            let opened = injection.open();
            drop(room);
            opened
        });
        let opened = opened.await;
        let addition = opened.map_err(|_| RequestError::Panicked)??;
        let act = self
            .sandbox
            .exclusive(move |judge, _, containers| Ok(fragments::load(judge, &mut containers.context(), addition)?));
        act.await
    }

    pub(super) async fn mount_layer(&self, order: LayerOrder) -> Result<(), RequestError> {
        self.sandbox.check_open()?;
        let LayerOrder { slot, source, root_hash } = order;
        let action = MountDevice::new(paths::layer(slot), root_hash);
        let LayerSource::Disk(geometry) = source else {
            let act = self
                .sandbox
                .exclusive(move |judge, storage, _| Ok(storage.mount_pulled(judge.enforce(action)?, slot)?));
            return act.await;
        };
        let disk = storage::layer_disk()?;
        let end = geometry.end_sector();
        // Before the policy is asked, because no permit may be held while waiting for the host.
        let grown = disk.grown_to(end, CAPACITY_DEADLINE).await;
        let grown = grown.map_err(|cause| StorageError::Io {
            step: "reading the size of the layer disk",
            cause,
        })?;
        grown.map_err(|available| StorageError::BeyondDisk { end, available })?;
        let act = self.sandbox.exclusive(move |judge, storage, _| {
            let permit = judge.enforce(action)?;
            Ok(storage.mount_layer(permit, slot, &disk, geometry)?)
        });
        act.await
    }

    /// No permit is held while a registry is waited for: the files are made under one, and count for nothing until a layer in them is
    /// judged and mounted.
    pub(super) async fn pull_image(&self, order: PullOrder) -> Result<Vec<[u8; 32]>, RequestError> {
        self.sandbox.check_open()?;
        let _room = self.pulls.try_acquire().map_err(|_| PullError::Busy)?;
        let PullOrder { sandbox, action } = order;
        let begin = self.sandbox.exclusive(move |judge, storage, _| {
            let permit = judge.enforce(action)?;
            Ok(storage.begin_pull(permit, &sandbox)?)
        });
        let nameservers = self.nameservers.borrow().clone();
        let (staging, layers) = images::pull(self.reaper.clone(), begin.await?, nameservers).await?;
        let keep = self
            .sandbox
            .exclusive(move |_, storage, _| Ok(storage.keep_pulled(staging, &layers)?));
        keep.await
    }

    pub(super) async fn create(&self, order: CreateOrder) -> Result<u32, RequestError> {
        self.sandbox.check_open()?;
        let streams = self.claim(&order.stdio).await?;
        let act = self.sandbox.exclusive(move |judge, storage, containers| {
            let CreateOrder {
                container,
                sandbox,
                spec,
                limits,
                stdio,
            } = order;
            containers.check_free(&container)?;
            if !storage.has_rootfs(&container, &sandbox) {
                return Err(ContainerError::NoRootfs(container).into());
            }
            let (spec, pod) = if storage.has_own_rootfs(&container) {
                (pause::document(spec), Present::default())
            } else {
                (spec, Present::of(&sandbox))
            };
            spec.linux.check_devices().map_err(ContainerError::Device)?;
            let users = UserDatabase::read(&paths::rootfs(&container)).map_err(ContainerError::User)?;
            let identity = users.identify(&spec.process.user).map_err(ContainerError::User)?;
            let (action, confinement, unjudged) =
                split(spec, &container, &sandbox, identity, &limits, &pod).map_err(ContainerError::Source)?;
            let judged = judge.judges_confinement();
            let mut whole = judge.transaction();
            let confinement = Confinement::of(whole.enforce(confinement)?, judged).map_err(ContainerError::Mask)?;
            if unjudged.host_network {
                whole.enforce(HostNetwork {})?.commit();
            }
            let permit = whole.enforce(action)?;
            let pid = containers.create(permit, confinement, unjudged, users, &limits, &sandbox, stdio.terminal, streams)?;
            whole.commit();
            judge.follow(containers.exit_of(&container, &ProcessId::Init)?);
            Ok(pid.as_raw() as u32)
        });
        act.await
    }

    pub(super) async fn write_files(&self, request: WritePodFilesRequest) -> Result<(), RequestError> {
        let action = decode::pod_files(request)?;
        let act = self.sandbox.exclusive(move |judge, storage, _| {
            if !storage.is_of(&action.sandbox_id) {
                return Err(StorageError::NoScratch.into());
            }
            let mounts = pod_files::default_mounts(&action.sandbox_id);
            pod_files::write(judge.enforce(action)?)?;
            // Its failure denies everything, and so seals the guest.
            judge.extend_default_mounts(mounts).map_err(|_| RequestError::Undone)
        });
        act.await
    }

    pub(super) async fn exec(&self, order: ExecOrder) -> Result<u32, RequestError> {
        self.sandbox.check_open()?;
        // An unknown container is reported at once, before waiting for streams or other requests.
        self.sandbox.containers.get(&order.container)?;
        let streams = self.claim(&order.stdio).await?;
        let act = self.sandbox.exclusive(move |judge, _, containers| {
            let ExecOrder {
                container,
                exec_id,
                process,
                stdio,
            } = order;
            let identity = containers.get(&container)?.identify(&process.user)?;
            let (action, terminal, rlimits, oom) = exec_action(process, &container, identity);
            let permit = judge.enforce(action)?;
            let pid = containers.exec(permit, exec_id.clone(), terminal, rlimits, oom, stdio.terminal, streams)?;
            judge.follow(containers.exit_of(&container, &ProcessId::Exec(exec_id))?);
            Ok(pid.as_raw() as u32)
        });
        act.await
    }

    pub(super) async fn exec_external(&self, order: ExternalOrder) -> Result<u32, RequestError> {
        self.sandbox.check_open()?;
        let streams = self.claim(&order.stdio).await?;
        let act = self.sandbox.exclusive(move |judge, _, containers| {
            let ExternalOrder { exec_id, action, stdio } = order;
            let permit = judge.enforce(action)?;
            let pid = containers.exec_external(permit, exec_id.clone(), stdio.terminal, streams)?;
            judge.follow(containers.exit_of(&paths::guest(), &ProcessId::Exec(exec_id))?);
            Ok(pid.as_raw() as u32)
        });
        act.await
    }

    pub(super) async fn forward(&self, order: ForwardOrder) -> Result<(), RequestError> {
        self.sandbox.check_open()?;
        let stream = self.streams.claim(order.token).await?;
        let act = self.sandbox.exclusive(move |judge, _, _| {
            let permit = judge.enforce(order.action)?;
            Ok(network::connect(permit)?)
        });
        Ok(network::join(act.await?, stream)?)
    }

    pub(super) async fn signal(&self, order: SignalOrder) -> Result<(), RequestError> {
        self.sandbox.check_open()?;
        self.sandbox.containers.get(&order.container)?;
        let act = self.sandbox.exclusive(move |judge, _, containers| {
            let SignalOrder {
                container,
                process,
                signal,
                all,
            } = order;
            let mut whole = judge.transaction();
            // A signal that ends the init ends all processes; any other signal to all is one to each process that the policy knows.
            let each = if all {
                containers.execs_reached(&container, signal)?
            } else {
                Vec::new()
            };
            for exec in each {
                whole.enforce(containers.signal_action(&container, &exec, signal, false)?)?.commit();
            }
            let action = containers.signal_action(&container, &process, signal, all)?;
            let entry = match (action.entry(), all) {
                (Entry::Signal { container, signal, .. }, true) => Entry::Signal {
                    container,
                    signal,
                    receiver: Receiver::All,
                },
                (entry, _) => entry,
            };
            let permit = whole.enforce_as(action, entry)?;
            containers.signal(permit, &process, all)?;
            whole.commit();
            Ok(())
        });
        act.await
    }

    pub(super) async fn pause(&self, request: PauseContainerRequest) -> Result<(), RequestError> {
        let container_id = decode::container_id(&request.container_id)?;
        let act = self.sandbox.exclusive(move |judge, _, containers| {
            let judged = judge.judges_confinement();
            let mut whole = judge.transaction();
            if !judged {
                for stop in containers.stop_actions(&container_id)? {
                    whole.enforce(stop)?.commit();
                }
            }
            containers.pause(whole.enforce(PauseContainer { container_id })?)?;
            whole.commit();
            Ok(())
        });
        act.await
    }

    pub(super) async fn update(&self, request: UpdateContainerRequest) -> Result<(), RequestError> {
        let (container_id, limits) = decode::update(&request)?;
        let act = self.sandbox.exclusive(move |judge, _, containers| {
            let judged = judge.judges_confinement();
            let action = UpdateContainer {
                container_id,
                limits: limits.values(),
            };
            Ok(containers.update(judge.enforce(action)?, &limits, judged)?)
        });
        act.await
    }

    /// Asks the policy whether the container's properties may be read. The permit is dropped before they are read, so
    /// that a reader of statistics blocks no other request.
    async fn may_be_read(&self, container: &ContainerId) -> Result<(), RequestError> {
        let container = container.clone();
        let act = self.sandbox.exclusive(move |judge, _, containers| {
            containers.get(&container)?;
            judge.enforce(GetProperties {})?.commit();
            Ok(())
        });
        act.await
    }

    pub(super) async fn stats(&self, request: ContainerStatsRequest) -> Result<ContainerStatsResponse, RequestError> {
        let container = decode::container_id(&request.container_id)?;
        self.may_be_read(&container).await?;
        let Counters { values, io } = self.sandbox.containers.counters(&container)?;
        let io = io.into_iter().map(|io| BlockIo {
            major: io.major,
            minor: io.minor,
            rbytes: io.rbytes,
            wbytes: io.wbytes,
            rios: io.rios,
            wios: io.wios,
            ..Default::default()
        });
        Ok(ContainerStatsResponse {
            counters: values,
            io: io.collect(),
            ..Default::default()
        })
    }

    pub(super) async fn list(&self, request: ListProcessesRequest) -> Result<ListProcessesResponse, RequestError> {
        let container = decode::container_id(&request.container_id)?;
        self.may_be_read(&container).await?;
        let processes = self.sandbox.containers.list(&container)?.into_iter();
        let processes = processes.map(|(pid, exec_id)| GuestProcess {
            pid,
            exec_id,
            ..Default::default()
        });
        Ok(ListProcessesResponse {
            processes: processes.collect(),
            ..Default::default()
        })
    }

    pub(super) async fn wait_oom(&self, request: WaitOomRequest) -> Result<WaitOomResponse, RequestError> {
        self.sandbox.check_open()?;
        let _room = self.room_to_wait()?;
        let container = decode::container_id(&request.container_id)?;
        let count = self.sandbox.containers.oom_beyond(&container, request.seen).await?;
        Ok(WaitOomResponse {
            kills: count.kills,
            ended: count.is_last,
            ..Default::default()
        })
    }

    fn room_to_wait(&self) -> Result<SemaphorePermit<'_>, ContainerError> {
        let room = self.sandbox.waiters.try_acquire();
        room.map_err(|_| ContainerError::TooMany("waiting calls"))
    }

    pub(super) async fn wait(&self, request: WaitProcessRequest) -> Result<WaitProcessResponse, RequestError> {
        self.sandbox.check_open()?;
        let _room = self.room_to_wait()?;
        let container = decode::container_id(&request.container_id)?;
        let process = decode::process_id(&request.exec_id)?;
        let exit = ended(self.sandbox.containers.exit_of(&container, &process)?).await;
        let mut response = WaitProcessResponse::new();
        response.exit_status = exit.status;
        response.exited_at_ns = exit.at_ns;
        Ok(response)
    }
}
