//! A containerd of the story's own with its CRI plugin: what the kubelet asks for, by the kubelet's own protocol.
//!
//! It has a root, a state directory and a socket of its own, so that the machine's containerd and its stories see nothing of it.

mod node;
mod pod;
pub mod stream;

pub use node::SANDBOX_API;
pub use pod::{Pod, PodContainer};

use crate::lab::{Ended, Runtime};
use anyhow::{Context, Result, bail, ensure};
use k8s_cri::v1::{
    AttachRequest, ContainerState, ContainerStats, ContainerStatsFilter, ContainerStatsRequest, ContainerStatus, ContainerStatusRequest,
    CreateContainerRequest, ExecRequest, ExecSyncRequest, ExecSyncResponse, LinuxPodSandboxStats, ListContainerStatsRequest,
    PodSandboxConfig, PodSandboxStatsRequest, PodSandboxStatus, PodSandboxStatusRequest, PortForwardRequest, RemoveContainerRequest,
    RemovePodSandboxRequest, ReopenContainerLogRequest, RunPodSandboxRequest, StartContainerRequest, StopContainerRequest,
    StopPodSandboxRequest, runtime_service_client::RuntimeServiceClient,
};
use node::Node;
use std::{
    future::Future,
    io::Write,
    net::TcpStream,
    path::PathBuf,
    time::{Duration, Instant},
};
use stream::{Session, Wanted};
use tonic::{Code, transport::Channel};

/// Time limit of a call in an emulated machine; a VM may boot within it.
const CALL_DEADLINE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(100);
/// Lines of containerd's log that a story shows when it fails.
const SHOWN_LINES: usize = 40;

/// The answer of a call, or the CRI's code and text.
pub type Answer<T> = std::result::Result<T, tonic::Status>;

/// A client of the story's own containerd.
pub struct Cri {
    runtime: tokio::runtime::Runtime,
    client: RuntimeServiceClient<Channel>,
    handler: &'static str,
    node: Node,
}

/// A pod that runs.
pub struct RunningPod<'a> {
    cri: &'a Cri,
    /// Its sandbox's id.
    pub id: String,
    config: PodSandboxConfig,
}

impl Cri {
    /// Starts a containerd that has `images`, whose pods run on `runtime`.
    pub fn start(runtime: Runtime, images: &[&str]) -> Result<Self> {
        Self::start_as(runtime.short(), images)
    }

    /// The same for a runtime handler of the node's configuration.
    pub fn start_as(handler: &'static str, images: &[&str]) -> Result<Self> {
        let node = Node::start(images)?;
        let tokio = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        let channel = tokio
            .block_on(containerd_client::connect(node.socket()))
            .context("cannot reach the story's containerd")?;
        Ok(Self {
            runtime: tokio,
            client: RuntimeServiceClient::new(channel),
            handler,
            node,
        })
    }

    fn call<T>(&self, call: impl Future<Output = Answer<tonic::Response<T>>>) -> Answer<T> {
        self.runtime.block_on(async {
            match tokio::time::timeout(CALL_DEADLINE, call).await {
                Ok(answer) => answer.map(tonic::Response::into_inner),
                Err(_) => Err(tonic::Status::new(Code::DeadlineExceeded, "the story's time limit passed")),
            }
        })
    }

    fn client(&self) -> RuntimeServiceClient<Channel> {
        self.client.clone()
    }

    /// Runs a pod.
    pub fn run(&self, pod: Pod) -> Answer<RunningPod<'_>> {
        self.run_on(self.handler, pod)
    }

    /// The same on another runtime handler.
    pub fn run_on(&self, handler: &str, pod: Pod) -> Answer<RunningPod<'_>> {
        let request = RunPodSandboxRequest {
            config: Some(pod.0.clone()),
            runtime_handler: handler.to_owned(),
        };
        let id = self.call(self.client().run_pod_sandbox(request))?.pod_sandbox_id;
        Ok(RunningPod {
            cri: self,
            id,
            config: pod.0,
        })
    }

    /// Ids of the containers that the story's containerd has, pause containers among them.
    pub fn containers(&self) -> Result<Vec<String>> {
        let listed = self.ctr(&["containers", "list", "-q"])?;
        Ok(listed.exits_with(0)?.text().lines().map(str::to_owned).collect())
    }

    /// Runs `ctr` on the story's containerd, in the namespace of pods.
    pub fn ctr(&self, words: &[&str]) -> Result<Ended> {
        let socket = self.node.socket().display().to_string();
        Ended::of(&[&["ctr", "--address", &socket, "--namespace", "k8s.io"], words].concat())
    }

    /// What the story's containerd has logged.
    pub fn log(&self) -> String {
        self.node.log()
    }

    /// Prints the end of that, for a story that has failed.
    pub fn show_log(&self) {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        println!("{}", lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n"));
    }
}

impl RunningPod<'_> {
    /// Creates a container; returns its id.
    pub fn create(&self, container: &PodContainer) -> Answer<String> {
        let request = CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(container.0.clone()),
            sandbox_config: Some(self.config.clone()),
        };
        Ok(self.cri.call(self.cri.client().create_container(request))?.container_id)
    }

    /// Starts a created container.
    pub fn start(&self, container: &str) -> Answer<()> {
        let request = StartContainerRequest {
            container_id: container.to_owned(),
        };
        self.cri.call(self.cri.client().start_container(request)).map(drop)
    }

    /// Creates and starts a container; returns its id. containerd asks the shim when it starts it: one that is refused then is removed.
    pub fn run(&self, container: &PodContainer) -> Answer<String> {
        let id = self.create(container)?;
        self.start(&id).inspect_err(|_| drop(self.remove(&id))).map(|()| id)
    }

    /// Runs a command in a container; `timeout` 0 is none.
    pub fn exec(&self, container: &str, command: &[&str], timeout: i64) -> Answer<ExecSyncResponse> {
        let request = ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: command.iter().map(|word| (*word).to_owned()).collect(),
            timeout,
        };
        self.cri.call(self.cri.client().exec_sync(request))
    }

    /// Runs a command in a container, with its streams by the URL that containerd gives, as `kubectl exec` does.
    pub fn stream(&self, container: &str, command: &[&str], wanted: Wanted) -> Result<Session> {
        let request = ExecRequest {
            container_id: container.to_owned(),
            cmd: command.iter().map(|word| (*word).to_owned()).collect(),
            tty: wanted.terminal,
            stdin: wanted.input,
            stdout: true,
            stderr: !wanted.terminal,
        };
        let answer = self
            .cri
            .call(self.cri.client().exec(request))
            .with_context(|| format!("exec of {command:?}"))?;
        Session::open(&answer.url, wanted)
    }

    /// The streams of a container's own process, as `kubectl attach` has them.
    pub fn attach(&self, container: &str, wanted: Wanted) -> Result<Session> {
        let request = AttachRequest {
            container_id: container.to_owned(),
            tty: wanted.terminal,
            stdin: wanted.input,
            stdout: true,
            stderr: !wanted.terminal,
        };
        let answer = self.cri.call(self.cri.client().attach(request)).context("attach")?;
        Session::open(&answer.url, wanted)
    }

    /// Standard output of a command that must succeed, without its last line feed.
    pub fn output(&self, container: &str, command: &[&str]) -> Result<String> {
        let ended = self.exec(container, command, 0).with_context(|| format!("exec of {command:?}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        ensure!(
            ended.exit_code == 0,
            "{command:?} ended with {}: {} {}",
            ended.exit_code,
            text(&ended.stdout),
            text(&ended.stderr)
        );
        Ok(text(&ended.stdout))
    }

    /// The status of a container.
    pub fn status(&self, container: &str) -> Result<ContainerStatus> {
        let request = ContainerStatusRequest {
            container_id: container.to_owned(),
            verbose: false,
        };
        let answer = self.cri.call(self.cri.client().container_status(request))?;
        answer.status.context("a container without a status")
    }

    /// Waits until a container has exited.
    pub fn exited(&self, container: &str) -> Result<ContainerStatus> {
        let end = Instant::now() + CALL_DEADLINE;
        loop {
            let status = self.status(container)?;
            if status.state == i32::from(ContainerState::ContainerExited) {
                return Ok(status);
            }
            if Instant::now() > end {
                bail!("container {container} has not exited within {CALL_DEADLINE:?}");
            }
            std::thread::sleep(POLL);
        }
    }

    /// Stops a container: SIGTERM, and SIGKILL after `grace` seconds.
    pub fn stop(&self, container: &str, grace: i64) -> Answer<()> {
        let request = StopContainerRequest {
            container_id: container.to_owned(),
            timeout: grace,
        };
        self.cri.call(self.cri.client().stop_container(request)).map(drop)
    }

    /// Removes a container.
    pub fn remove(&self, container: &str) -> Answer<()> {
        let request = RemoveContainerRequest {
            container_id: container.to_owned(),
        };
        self.cri.call(self.cri.client().remove_container(request)).map(drop)
    }

    /// The status of the sandbox.
    pub fn sandbox(&self) -> Result<PodSandboxStatus> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: self.id.clone(),
            verbose: false,
        };
        let answer = self.cri.call(self.cri.client().pod_sandbox_status(request))?;
        answer.status.context("a sandbox without a status")
    }

    /// What containerd knows of the sandbox, as JSON.
    pub fn details(&self) -> Result<String> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: self.id.clone(),
            verbose: true,
        };
        let answer = self.cri.call(self.cri.client().pod_sandbox_status(request))?;
        answer.info.into_values().next().context("a sandbox without details")
    }

    /// Its addresses, IPv4's first.
    pub fn addresses(&self) -> Result<Vec<String>> {
        let network = self.sandbox()?.network.context("the pod has no network")?;
        let more = network.additional_ips.into_iter().map(|ip| ip.ip);
        Ok([network.ip].into_iter().chain(more).filter(|ip| !ip.is_empty()).collect())
    }

    /// The URL at which the pod's ports are forwarded.
    pub fn port_forward(&self, port: u16) -> Answer<String> {
        let request = PortForwardRequest {
            pod_sandbox_id: self.id.clone(),
            port: vec![port.into()],
        };
        Ok(self.cri.call(self.cri.client().port_forward(request))?.url)
    }

    /// The log of the container of that name.
    pub fn log(&self, name: &str) -> Result<String> {
        let path = PathBuf::from(&self.config.log_directory).join(format!("{name}.log"));
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Renames the log of container `name` and has containerd open another, as the kubelet rotates it.
    pub fn rotate_log(&self, container: &str, name: &str, to: &str) -> Result<()> {
        let directory = PathBuf::from(&self.config.log_directory);
        let (from, to) = (directory.join(format!("{name}.log")), directory.join(format!("{to}.log")));
        std::fs::rename(&from, &to).with_context(|| format!("cannot rename {}", from.display()))?;
        let request = ReopenContainerLogRequest {
            container_id: container.to_owned(),
        };
        self.cri
            .call(self.cri.client().reopen_container_log(request))
            .context("reopen the log")?;
        Ok(())
    }

    /// What a container uses.
    pub fn stats(&self, container: &str) -> Result<ContainerStats> {
        let request = ContainerStatsRequest {
            container_id: container.to_owned(),
        };
        let answer = self.cri.call(self.cri.client().container_stats(request)).context("stats")?;
        answer.stats.context("no statistics of the container")
    }

    /// What each of its containers uses.
    pub fn all_stats(&self) -> Result<Vec<ContainerStats>> {
        let request = ListContainerStatsRequest {
            filter: Some(ContainerStatsFilter {
                pod_sandbox_id: self.id.clone(),
                ..Default::default()
            }),
        };
        Ok(self
            .cri
            .call(self.cri.client().list_container_stats(request))
            .context("stats of all")?
            .stats)
    }

    /// What the pod uses on its node.
    pub fn pod_stats(&self) -> Result<LinuxPodSandboxStats> {
        let request = PodSandboxStatsRequest {
            pod_sandbox_id: self.id.clone(),
        };
        let answer = self
            .cri
            .call(self.cri.client().pod_sandbox_stats(request))
            .context("stats of the pod")?;
        answer.stats.and_then(|stats| stats.linux).context("no statistics of the pod")
    }

    /// Stops and removes the pod.
    pub fn end(self) -> Result<()> {
        let stop = StopPodSandboxRequest {
            pod_sandbox_id: self.id.clone(),
        };
        self.cri.call(self.cri.client().stop_pod_sandbox(stop)).context("stop the pod")?;
        let remove = RemovePodSandboxRequest {
            pod_sandbox_id: self.id.clone(),
        };
        self.cri
            .call(self.cri.client().remove_pod_sandbox(remove))
            .context("remove the pod")?;
        Ok(())
    }
}

/// What the node gets by HTTP from `ADDRESS:PORT`.
///
/// # Errors
/// When nobody answers by HTTP.
pub fn get(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(CALL_DEADLINE)).context("cannot set a time limit")?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").context("cannot send a request")?;
    let answer = std::io::read_to_string(stream).context("cannot read the answer")?;
    let body = answer.split_once("\r\n\r\n").context("no answer of HTTP")?.1;
    Ok(body.trim_end().to_owned())
}
