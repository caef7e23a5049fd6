//! Every call in every state, with a sleeping process as the VMM and an agent that a test controls.

use super::*;
use crate::{
    config::Config,
    policy_text::PolicyText,
    sandbox::Rootfs,
    stdio::{StdioPaths, Streams},
    vm::{BootRequest, Vm},
};
use agent_protocol as agent;
use containerd_shim_protos::{
    api::{ForwardRequest, Status},
    shim_async::{Events, create_events},
};
use futures_util::stream;
use protobuf::well_known_types::any::Any;
use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Mutex};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::{mpsc, watch},
    time::timeout,
};
use ttrpc::{
    Code,
    r#async::{Server, transport::Listener},
};

const SOON: Duration = Duration::from_secs(5);
const LIMITS: &[u8] = br#"{"pids":{"limit":7}}"#;

/// What the agent of a test does, and what it was asked.
struct Guest {
    exits: watch::Sender<Vec<(String, u32)>>,
    /// Processes ended for want of memory.
    ooms: watch::Sender<u64>,
    calls: Mutex<Vec<String>>,
    denied: Mutex<Vec<&'static str>>,
    vmm: Mutex<Option<u32>>,
}

impl Guest {
    fn exit(&self, exec: &str, status: u32) {
        self.exits.send_modify(|exits| exits.push((exec.to_owned(), status)));
    }

    fn deny(&self, call: &'static str) {
        self.denied.lock().unwrap().push(call);
    }

    fn asked(&self, call: &str) -> bool {
        self.calls.lock().unwrap().iter().any(|c| c == call)
    }

    fn judge(&self, call: &'static str) -> ttrpc::Result<()> {
        self.calls.lock().unwrap().push(call.to_owned());
        match self.denied.lock().unwrap().contains(&call) {
            true => Err(ttrpc::Error::RpcStatus(ttrpc::get_status(
                Code::PERMISSION_DENIED,
                format!("denied by policy: {call}"),
            ))),
            false => Ok(()),
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
struct Containerd(Mutex<Vec<String>>);

#[async_trait]
impl Events for Containerd {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        self.0.lock().unwrap().push(request.envelope.topic.clone());
        Ok(Empty::new())
    }
}

/// A shim with one created container, `web`.
struct World {
    dir: TempDir,
    guest: Arc<Guest>,
    containerd: Arc<Containerd>,
    service: TaskService,
    finished: Arc<Notify>,
    _servers: [Server; 2],
}

/// Takes the vsock socket's place as soon as the shim has made it, and serves the agent there.
async fn serve_agent(socket: &Path, guest: Arc<Guest>) -> Server {
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
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (exits, _) = watch::channel(Vec::new());
        let guest = Arc::new(Guest {
            exits,
            ooms: watch::channel(0).0,
            calls: Mutex::default(),
            denied: Mutex::default(),
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
        };
        let vsock = dir.path().join("run/ns/web/vsock.sock");
        let (vm, agent) = tokio::join!(Vm::boot(request), serve_agent(&vsock, guest.clone()));
        let vm = Arc::new(vm.unwrap());
        *guest.vmm.lock().unwrap() = Some(vm.pid());

        let publisher = Publisher::start("ns".into(), address);
        let finished = Arc::new(Notify::new());
        let service = TaskService::new(Arc::new(Sandbox::booted("web", vm.clone())), publisher.clone(), finished.clone());
        let (streams, _) = Streams::open(&StdioPaths::default(), vm.vsock()).await.unwrap();
        let init = Arc::new(Process::init(StdioPaths::default(), streams, vm.pid()));
        let container = Arc::new(Container::new(
            "web".into(),
            "/b".into(),
            Rootfs { vm, layers: vec![] },
            init.clone(),
        ));
        service.0.containers.reserve("web").unwrap();
        service.0.containers.insert(container.clone());
        process::watch(container, init, publisher);
        Self {
            dir,
            guest,
            containerd,
            service,
            finished,
            _servers: [events, agent],
        }
    }

    async fn start(&self, exec: &str) -> Result<u32, Code> {
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

    async fn exec(&self, exec: &str) -> Result<(), Code> {
        let request = ExecProcessRequest {
            id: "web".into(),
            exec_id: exec.into(),
            ..Default::default()
        };
        code(self.service.exec(&context(), request).await).map(drop)
    }

    async fn kill(&self, exec: &str, signal: u32) -> Result<(), Code> {
        let request = KillRequest {
            id: "web".into(),
            exec_id: exec.into(),
            signal,
            ..Default::default()
        };
        code(self.service.kill(&context(), request).await).map(drop)
    }

    async fn delete(&self, exec: &str) -> Result<u32, Code> {
        let request = DeleteRequest {
            id: "web".into(),
            exec_id: exec.into(),
            ..Default::default()
        };
        code(self.service.delete(&context(), request).await).map(|r| r.exit_status)
    }

    async fn wait(&self, exec: &str) -> Result<u32, Code> {
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

    async fn status(&self, exec: &str) -> Result<Status, Code> {
        let request = StateRequest {
            id: "web".into(),
            exec_id: exec.into(),
            ..Default::default()
        };
        code(self.service.state(&context(), request).await).map(|r| r.status.unwrap())
    }

    async fn pause(&self) -> Result<(), Code> {
        let request = PauseRequest {
            id: "web".into(),
            ..Default::default()
        };
        code(self.service.pause(&context(), request).await).map(drop)
    }

    async fn resume(&self) -> Result<(), Code> {
        let request = ResumeRequest {
            id: "web".into(),
            ..Default::default()
        };
        code(self.service.resume(&context(), request).await).map(drop)
    }

    async fn update(&self, resources: &[u8]) -> Result<(), Code> {
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

    async fn resize(&self, exec: &str) -> Result<(), Code> {
        let request = ResizePtyRequest {
            id: "web".into(),
            exec_id: exec.into(),
            width: 80,
            height: 24,
            ..Default::default()
        };
        code(self.service.resize_pty(&context(), request).await).map(drop)
    }

    async fn shutdown(&self) {
        self.service.shutdown(&context(), ShutdownRequest::new()).await.unwrap();
    }

    async fn events(&self) -> Vec<String> {
        self.service.0.events.flush(SOON).await;
        self.containerd.0.lock().unwrap().clone()
    }
}

fn config(dir: &Path) -> Config {
    let image = dir.join("image");
    fs::create_dir(&image).unwrap();
    let digest = "00".repeat(32);
    let manifest =
        format!(r#"{{"version":1,"kernel":{{"file":"k","sha256":"{digest}"}},"initrd":{{"file":"i","sha256":"{digest}"}},"cmdline":""}}"#);
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

fn context() -> TtrpcContext {
    TtrpcContext {
        mh: Default::default(),
        metadata: Default::default(),
        timeout_nano: 0,
        connection_data: Default::default(),
    }
}

fn code<T>(answer: ttrpc::Result<T>) -> Result<T, Code> {
    answer.map_err(|error| match error {
        ttrpc::Error::RpcStatus(status) => status.code(),
        other => panic!("{other}"),
    })
}

#[tokio::test]
async fn a_life_from_creation_to_shutdown() {
    let world = World::new().await;
    assert_eq!(world.status("").await, Ok(Status::CREATED));
    assert_eq!(world.delete("").await, Err(Code::FAILED_PRECONDITION));
    let pid = world.start("").await.unwrap();
    assert!(Path::new(&format!("/proc/{pid}")).exists(), "the pid is no host process");
    assert_eq!(world.start("").await, Err(Code::FAILED_PRECONDITION));
    assert_eq!(world.status("").await, Ok(Status::RUNNING));
    assert_eq!(world.delete("").await, Err(Code::FAILED_PRECONDITION));
    world.shutdown().await;
    assert!(
        timeout(Duration::from_millis(20), world.finished.notified()).await.is_err(),
        "ended under a container"
    );

    world.guest.exit("", 7);
    assert_eq!(world.wait("").await, Ok(7));
    assert_eq!(world.wait("").await, Ok(7));
    assert_eq!(world.status("").await, Ok(Status::STOPPED));
    assert_eq!(world.kill("", 9).await, Err(Code::NOT_FOUND));
    assert_eq!(world.exec("late").await, Err(Code::FAILED_PRECONDITION));
    assert_eq!(world.delete("").await, Ok(7));
    assert!(world.guest.asked("power off"));
    assert_eq!(world.delete("").await, Err(Code::NOT_FOUND));
    assert_eq!(world.status("").await, Err(Code::NOT_FOUND));
    assert!(!world.dir.path().join("run/ns").exists(), "state is left");
    world.shutdown().await;
    timeout(SOON, world.finished.notified()).await.unwrap();
    assert_eq!(world.events().await, ["/tasks/start", "/tasks/exit", "/tasks/delete"]);
}

#[tokio::test]
async fn execs_come_and_go() {
    let world = World::new().await;
    world.start("").await.unwrap();
    assert_eq!(world.start("e").await, Err(Code::NOT_FOUND));
    world.exec("e").await.unwrap();
    assert_eq!(world.exec("e").await, Err(Code::ALREADY_EXISTS));
    assert_eq!(world.exec("../e").await, Err(Code::INVALID_ARGUMENT));
    assert_eq!(world.kill("e", 9).await, Err(Code::FAILED_PRECONDITION));
    assert_eq!(world.start("e").await, Ok(77));
    assert_eq!(world.start("e").await, Err(Code::FAILED_PRECONDITION));
    let request = PidsRequest {
        id: "web".into(),
        ..Default::default()
    };
    let pids: Vec<_> = world
        .service
        .pids(&context(), request)
        .await
        .unwrap()
        .processes
        .iter()
        .map(|p| p.pid)
        .collect();
    assert!(pids.len() == 2 && pids[1] == 77, "{pids:?}");
    assert_eq!(world.delete("e").await, Err(Code::FAILED_PRECONDITION));
    world.kill("e", 15).await.unwrap();
    assert_eq!(world.wait("e").await, Ok(143));
    assert_eq!(world.delete("e").await, Ok(143));
    assert!(world.guest.asked("delete"));
    // One that never started can be forgotten, and whoever waits for it is told.
    world.exec("never").await.unwrap();
    let (waited, deleted) = tokio::join!(world.wait("never"), world.delete("never"));
    assert!(waited == deleted && waited == Ok(KILLED), "{waited:?} {deleted:?}");
    let events = world.events().await;
    assert_eq!(
        events,
        [
            "/tasks/start",
            "/tasks/exec-added",
            "/tasks/exec-started",
            "/tasks/exit",
            "/tasks/exec-added"
        ]
    );
}

#[tokio::test]
async fn a_denied_exec_says_why_and_the_container_goes_on() {
    let world = World::new().await;
    world.start("").await.unwrap();
    world.exec("e").await.unwrap();
    world.guest.deny("exec");
    let request = StartRequest {
        id: "web".into(),
        exec_id: "e".into(),
        ..Default::default()
    };
    match world.service.start(&context(), request).await {
        Err(ttrpc::Error::RpcStatus(status)) => {
            assert_eq!(
                (status.code(), status.message()),
                (Code::PERMISSION_DENIED, "denied by policy: exec")
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(world.delete("e").await.is_ok());
    assert_eq!(world.status("").await, Ok(Status::RUNNING));
}

#[tokio::test]
async fn a_created_container_can_be_killed() {
    let world = World::new().await;
    world.kill("", 9).await.unwrap();
    assert_eq!(world.wait("").await, Ok(KILLED));
    assert_eq!(world.start("").await, Err(Code::FAILED_PRECONDITION));
    assert_eq!(world.delete("").await, Ok(KILLED));
    assert_eq!(world.events().await, ["/tasks/exit", "/tasks/delete"]);
}

#[tokio::test]
async fn a_signal_may_be_denied_but_the_last_resort_works() {
    let world = World::new().await;
    world.start("").await.unwrap();
    world.guest.deny("signal");
    assert_eq!(world.kill("", 15).await, Err(Code::PERMISSION_DENIED));
    assert_eq!(world.status("").await, Ok(Status::RUNNING));
    world.kill("", 9).await.unwrap();
    assert_eq!(world.wait("").await, Ok(KILLED));
}

#[tokio::test]
async fn the_end_of_the_vm_is_the_end_of_everything_in_it() {
    let world = World::new().await;
    let pid = world.start("").await.unwrap();
    world.exec("e").await.unwrap();
    world.start("e").await.unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(world.wait("e").await, Ok(KILLED));
    assert_eq!(world.wait("").await, Ok(KILLED));
    assert_eq!(world.delete("").await, Ok(KILLED));
    assert!(!world.dir.path().join("run/ns").exists());
}

#[tokio::test]
async fn a_shim_that_a_restarted_containerd_finds_without_a_container_ends() {
    let world = World::new().await;
    let connect = || ConnectRequest {
        id: "web".into(),
        ..Default::default()
    };
    world.service.connect(&context(), connect()).await.unwrap();
    assert!(timeout(Duration::from_millis(10), world.finished.notified()).await.is_err());
    world.start("").await.unwrap();
    world.kill("", 9).await.unwrap();
    world.wait("").await.unwrap();
    world.delete("").await.unwrap();
    world.service.connect(&context(), connect()).await.unwrap();
    timeout(SOON, world.finished.notified()).await.expect("the end");
    // One that is being created: the end comes with its failure.
    let world = World::new().await;
    world.start("").await.unwrap();
    world.kill("", 9).await.unwrap();
    world.wait("").await.unwrap();
    world.delete("").await.unwrap();
    world.service.0.containers.reserve("late").unwrap();
    world.service.connect(&context(), connect()).await.unwrap();
    assert!(timeout(Duration::from_millis(10), world.finished.notified()).await.is_err());
    world.service.0.after_failure("late").await;
    timeout(SOON, world.finished.notified()).await.expect("the end");
}

#[tokio::test]
async fn unknown_ids_and_unknown_calls() {
    let world = World::new().await;
    let state = StateRequest {
        id: "db".into(),
        ..Default::default()
    };
    assert_eq!(code(world.service.state(&context(), state).await).err(), Some(Code::NOT_FOUND));
    let connect = ConnectRequest {
        id: "db".into(),
        ..Default::default()
    };
    let answer = world.service.connect(&context(), connect).await.unwrap();
    assert_eq!((answer.shim_pid, answer.task_pid), (std::process::id(), 0));
    let checkpoint = world.service.checkpoint(&context(), CheckpointTaskRequest::new()).await;
    assert_eq!(code(checkpoint).err(), Some(Code::UNIMPLEMENTED));
    assert_eq!(
        code(world.service.pause(&context(), PauseRequest::new()).await).err(),
        Some(Code::NOT_FOUND)
    );
    assert_eq!(
        code(world.service.stats(&context(), StatsRequest::new()).await).err(),
        Some(Code::NOT_FOUND)
    );
    let again = CreateTaskRequest {
        id: "web".into(),
        bundle: "/b".into(),
        ..Default::default()
    };
    assert_eq!(
        code(world.service.create(&context(), again).await).err(),
        Some(Code::ALREADY_EXISTS)
    );
    let escape = CreateTaskRequest {
        id: "../web".into(),
        ..Default::default()
    };
    assert_eq!(
        code(world.service.create(&context(), escape).await).err(),
        Some(Code::INVALID_ARGUMENT)
    );
}

#[tokio::test]
async fn a_paused_container_takes_no_exec_and_goes_on() {
    let world = World::new().await;
    assert_eq!(world.pause().await, Err(Code::FAILED_PRECONDITION));
    world.start("").await.unwrap();
    world.exec("e").await.unwrap();
    world.start("e").await.unwrap();
    world.exec("late").await.unwrap();
    assert_eq!(world.resume().await, Err(Code::FAILED_PRECONDITION));
    world.pause().await.unwrap();
    assert_eq!(world.pause().await, Err(Code::FAILED_PRECONDITION));
    assert_eq!(world.status("").await, Ok(Status::PAUSED));
    assert_eq!(world.status("e").await, Ok(Status::PAUSED));
    assert_eq!(world.exec("new").await, Err(Code::FAILED_PRECONDITION));
    assert_eq!(world.start("late").await, Err(Code::FAILED_PRECONDITION));
    assert_eq!(world.delete("").await, Err(Code::FAILED_PRECONDITION));
    world.resume().await.unwrap();
    assert_eq!(world.status("").await, Ok(Status::RUNNING));
    assert_eq!(world.status("e").await, Ok(Status::RUNNING));
    // Killed while it stands still.
    world.pause().await.unwrap();
    world.kill("e", 9).await.unwrap();
    world.kill("", 9).await.unwrap();
    assert_eq!(world.wait("").await, Ok(KILLED));
    assert_eq!(world.status("").await, Ok(Status::STOPPED));
    assert_eq!(world.resume().await, Err(Code::FAILED_PRECONDITION));
    let events = world.events().await;
    let told = events
        .iter()
        .filter(|topic| topic.starts_with("/tasks/pau") || topic.starts_with("/tasks/res"));
    assert_eq!(told.collect::<Vec<_>>(), ["/tasks/paused", "/tasks/resumed", "/tasks/paused"]);
}

#[tokio::test]
async fn limits_and_counters_pass_through() {
    let world = World::new().await;
    world.update(LIMITS).await.unwrap();
    world.start("").await.unwrap();
    world.update(LIMITS).await.unwrap();
    assert_eq!(world.update(b"").await, Err(Code::INVALID_ARGUMENT));
    let request = StatsRequest {
        id: "web".into(),
        ..Default::default()
    };
    let stats = world.service.stats(&context(), request).await.unwrap().stats.unwrap();
    assert_eq!(stats.type_url, "io.containerd.cgroups.v2.Metrics");
    world.guest.exit("", 0);
    world.wait("").await.unwrap();
    assert_eq!(world.update(LIMITS).await, Err(Code::FAILED_PRECONDITION));
}

#[tokio::test]
async fn without_a_terminal_there_is_nothing_to_resize() {
    let world = World::new().await;
    world.start("").await.unwrap();
    assert_eq!(world.resize("").await, Ok(()));
    assert!(!world.guest.asked("resize"));
    assert_eq!(world.resize("nobody").await, Err(Code::NOT_FOUND));
    world.guest.exit("", 0);
    world.wait("").await.unwrap();
    assert_eq!(world.resize("").await, Err(Code::FAILED_PRECONDITION));
}

#[tokio::test]
async fn every_process_that_memory_ended_is_told_before_the_exit() {
    let world = World::new().await;
    world.start("").await.unwrap();
    world.guest.ooms.send_modify(|kills| *kills += 1);
    world.guest.ooms.send_modify(|kills| *kills += 2);
    world.guest.exit("", KILLED);
    assert_eq!(world.wait("").await, Ok(KILLED));
    let events = world.events().await;
    assert_eq!(events, ["/tasks/start", "/tasks/oom", "/tasks/oom", "/tasks/oom", "/tasks/exit"]);
}
