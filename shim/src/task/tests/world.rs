//! A shim with one container, a sleeping process as its VMM, an agent that a test controls, and the published events.

use super::{
    super::{
        container::Container,
        process::{Exit, Process},
        *,
    },
    LIMITS, SOON,
};
use crate::{
    bundle::Role,
    config::Config,
    policy_text::PolicyText,
    sandbox::{Rootfs, Wanted},
    stdio::{StdioPaths, Streams},
    vm::{BootRequest, Vm},
};
use agent_protocol::{self as agent, DeleteProcessRequest, SignalProcessRequest};
use containerd_shim_protos::{
    api::{ForwardRequest, Status},
    shim_async::{Events, create_events},
};
use futures_util::stream;
use protobuf::well_known_types::any::Any;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::{Notify, mpsc, watch},
    time::timeout,
};
use ttrpc::{
    Code,
    r#async::{Server, transport::Listener},
};

/// Process id of the init of `web` in the guest.
const GUEST_INIT: u32 = 70;

/// What the agent of a test does, and what it was asked.
pub(super) struct Guest {
    pub(super) exits: watch::Sender<Vec<(String, u32)>>,
    /// Processes that were OOM-killed.
    pub(super) ooms: watch::Sender<u64>,
    /// Containers whose shutdown hangs.
    pub(super) slow_to_die: watch::Sender<Vec<&'static str>>,
    /// Whether pulls end.
    pub(super) pulls_end: watch::Sender<bool>,
    pub(super) calls: Mutex<Vec<String>>,
    /// Calls that are answered with an error.
    pub(super) refused: Mutex<Vec<(&'static str, Code)>>,
    pub(super) vmm: Mutex<Option<u32>>,
}

impl Guest {
    pub(super) fn exit(&self, exec: &str, status: u32) {
        self.exits.send_modify(|exits| exits.push((exec.to_owned(), status)));
    }

    pub(super) fn deny(&self, call: &'static str) {
        self.refuse(call, Code::PERMISSION_DENIED);
    }

    pub(super) fn refuse(&self, call: &'static str, code: Code) {
        self.refused.lock().unwrap().push((call, code));
    }

    pub(super) fn asked(&self, call: &str) -> bool {
        self.calls.lock().unwrap().iter().any(|c| c == call)
    }

    pub(super) fn judge(&self, call: &str) -> ttrpc::Result<()> {
        self.calls.lock().unwrap().push(call.to_owned());
        match self.refused.lock().unwrap().iter().find(|(refused, _)| *refused == call) {
            Some((_, code)) => Err(ttrpc::Error::RpcStatus(ttrpc::get_status(
                *code,
                format!("denied by policy: {call}"),
            ))),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl agent::Agent for Guest {
    async fn start_container(&self, _: &TtrpcContext, _: agent::StartContainerRequest) -> ttrpc::Result<agent::StartContainerResponse> {
        self.judge("start").map(|()| agent::StartContainerResponse::new())
    }

    async fn exec_process(&self, _: &TtrpcContext, _: agent::ExecProcessRequest) -> ttrpc::Result<agent::ExecProcessResponse> {
        self.judge("exec").map(|()| agent::ExecProcessResponse {
            pid: 77,
            ..Default::default()
        })
    }

    async fn delete_process(&self, _: &TtrpcContext, _: DeleteProcessRequest) -> ttrpc::Result<agent::DeleteProcessResponse> {
        self.judge("delete").map(|()| agent::DeleteProcessResponse::new())
    }

    async fn resize_terminal(&self, _: &TtrpcContext, _: ResizeTerminalRequest) -> ttrpc::Result<agent::ResizeTerminalResponse> {
        self.judge("resize").map(|()| agent::ResizeTerminalResponse::new())
    }

    async fn signal_process(&self, _: &TtrpcContext, request: SignalProcessRequest) -> ttrpc::Result<agent::SignalProcessResponse> {
        self.judge("signal")?;
        self.exit(&request.exec_id, 128 + request.signal);
        Ok(agent::SignalProcessResponse::new())
    }

    async fn wait_process(&self, _: &TtrpcContext, request: agent::WaitProcessRequest) -> ttrpc::Result<agent::WaitProcessResponse> {
        let mut exits = self.exits.subscribe();
        let of = |exits: &Vec<(String, u32)>| exits.iter().find(|(exec, _)| *exec == request.exec_id).map(|(_, status)| *status);
        let known = exits.wait_for(|exits| of(exits).is_some()).await.unwrap();
        Ok(agent::WaitProcessResponse {
            exit_status: of(&known).unwrap(),
            ..Default::default()
        })
    }

    async fn pause_container(&self, _: &TtrpcContext, _: agent::PauseContainerRequest) -> ttrpc::Result<agent::PauseContainerResponse> {
        self.judge("pause").map(|()| agent::PauseContainerResponse::new())
    }

    async fn resume_container(&self, _: &TtrpcContext, _: agent::ResumeContainerRequest) -> ttrpc::Result<agent::ResumeContainerResponse> {
        self.judge("resume").map(|()| agent::ResumeContainerResponse::new())
    }

    async fn update_container(&self, _: &TtrpcContext, request: UpdateContainerRequest) -> ttrpc::Result<agent::UpdateContainerResponse> {
        self.judge("update")?;
        assert_eq!(request.resources, LIMITS);
        Ok(agent::UpdateContainerResponse::new())
    }

    async fn container_stats(&self, _: &TtrpcContext, _: ContainerStatsRequest) -> ttrpc::Result<agent::ContainerStatsResponse> {
        self.judge("stats")?;
        Ok(agent::ContainerStatsResponse {
            counters: [("pids.current".to_owned(), 3)].into(),
            ..Default::default()
        })
    }

    async fn wait_oom(&self, _: &TtrpcContext, request: agent::WaitOomRequest) -> ttrpc::Result<agent::WaitOomResponse> {
        let mut ooms = self.ooms.subscribe();
        let mut exits = self.exits.subscribe();
        tokio::select! {
            biased;
            _ = ooms.wait_for(|kills| *kills > request.seen) => {}
            _ = exits.wait_for(|exits| exits.iter().any(|(exec, _)| exec.is_empty())) => {}
        }
        Ok(agent::WaitOomResponse {
            kills: *ooms.borrow(),
            ended: self.exits.borrow().iter().any(|(exec, _)| exec.is_empty()),
            ..Default::default()
        })
    }

    async fn list_processes(&self, _: &TtrpcContext, _: agent::ListProcessesRequest) -> ttrpc::Result<agent::ListProcessesResponse> {
        self.judge("list")?;
        let process = |pid| agent::GuestProcess {
            pid,
            exec_id: "of the guest's choice".to_owned(),
            ..Default::default()
        };
        Ok(agent::ListProcessesResponse {
            processes: [GUEST_INIT, 77, 78].map(process).to_vec(),
            ..Default::default()
        })
    }

    async fn pull_image(&self, _: &TtrpcContext, request: agent::PullImageRequest) -> ttrpc::Result<agent::PullImageResponse> {
        self.judge("pull")?;
        let _ = self.pulls_end.subscribe().wait_for(|end| *end).await;
        // A layer that every image has, and one of its own.
        let own = request.image.len() as u8;
        Ok(agent::PullImageResponse {
            root_hashes: vec![vec![1; 32], vec![own; 32]],
            ..Default::default()
        })
    }

    async fn mount_layer(&self, _: &TtrpcContext, request: agent::MountLayerRequest) -> ttrpc::Result<agent::MountLayerResponse> {
        if request.pulled {
            self.judge(&format!("mount layer {}", request.slot))?;
        } else {
            let place = format!("layer {} at {}", request.slot, request.first_sector);
            self.calls.lock().unwrap().push(place);
        }
        Ok(agent::MountLayerResponse::new())
    }

    async fn unmount_layer(&self, _: &TtrpcContext, request: agent::UnmountLayerRequest) -> ttrpc::Result<agent::UnmountLayerResponse> {
        self.judge(&format!("unmount layer {}", request.slot))?;
        Ok(agent::UnmountLayerResponse::new())
    }

    async fn mount_overlay(&self, _: &TtrpcContext, _: agent::MountOverlayRequest) -> ttrpc::Result<agent::MountOverlayResponse> {
        self.judge("mount overlay").map(|()| agent::MountOverlayResponse::new())
    }

    async fn unmount_overlay(&self, _: &TtrpcContext, _: agent::UnmountOverlayRequest) -> ttrpc::Result<agent::UnmountOverlayResponse> {
        self.judge("unmount overlay").map(|()| agent::UnmountOverlayResponse::new())
    }

    async fn shutdown_container(
        &self,
        _: &TtrpcContext,
        request: agent::ShutdownContainerRequest,
    ) -> ttrpc::Result<agent::ShutdownContainerResponse> {
        self.judge("shut down")?;
        let mut slow = self.slow_to_die.subscribe();
        let _ = slow.wait_for(|slow| !slow.contains(&request.container_id.as_str())).await;
        Ok(agent::ShutdownContainerResponse::new())
    }

    async fn power_off(&self, _: &TtrpcContext, _: agent::PowerOffRequest) -> ttrpc::Result<agent::PowerOffResponse> {
        self.judge("power off")?;
        if let Some(pid) = *self.vmm.lock().unwrap() {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGTERM).unwrap();
        }
        Ok(agent::PowerOffResponse::new())
    }
}

/// Collects what is published.
#[derive(Default)]
pub(super) struct Containerd(pub(super) Mutex<Vec<String>>);

#[async_trait]
impl Events for Containerd {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        self.0.lock().unwrap().push(request.envelope.topic.clone());
        Ok(Empty::new())
    }
}

/// A shim with one created container, `web`.
pub(super) struct World {
    pub(super) dir: TempDir,
    pub(super) guest: Arc<Guest>,
    pub(super) containerd: Arc<Containerd>,
    pub(super) service: TaskService,
    /// Notified when the shim ends.
    pub(super) finished: Arc<Notify>,
    /// The bundle of the shim and of `web`.
    pub(super) bundle: PathBuf,
    pub(super) _servers: [Server; 2],
    /// Takes connections and answers nothing.
    pub(super) _silent_containerd: UnixListener,
}

/// Replaces the vsock socket as soon as the shim has created it, and serves the agent there.
pub(super) async fn serve_agent(socket: &Path, guest: Arc<Guest>) -> Server {
    while !socket.exists() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Bound beside it and renamed, so that the shim never finds the place empty.
    let beside = socket.with_extension("new");
    let listener = UnixListener::bind(&beside).unwrap();
    fs::rename(&beside, socket).unwrap();
    let (sender, receiver) = mpsc::channel::<std::io::Result<UnixStream>>(8);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut hello = vec![0; "CONNECT 1024\n".len()];
            stream.read_exact(&mut hello).await.unwrap();
            stream.write_all(b"OK 1\n").await.unwrap();
            sender.send(Ok(stream)).await.unwrap();
        }
    });
    let accepted = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|stream| (stream, receiver))
    });
    let mut server = Server::new()
        .add_listener(Listener::new(Box::pin(accepted)))
        .register_service(agent::create_agent(guest));
    server.start().await.unwrap();
    server
}

impl World {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (exits, _) = watch::channel(Vec::new());
        let guest = Arc::new(Guest {
            exits,
            ooms: watch::channel(0).0,
            slow_to_die: watch::channel(Vec::new()).0,
            pulls_end: watch::channel(true).0,
            calls: Mutex::default(),
            refused: Mutex::default(),
            vmm: Mutex::default(),
        });
        let containerd = Arc::new(Containerd::default());
        let socket = dir.path().join("c.sock");
        let address = format!("unix://{}", socket.display());
        let mut events = Server::new()
            .bind(&address)
            .unwrap()
            .register_service(create_events(containerd.clone()));
        events.start().await.unwrap();

        let config = config(dir.path());
        let policy = PolicyText {
            text: vec![],
            digest: [0; 32],
        };
        let request = BootRequest {
            namespace: "ns",
            id: "web",
            config: &config,
            policy: &policy,
            cgroups_path: "",
            oom_score_adj: None,
        };
        let vsock = dir.path().join("run/ns/web/vsock.sock");
        let (vm, agent) = tokio::join!(Vm::boot(request), serve_agent(&vsock, guest.clone()));
        let vm = Arc::new(vm.unwrap());
        *guest.vmm.lock().unwrap() = Some(vm.pid());

        let publisher = Publisher::start("ns".into(), address);
        let finished = Arc::new(Notify::new());
        let bundle = dir.path().join("bundle");
        fs::create_dir(&bundle).unwrap();
        let ended = finished.clone();
        let silent = dir.path().join("silent.sock");
        let silent_containerd = UnixListener::bind(&silent).unwrap();
        let service = TaskService::new(
            Arc::new(Sandbox::booted("web", vm.clone())),
            silent.display().to_string(),
            publisher.clone(),
            bundle.clone(),
            Notified(ended),
        );
        let (streams, _) = Streams::open(&StdioPaths::default(), vm.vsock()).await.unwrap();
        let init = Arc::new(Process::init(StdioPaths::default(), streams, vm.pid(), GUEST_INIT));
        let container = Arc::new(Container::new(
            "web".into(),
            bundle.display().to_string(),
            Role::Sandbox,
            Rootfs::empty(vm),
            init.clone(),
        ));
        service.0.containers.reserve("web").unwrap();
        service.0.containers.insert(container.clone()).unwrap();
        exit::watch(container, init, publisher);
        Self {
            dir,
            guest,
            containerd,
            service,
            finished,
            bundle,
            _servers: [events, agent],
            _silent_containerd: silent_containerd,
        }
    }

    /// Adds a container to the pod and ends its init, so that it can be deleted.
    pub(super) async fn add_stopped(&self, id: &str) {
        self.add(id, Role::Member).await.init.finish(Exit::now(0));
    }

    /// Adds a created container to the pod.
    pub(super) async fn add(&self, id: &str, role: Role) -> Arc<Container> {
        self.service.0.containers.reserve(id).unwrap();
        let vm = self.service.0.sandbox.current().unwrap();
        let rootfs = self.service.0.sandbox.add_container(&vm, id, Wanted::Attached(&[])).await.unwrap();
        let (streams, _) = Streams::open(&StdioPaths::default(), vm.vsock()).await.unwrap();
        let init = Arc::new(Process::init(StdioPaths::default(), streams, vm.pid(), GUEST_INIT + 1));
        let bundle = self.bundle.display().to_string();
        let container = Arc::new(Container::new(id.into(), bundle, role, rootfs, init));
        self.service.0.containers.insert(container.clone()).unwrap();
        container
    }

    /// Kills the init of a container other than `web`.
    pub(super) async fn kill_container(&self, id: &str) -> Result<(), Code> {
        let request = KillRequest {
            id: id.into(),
            signal: 9,
            ..Default::default()
        };
        code(self.service.kill(&context(), request).await).map(drop)
    }

    pub(super) async fn pids(&self) -> Vec<u32> {
        let request = PidsRequest {
            id: "web".into(),
            ..Default::default()
        };
        let answer = self.service.pids(&context(), request).await.unwrap();
        answer.processes.iter().map(|process| process.pid).collect()
    }

    /// Whether the shim has ended.
    pub(super) async fn has_ended(&self) -> bool {
        timeout(Duration::from_millis(10), self.finished.notified()).await.is_ok()
    }

    /// Deletes a container other than `web`.
    pub(super) async fn delete_container(&self, id: &str) -> Result<u32, Code> {
        let request = DeleteRequest {
            id: id.into(),
            ..Default::default()
        };
        code(self.service.delete(&context(), request).await).map(|r| r.exit_status)
    }

    pub(super) async fn start(&self, exec: &str) -> Result<u32, Code> {
        code(
            self.service
                .start(
                    &context(),
                    StartRequest {
                        id: "web".into(),
                        exec_id: exec.into(),
                        ..Default::default()
                    },
                )
                .await,
        )
        .map(|r| r.pid)
    }

    pub(super) async fn exec(&self, exec: &str) -> Result<(), Code> {
        let request = ExecProcessRequest {
            id: "web".into(),
            exec_id: exec.into(),
            ..Default::default()
        };
        code(self.service.exec(&context(), request).await).map(drop)
    }

    pub(super) async fn kill(&self, exec: &str, signal: u32) -> Result<(), Code> {
        let request = KillRequest {
            id: "web".into(),
            exec_id: exec.into(),
            signal,
            ..Default::default()
        };
        code(self.service.kill(&context(), request).await).map(drop)
    }

    pub(super) async fn delete(&self, exec: &str) -> Result<u32, Code> {
        let request = DeleteRequest {
            id: "web".into(),
            exec_id: exec.into(),
            ..Default::default()
        };
        code(self.service.delete(&context(), request).await).map(|r| r.exit_status)
    }

    pub(super) async fn wait(&self, exec: &str) -> Result<u32, Code> {
        let request = WaitRequest {
            id: "web".into(),
            exec_id: exec.into(),
            ..Default::default()
        };
        let waited = timeout(SOON, self.service.wait(&context(), request))
            .await
            .expect("an exit in time");
        code(waited).map(|r| r.exit_status)
    }

    pub(super) async fn status(&self, exec: &str) -> Result<Status, Code> {
        let request = StateRequest {
            id: "web".into(),
            exec_id: exec.into(),
            ..Default::default()
        };
        code(self.service.state(&context(), request).await).map(|r| r.status.unwrap())
    }

    pub(super) async fn pause(&self) -> Result<(), Code> {
        let request = PauseRequest {
            id: "web".into(),
            ..Default::default()
        };
        code(self.service.pause(&context(), request).await).map(drop)
    }

    pub(super) async fn resume(&self) -> Result<(), Code> {
        let request = ResumeRequest {
            id: "web".into(),
            ..Default::default()
        };
        code(self.service.resume(&context(), request).await).map(drop)
    }

    pub(super) async fn update(&self, resources: &[u8]) -> Result<(), Code> {
        let resources = Any {
            value: resources.to_vec(),
            ..Default::default()
        };
        let request = UpdateTaskRequest {
            id: "web".into(),
            resources: Some(resources).into(),
            ..Default::default()
        };
        code(self.service.update(&context(), request).await).map(drop)
    }

    pub(super) async fn resize(&self, exec: &str) -> Result<(), Code> {
        let request = ResizePtyRequest {
            id: "web".into(),
            exec_id: exec.into(),
            width: 80,
            height: 24,
            ..Default::default()
        };
        code(self.service.resize_pty(&context(), request).await).map(drop)
    }

    pub(super) async fn shutdown(&self) {
        self.service.shutdown(&context(), ShutdownRequest::new()).await.unwrap();
    }

    pub(super) async fn events(&self) -> Vec<String> {
        self.service.0.events.flush(SOON).await;
        self.containerd.0.lock().unwrap().clone()
    }
}

pub(super) fn config(dir: &Path) -> Config {
    let image = dir.join("image");
    fs::create_dir(&image).unwrap();
    let digest = "00".repeat(32);
    let manifest = format!(
        r#"{{"version":1,"kernel":{{"file":"k","sha256":"{digest}","bytes":0}},"initrd":{{"file":"i","sha256":"{digest}","bytes":0}},"cmdline":"","inputs":[],"compiler":""}}"#
    );
    fs::write(image.join("manifest.json"), manifest).unwrap();
    fs::write(image.join("k"), "").unwrap();
    fs::write(image.join("i"), "").unwrap();
    let vmm = dir.join("vmm");
    fs::write(&vmm, "#!/bin/sh\nexec sleep 600\n").unwrap();
    fs::set_permissions(&vmm, fs::Permissions::from_mode(0o755)).unwrap();
    Config {
        image_dir: image,
        vmm: Some(vmm),
        cache_dir: dir.join("cache"),
        state_dir: dir.join("run"),
        ..Config::default()
    }
}

pub(super) fn context() -> TtrpcContext {
    TtrpcContext {
        mh: Default::default(),
        metadata: Default::default(),
        timeout_nano: 0,
        connection_data: Default::default(),
    }
}

pub(super) fn code<T>(answer: ttrpc::Result<T>) -> Result<T, Code> {
    answer.map_err(|error| match error {
        ttrpc::Error::RpcStatus(status) => status.code(),
        other => panic!("{other}"),
    })
}

/// Says that the shim ends.
struct Notified(Arc<Notify>);

impl Ending for Notified {
    fn end(&self) {
        self.0.notify_one();
    }

    fn end_if(&self, close: &dyn Fn() -> bool) -> bool {
        let over = close();
        if over {
            self.end();
        }
        over
    }

    fn joined(&self, _: &str) {}
}
