//! A hostile host: no request makes the guest do what the policy denies, and the guest stays intact.

mod wire;

use crate::{
    lab::{Ended, IMAGES, Lab, Policy, Set, vm::Vm},
    stories::story::{Machines, OURS, Story},
    testbed::images::{self, BUSYBOX, PATH},
};
use agent_protocol::{
    AgentClient, CONTROL_PORT, CreateContainerRequest, DeleteProcessRequest, ExecProcessRequest, ListProcessesRequest, MountLayerRequest,
    MountOverlayRequest, MountScratchRequest, STREAM_PORT, SetPolicyRequest, ShutdownContainerRequest, StartContainerRequest, Stdio,
    StreamToken, UnmountLayerRequest, UnmountOverlayRequest, UnmountScratchRequest, WaitProcessRequest, connect,
    limits::CONTROL_CONNECTIONS, open_stream,
};
use anyhow::{Context, Result, bail, ensure};
use hostile_requests::{Stage, Traffic, World};
use serde_json::{Value, json};
use std::{fs::File, path::Path};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use ttrpc::Code;

/// The stories of this file.
pub const STORIES: &[Story] = &[
    Story {
        name: "hostile-host",
        about: "none of 5 000 random, mutated and reordered requests to the agent has an effect that the policy denies",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: |lab| storm(lab, 5_000),
    },
    Story {
        name: "hostile-host-full",
        about: "the same with 100 000 requests",
        runtimes: OURS,
        set: Set::Full,
        machines: Machines::Own { minutes: 30 },
        run: |lab| storm(lab, 100_000),
    },
];

const CONTAINER: &str = "hostile-host-container";
pub(super) const COMMAND: [&str; 2] = ["sleep", "100000"];
/// Prints state of the guest that depends on its mounts: every container sees the guest's device-mapper devices.
const PROBE: [&str; 2] = ["ls", "/sys/block"];
/// Device-mapper devices while everything is mounted: image and verity of the layer, integrity and encryption of the scratch disk.
const DEVICES: usize = 4;
/// One request in so many reaches the policy, which takes milliseconds, and tens of milliseconds under emulation.
const JUDGED_ONE_IN: usize = 150;
/// Requests that the host gives up at once.
const HURRIED: usize = 10_000;
/// ext4's superblock follows the first 1024 bytes; its second field is the number of blocks (Documentation/filesystems/ext4).
const EXT4_BLOCKS_AT: usize = 1024 + 4;
const BLOCK_BYTES: u64 = 4096;

/// Calls of the agent that must succeed.
struct Host<'a> {
    vm: &'a Vm,
    agent: AgentClient,
    context: fn() -> ttrpc::context::Context,
    probes: u8,
}

fn storm(lab: &Lab, requests: usize) -> Result<()> {
    println!("  seed: {}", lab.scope().words());
    let policy = Policy::of(BUSYBOX)
        .command(&COMMAND)
        .exec(&PROBE)
        .properties()
        .logging()
        .generate()?;
    let layer = converted_layer()?;
    let vm = Vm::boot("hostile-host", policy.text().as_bytes())?;
    vm.with_agent(async |agent, context| {
        let world = world(&vm, &layer)?;
        // The full story must not begin with the short one's requests.
        let mut traffic = Traffic::new(lab.scope().seed ^ requests as u64, world.clone(), JUDGED_ONE_IN);
        let mut host = Host {
            vm: &vm,
            agent,
            context,
            probes: 0,
        };
        for stage in [Stage::Closed, Stage::Open, Stage::Mounted, Stage::Running] {
            host.advance(stage, &world, policy.text()).await?;
            wire::storm(&vm, &mut traffic, stage, requests / 4).await?;
            host.check_state(stage).await?;
            check_console(&vm)?;
        }
        wire::hurried(&vm, &mut traffic, Stage::Running, HURRIED).await?;
        exhaust_connections(&vm).await?;
        host.oversized().await?;
        host.check_state(Stage::Running).await?;
        host.take_down().await
    })?;
    check_console(&vm)?;
    vm.stop()?;
    lab.nothing_is_left()
}

fn check_console(vm: &Vm) -> Result<()> {
    let console = vm.console()?;
    for word in ["panicked", "sealed", "BUG:", "Oops", "Call Trace", "Out of memory"] {
        ensure!(!console.contains(word), "the guest's console has {word}:\n{console}");
    }
    Ok(())
}

/// Busybox's layer as the guest mounts it, and an open descriptor of it.
pub(super) fn converted_layer() -> Result<(File, MountLayerRequest)> {
    let layout = Path::new(IMAGES).join(images::file_name(BUSYBOX).trim_end_matches(".tar"));
    let read = |path: &Path| -> Result<Value> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("{} is not JSON", path.display()))
    };
    let blob = |descriptor: &Value| -> Result<std::path::PathBuf> {
        let digest = descriptor["digest"].as_str().context("a descriptor without digest")?;
        Ok(layout.join("blobs").join(digest.replace(':', "/")))
    };
    let manifest = read(&blob(&read(&layout.join("index.json"))?["manifests"][0])?)?;
    let tar = blob(&manifest["layers"][0])?;
    let path = Path::new("/job/hostile-host.ext4");
    let words = [
        "casemate",
        "layer",
        "convert",
        tar.to_str().context("a path that is not UTF-8")?,
        path.to_str().context("a path that is not UTF-8")?,
    ];
    let root_hash = Ended::of(&words)?.exits_with(0)?.text();
    let root_hash = root_hash.lines().last().unwrap_or_default().trim();
    let bytes = std::fs::read(path).context("cannot read the converted layer")?;
    let blocks = bytes.get(EXT4_BLOCKS_AT..).and_then(|rest| rest.first_chunk()).copied();
    let request = MountLayerRequest {
        data_blocks: u32::from_le_bytes(blocks.context("the converted layer is no ext4")?).into(),
        total_blocks: bytes.len() as u64 / BLOCK_BYTES,
        root_hash: hex::decode(root_hash).with_context(|| format!("{root_hash} is no root hash"))?,
        ..Default::default()
    };
    let file = File::open(path).context("cannot open the converted layer")?;
    std::fs::remove_file(path).context("cannot remove the converted layer's name")?;
    Ok((file, request))
}

pub(super) fn world(vm: &Vm, (file, layer): &(File, MountLayerRequest)) -> Result<World> {
    let layer = MountLayerRequest {
        first_sector: vm.append_layer(file)?,
        ..layer.clone()
    };
    // The spec as containerd itself would write it.
    let spec: Value = serde_json::from_str(&Ended::of(&["ctr", "oci", "spec"])?.exits_with(0)?.text()).context("ctr prints no spec")?;
    let of = |command: &[&str]| {
        let mut spec = spec.clone();
        spec["process"]["args"] = json!(command);
        spec["process"]["env"] = json!([PATH]);
        spec["process"]["cwd"] = json!("/");
        spec
    };
    Ok(World {
        container: CONTAINER.to_owned(),
        spec: of(&COMMAND).to_string().into_bytes(),
        forbidden_spec: of(&["sh"]).to_string().into_bytes(),
        forbidden_process: of(&["sh", "-c", "true"])["process"].to_string().into_bytes(),
        layer,
    })
}

impl Host<'_> {
    /// Makes the allowed requests that lead to `stage`.
    async fn advance(&mut self, stage: Stage, world: &World, policy: &str) -> Result<()> {
        let agent = &self.agent;
        let container_id = CONTAINER.to_owned();
        match stage {
            Stage::Closed => {}
            Stage::Open => {
                let request = SetPolicyRequest {
                    policy: policy.into(),
                    ..Default::default()
                };
                agent.set_policy((self.context)(), &request).await.context("SetPolicy")?;
            }
            Stage::Mounted => {
                agent.mount_layer((self.context)(), &world.layer).await.context("MountLayer")?;
                let request = MountScratchRequest {
                    sandbox_id: container_id.clone(),
                    encrypted: true,
                    ..Default::default()
                };
                agent.mount_scratch((self.context)(), &request).await.context("MountScratch")?;
                let request = MountOverlayRequest {
                    sandbox_id: container_id.clone(),
                    container_id,
                    layer_slots: vec![0],
                    ..Default::default()
                };
                agent.mount_overlay((self.context)(), &request).await.context("MountOverlay")?;
            }
            Stage::Running => {
                let request = CreateContainerRequest {
                    container_id: container_id.clone(),
                    sandbox_id: container_id.clone(),
                    spec: world.spec.clone(),
                    ..Default::default()
                };
                agent
                    .create_container((self.context)(), &request)
                    .await
                    .context("CreateContainer")?;
                let request = StartContainerRequest {
                    container_id,
                    ..Default::default()
                };
                agent.start_container((self.context)(), &request).await.context("StartContainer")?;
            }
        }
        println!("  {stage:?}");
        Ok(())
    }

    /// Checks that the guest has exactly the state of `stage`, and that the policy still judges correctly.
    async fn check_state(&mut self, stage: Stage) -> Result<()> {
        let list = ListProcessesRequest {
            container_id: CONTAINER.to_owned(),
            ..Default::default()
        };
        let processes = self.agent.list_processes((self.context)(), &list).await;
        if stage != Stage::Running {
            ensure!(processes.is_err(), "there is a container at {stage:?}");
            return Ok(());
        }
        let count = processes.context("ListProcesses")?.processes.len();
        ensure!(count == 1, "the container has {count} processes instead of its init alone");
        let seen = self.probe().await?;
        let devices = seen.split_whitespace().filter(|name| name.starts_with("dm-")).count();
        ensure!(
            devices == DEVICES,
            "the guest has {devices} device-mapper devices instead of {DEVICES}:\n{seen}"
        );
        Ok(())
    }

    /// Runs the one exec that the policy allows; returns its output.
    async fn probe(&mut self) -> Result<String> {
        self.probes += 1;
        let token = StreamToken([self.probes; 16]);
        let exec_id = format!("probe-{}", self.probes);
        let mut stream = open_stream(self.vm.vsock(), token).await.context("opening a stream")?;
        let spec: Value = serde_json::from_str(&Ended::of(&["ctr", "oci", "spec"])?.exits_with(0)?.text())?;
        let mut process = spec["process"].clone();
        process["args"] = json!(PROBE);
        process["env"] = json!([PATH]);
        process["cwd"] = json!("/");
        let stdio = Stdio {
            stdout_token: token.to_field(),
            ..Default::default()
        };
        let request = ExecProcessRequest {
            container_id: CONTAINER.to_owned(),
            exec_id: exec_id.clone(),
            process: process.to_string().into_bytes(),
            stdio: Some(stdio).into(),
            ..Default::default()
        };
        self.agent
            .exec_process((self.context)(), &request)
            .await
            .context("the allowed exec")?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.context("reading the exec's output")?;
        let request = WaitProcessRequest {
            container_id: CONTAINER.to_owned(),
            exec_id: exec_id.clone(),
            ..Default::default()
        };
        let exit = self.agent.wait_process((self.context)(), &request).await.context("WaitProcess")?;
        ensure!(exit.exit_status == 0, "the allowed exec exited with {}", exit.exit_status);
        let request = DeleteProcessRequest {
            container_id: CONTAINER.to_owned(),
            exec_id,
            ..Default::default()
        };
        self.agent
            .delete_process((self.context)(), &request)
            .await
            .context("DeleteProcess")?;
        Ok(text)
    }

    /// Frames and payloads above their limits are refused, and the connection stays usable.
    async fn oversized(&self) -> Result<()> {
        for bytes in [
            agent_protocol::limits::MESSAGE_BYTES + 1,
            agent_protocol::limits::POLICY_BYTES + (64 << 10),
        ] {
            let code = wire::oversized(self.vm, bytes).await?;
            ensure!(
                code == Code::INVALID_ARGUMENT,
                "a request of {bytes} bytes was answered with {code:?}"
            );
        }
        Ok(())
    }

    /// Everything can be unmounted: the requests did not change the policy's state.
    async fn take_down(&self) -> Result<()> {
        let agent = &self.agent;
        let container_id = CONTAINER.to_owned();
        let request = ShutdownContainerRequest {
            container_id: container_id.clone(),
            ..Default::default()
        };
        agent
            .shutdown_container((self.context)(), &request)
            .await
            .context("ShutdownContainer")?;
        let request = UnmountOverlayRequest {
            container_id: container_id.clone(),
            ..Default::default()
        };
        agent.unmount_overlay((self.context)(), &request).await.context("UnmountOverlay")?;
        let request = UnmountScratchRequest {
            sandbox_id: container_id,
            ..Default::default()
        };
        agent.unmount_scratch((self.context)(), &request).await.context("UnmountScratch")?;
        agent
            .unmount_layer((self.context)(), &UnmountLayerRequest::new())
            .await
            .context("UnmountLayer")?;
        println!("  taken down");
        Ok(())
    }
}

/// Opens more connections than the agent accepts, and streams that no request names: those above the limit are closed, the rest work.
async fn exhaust_connections(vm: &Vm) -> Result<()> {
    let mut connections = Vec::new();
    for _ in 0..CONTROL_CONNECTIONS + 4 {
        connections.push(connect(vm.vsock(), CONTROL_PORT).await.context("connecting once more")?);
    }
    let mut refused = 0;
    for connection in &mut connections {
        refused += usize::from(wire::is_refused(connection).await?);
    }
    // The story's own connection counts, and a connection that was just closed may still count.
    ensure!(
        refused >= 5 && refused < connections.len(),
        "of {} connections {refused} were closed, not those beyond {CONTROL_CONNECTIONS}",
        connections.len()
    );
    drop(connections);
    let mut streams = Vec::new();
    for n in 0..40 {
        // Half of them send an incomplete token.
        let mut stream = connect(vm.vsock(), STREAM_PORT).await.context("opening a stream once more")?;
        let token = [0x80 | n; StreamToken::BYTES];
        let part = if n % 2 == 0 { &token[..] } else { &token[..5] };
        if stream.write_all(part).await.is_err() {
            bail!("a stream was closed after its token");
        }
        streams.push(stream);
    }
    Ok(())
}
