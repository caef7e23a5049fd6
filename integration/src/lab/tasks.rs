//! A client of containerd's Tasks service, for calls that `ctr` cannot make and for the codes of the answers.

use anyhow::{Context, Result, ensure};
use containerd_client::services::v1::{
    CloseIoRequest, Container, CreateTaskRequest, DeleteProcessRequest, DeleteTaskRequest, ExecProcessRequest, GetContainerRequest,
    GetRequest, KillRequest, ListPidsRequest, MetricsRequest, PauseTaskRequest, PublishRequest, ResizePtyRequest, ResumeTaskRequest,
    StartRequest, SubscribeRequest, UpdateTaskRequest, WaitRequest,
    containers_client::ContainersClient,
    events_client::EventsClient,
    snapshots::{MountsRequest, snapshots_client::SnapshotsClient},
    tasks_client::TasksClient,
};
use containerd_client::types::v1::Status;
use containerd_shim_protos::cgroups_v2::metrics::Metrics;
use protobuf::Message;
use std::future::Future;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};
use std::time::{Duration, Instant};
use tokio::{runtime::Runtime, task::JoinHandle};
use tonic::{Code, Request, transport::Channel};

const SOCKET: &str = "/run/containerd/containerd.sock";
const NAMESPACE: &str = "default";
/// Time limit of a call in an emulated machine; a VM may boot within it.
const CALL_DEADLINE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);
/// A test event: once it arrives, the subscription works.
const READY: &str = "/story/ready";
const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
const RESOURCES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";

/// The response of a call, or containerd's status code and text.
pub type Answer<T> = std::result::Result<T, tonic::Status>;

/// Paths of a process's streams.
#[derive(Clone, Debug, Default)]
pub struct Stdio {
    /// Path of the FIFO from which stdin is read; empty for none.
    pub stdin: String,
    /// FIFO or URI to which stdout is written; empty for none.
    pub stdout: String,
    /// The same for stderr. Without a terminal, runc of containerd 1.6 takes either both outputs or none.
    pub stderr: String,
    /// All streams are one terminal.
    pub terminal: bool,
}

/// A client of containerd.
pub struct Tasks {
    runtime: Runtime,
    channel: Channel,
}

/// Topics of containerd's events, in order of arrival.
#[derive(Clone, Default)]
pub struct Events(Arc<Mutex<Vec<String>>>);

impl Events {
    /// The topics received so far.
    pub fn so_far(&self) -> Vec<String> {
        self.0.lock().map(|topics| topics.clone()).unwrap_or_default()
    }

    /// Number of events with `topic`.
    pub fn count(&self, topic: &str) -> usize {
        self.so_far().iter().filter(|seen| *seen == topic).count()
    }
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("containerd-namespace", tonic::metadata::MetadataValue::from_static(NAMESPACE));
    request
}

impl Tasks {
    /// Connects to containerd.
    pub fn connect() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        let channel = runtime
            .block_on(containerd_client::connect(SOCKET))
            .context("cannot reach containerd")?;
        Ok(Self { runtime, channel })
    }

    fn call<T>(&self, call: impl Future<Output = Answer<tonic::Response<T>>>) -> Answer<T> {
        self.runtime.block_on(async {
            match tokio::time::timeout(CALL_DEADLINE, call).await {
                Ok(answer) => answer.map(tonic::Response::into_inner),
                Err(_) => Err(tonic::Status::new(Code::DeadlineExceeded, "the story's time limit passed")),
            }
        })
    }

    fn client(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel.clone())
    }

    /// Creates the task of a container that was [created](super::Container::made); returns the pid of its init.
    pub fn create(&self, id: &str, stdio: &Stdio) -> Answer<u32> {
        let container = self.container(id)?;
        let mounts = MountsRequest {
            snapshotter: container.snapshotter,
            key: container.snapshot_key,
        };
        let mut snapshots = SnapshotsClient::new(self.channel.clone());
        let rootfs = self.call(snapshots.mounts(request(mounts)))?.mounts;
        let create = CreateTaskRequest {
            container_id: id.to_owned(),
            rootfs,
            stdin: stdio.stdin.clone(),
            stdout: stdio.stdout.clone(),
            stderr: stdio.stderr.clone(),
            terminal: stdio.terminal,
            ..Default::default()
        };
        self.call(self.client().create(request(create))).map(|answer| answer.pid)
    }

    /// Starts the init, or an exec.
    pub fn start(&self, id: &str, exec: &str) -> Answer<u32> {
        let start = StartRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
        };
        self.call(self.client().start(request(start))).map(|answer| answer.pid)
    }

    /// State and exit status.
    pub fn state(&self, id: &str, exec: &str) -> Answer<(Status, u32)> {
        let get = GetRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
        };
        let process = self.call(self.client().get(request(get)))?.process.unwrap_or_default();
        Ok((process.status(), process.exit_status))
    }

    /// The pid of the init on this machine; with a VM, the VMM's.
    pub fn pid(&self, id: &str) -> Answer<u32> {
        let get = GetRequest {
            container_id: id.to_owned(),
            exec_id: String::new(),
        };
        Ok(self.call(self.client().get(request(get)))?.process.unwrap_or_default().pid)
    }

    fn container(&self, id: &str) -> Answer<Container> {
        let find = GetContainerRequest { id: id.to_owned() };
        let mut containers = ContainersClient::new(self.channel.clone());
        Ok(self.call(containers.get(request(find)))?.container.unwrap_or_default())
    }

    /// Registers an exec: as with `ctr task exec`, the container's process document with other arguments.
    pub fn exec(&self, id: &str, exec: &str, words: &[&str], stdio: &Stdio) -> Answer<()> {
        let spec = self.container(id)?.spec.unwrap_or_default();
        let mut process = serde_json::from_slice::<serde_json::Value>(&spec.value)
            .map_err(|error| tonic::Status::internal(format!("the container's spec: {error}")))?["process"]
            .take();
        process["args"] = words.into();
        process["terminal"] = stdio.terminal.into();
        let mut exec = ExecProcessRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
            stdin: stdio.stdin.clone(),
            stdout: stdio.stdout.clone(),
            stderr: stdio.stderr.clone(),
            terminal: stdio.terminal,
            ..Default::default()
        };
        let spec = exec.spec.get_or_insert_default();
        spec.type_url = PROCESS_TYPE.to_owned();
        spec.value = process.to_string().into_bytes();
        self.call(self.client().exec(request(exec))).map(drop)
    }

    /// Sends a signal.
    pub fn kill(&self, id: &str, exec: &str, signal: u32) -> Answer<()> {
        let kill = KillRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
            signal,
            all: false,
        };
        self.call(self.client().kill(request(kill))).map(drop)
    }

    /// Waits for the exit; returns its status.
    pub fn wait(&self, id: &str, exec: &str) -> Answer<u32> {
        let wait = WaitRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
        };
        self.call(self.client().wait(request(wait))).map(|answer| answer.exit_status)
    }

    /// Waits in the background.
    pub fn waiting(&self, id: &str, exec: &str) -> JoinHandle<Answer<u32>> {
        let wait = WaitRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
        };
        let mut client = self.client();
        self.runtime
            .spawn(async move { client.wait(request(wait)).await.map(|answer| answer.into_inner().exit_status) })
    }

    /// Waits for a wait that runs in the background.
    pub fn waited(&self, waiting: JoinHandle<Answer<u32>>) -> Result<Answer<u32>> {
        let waited = self.runtime.block_on(async { tokio::time::timeout(CALL_DEADLINE, waiting).await });
        waited.context("a wait did not return")?.context("a wait panicked")
    }

    /// Deletes the task; returns its exit status.
    pub fn delete(&self, id: &str) -> Answer<u32> {
        let delete = DeleteTaskRequest {
            container_id: id.to_owned(),
        };
        self.call(self.client().delete(request(delete))).map(|answer| answer.exit_status)
    }

    /// Deletes an exec; returns its exit status.
    pub fn delete_exec(&self, id: &str, exec: &str) -> Answer<u32> {
        let delete = DeleteProcessRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
        };
        self.call(self.client().delete_process(request(delete)))
            .map(|answer| answer.exit_status)
    }

    /// Sets a terminal's size.
    pub fn resize(&self, id: &str, exec: &str, width: u32, height: u32) -> Answer<()> {
        let resize = ResizePtyRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
            width,
            height,
        };
        self.call(self.client().resize_pty(request(resize))).map(drop)
    }

    /// Closes a process's stdin, after what was written.
    pub fn close_io(&self, id: &str, exec: &str) -> Answer<()> {
        let close = CloseIoRequest {
            container_id: id.to_owned(),
            exec_id: exec.to_owned(),
            stdin: true,
        };
        self.call(self.client().close_io(request(close))).map(drop)
    }

    /// Freezes every process.
    pub fn pause(&self, id: &str) -> Answer<()> {
        let pause = PauseTaskRequest {
            container_id: id.to_owned(),
        };
        self.call(self.client().pause(request(pause))).map(drop)
    }

    /// Resumes every process.
    pub fn resume(&self, id: &str) -> Answer<()> {
        let resume = ResumeTaskRequest {
            container_id: id.to_owned(),
        };
        self.call(self.client().resume(request(resume))).map(drop)
    }

    /// Number of processes in the container.
    pub fn pids(&self, id: &str) -> Answer<usize> {
        let list = ListPidsRequest {
            container_id: id.to_owned(),
        };
        self.call(self.client().list_pids(request(list)))
            .map(|answer| answer.processes.len())
    }

    /// Sets limits, as an OCI resources document.
    pub fn update(&self, id: &str, resources: &serde_json::Value) -> Answer<()> {
        let mut update = UpdateTaskRequest {
            container_id: id.to_owned(),
            ..Default::default()
        };
        let any = update.resources.get_or_insert_default();
        any.type_url = RESOURCES_TYPE.to_owned();
        any.value = resources.to_string().into_bytes();
        self.call(self.client().update(request(update))).map(drop)
    }

    /// Metrics of the container, if containerd returns any.
    pub fn metrics(&self, id: &str) -> Result<Option<Metrics>> {
        let metrics = MetricsRequest {
            filters: vec![format!("id=={id}")],
        };
        let found = self.call(self.client().metrics(request(metrics))).context("no metrics")?.metrics;
        let data = found.into_iter().find(|metric| metric.id == id).and_then(|metric| metric.data);
        data.map(|any| Metrics::parse_from_bytes(&any.value).with_context(|| format!("the metrics are {}", any.type_url)))
            .transpose()
    }

    /// Collects events of tasks from now on.
    pub fn events(&self) -> Result<Events> {
        let events = Events::default();
        let seen = events.clone();
        let subscribed = Arc::new(AtomicBool::new(false));
        let first = Arc::clone(&subscribed);
        let mut client = EventsClient::new(self.channel.clone());
        // Subscribe returns with the first event, so it is not awaited here.
        self.runtime.spawn(async move {
            let all = SubscribeRequest { filters: Vec::new() };
            let Ok(stream) = client.subscribe(request(all)).await else { return };
            let mut stream = stream.into_inner();
            while let Ok(Some(event)) = stream.message().await {
                if event.topic == READY {
                    first.store(true, Ordering::Release);
                } else if event.topic.starts_with("/tasks/")
                    && let Ok(mut topics) = seen.0.lock()
                {
                    topics.push(event.topic);
                }
            }
        });
        let end = Instant::now() + CALL_DEADLINE;
        while !subscribed.load(Ordering::Acquire) {
            ensure!(Instant::now() < end, "containerd sends no events");
            let mut ready = PublishRequest {
                topic: READY.to_owned(),
                ..Default::default()
            };
            ready.event.get_or_insert_default().type_url = "containerd.events.TaskStart".to_owned();
            let mut client = EventsClient::new(self.channel.clone());
            self.call(client.publish(request(ready))).context("containerd accepts no event")?;
            std::thread::sleep(POLL);
        }
        Ok(events)
    }
}
