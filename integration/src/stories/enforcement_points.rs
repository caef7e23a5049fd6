//! Every enforcement point, reached by the call that it guards: what the policy does not allow is denied, and the denial names the point.

use super::hostile_host::{COMMAND, converted_layer, world};
use crate::{
    lab::{Lab, Policy, Set, vm::Vm},
    stories::story::{Machines, OURS, Story},
    testbed::images::BUSYBOX,
};
use agent_protocol::{
    AgentClient, AttachDiskRequest, ConfigureNetworkRequest, ContainerStatsRequest, CreateContainerRequest, DetachDiskRequest,
    DumpStacksRequest, ExecExternalRequest, ExecProcessRequest, ForwardPortRequest, ListProcessesRequest, LoadFragmentRequest,
    MountLayerRequest, MountOverlayRequest, MountScratchRequest, MountShareRequest, PauseContainerRequest, PullImageRequest,
    SetPolicyRequest, ShutdownContainerRequest, SignalProcessRequest, StartContainerRequest, StreamToken, UnmountLayerRequest,
    UnmountOverlayRequest, UnmountScratchRequest, UnmountShareRequest, UpdateContainerRequest, open_stream,
};
use anyhow::{Context, Result, bail, ensure};
use hostile_requests::World;
use serde_json::{Value, json};
use ttrpc::Code;

/// The stories of this file.
pub const STORIES: &[Story] = &[
    Story {
        name: "denied-points",
        about: "every enforcement point denies its call by name, and the agent's log stays in the guest",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: denied_everywhere,
    },
    Story {
        name: "denied-confinement",
        about: "a policy with a casemate_version judges paths, namespaces, limits and kernel parameters",
        runtimes: OURS,
        set: Set::Short,
        machines: Machines::Shared,
        run: confined,
    },
];

/// A signed fragment that no policy here lists.
const FRAGMENT: &[u8] = include_bytes!("../../../policy/fragment/fixtures/es256.cose");
const TRUST_LIST: &[u8] = include_bytes!("../../../policy/fragment/fixtures/trust-list.cose");
const TRUST_LISTS: &str = "application/vnd.transparency-trust-list.v1+cose";
const NETWORK_ANNOTATION: &str = "io.microsoft.virtualmachine.lcow.hostnetwork";

/// An exec that the policy allows, with fewer signals than the init.
const EXEC: [&str; 2] = ["sleep", "99999"];
/// SIGWINCH, ignored by default. The policy allows it for the init but not for the exec.
const SIGNAL_OF_INIT: u32 = 28;

/// Creates the context of a call, with its time limit.
type Deadlined = fn() -> ttrpc::context::Context;

/// Checks that the policy denies the call at `point`.
fn denied<T>(point: &str, result: ttrpc::Result<T>) -> Result<()> {
    let status = match result {
        Ok(_) => bail!("the call succeeded although {point} denies it"),
        Err(ttrpc::Error::RpcStatus(status)) => status,
        Err(other) => return Err(other).with_context(|| format!("no answer to a call that {point} denies")),
    };
    let text = status.message();
    ensure!(
        status.code() == Code::PERMISSION_DENIED && text.contains(&format!("(rule {point})")),
        "not denied by {point}: {:?}: {text}",
        status.code()
    );
    println!(
        "  {}",
        text.lines().next().unwrap_or_default().chars().take(160).collect::<String>()
    );
    Ok(())
}

/// Checks that the call fails for another reason than a denial.
fn refused<T>(what: &str, code: Code, result: ttrpc::Result<T>) -> Result<()> {
    match result {
        Err(ttrpc::Error::RpcStatus(status)) if status.code() == code => {
            println!("  {what}: {}", status.message());
            Ok(())
        }
        Err(other) => bail!("{what}: {other}"),
        Ok(_) => bail!("{what} succeeded"),
    }
}

/// The policy with a rule that always denies `point`, where the framework never has a reason to.
fn shut(point: &str, policy: &str) -> Result<String> {
    let rule = format!("{point} := data.framework.{point}\n");
    ensure!(policy.contains(&rule), "the policy has no rule for {point}");
    Ok(policy.replace(&rule, &format!("{point} := {{\"allowed\": false}}\n")))
}

async fn open(agent: &AgentClient, context: Deadlined, policy: &str) -> Result<()> {
    let request = SetPolicyRequest {
        policy: policy.into(),
        ..Default::default()
    };
    agent.set_policy(context(), &request).await.context("SetPolicy")?;
    Ok(())
}

/// Mounts what the container needs except its overlay.
async fn mount(agent: &AgentClient, context: Deadlined, world: &World) -> Result<()> {
    agent.mount_layer(context(), &world.layer).await.context("MountLayer")?;
    let request = MountScratchRequest {
        sandbox_id: world.container.clone(),
        encrypted: true,
        ..Default::default()
    };
    agent.mount_scratch(context(), &request).await.context("MountScratch")?;
    Ok(())
}

fn overlay(world: &World, container: &str, layer_slots: Vec<u32>) -> MountOverlayRequest {
    MountOverlayRequest {
        container_id: container.to_owned(),
        sandbox_id: world.container.clone(),
        layer_slots,
        ..Default::default()
    }
}

fn create(world: &World, spec: Vec<u8>) -> CreateContainerRequest {
    CreateContainerRequest {
        container_id: world.container.clone(),
        sandbox_id: world.container.clone(),
        spec,
        ..Default::default()
    }
}

fn changed(spec: &[u8], change: impl FnOnce(&mut Value)) -> Result<Vec<u8>> {
    let mut spec: Value = serde_json::from_slice(spec).context("the container's spec is not JSON")?;
    change(&mut spec);
    Ok(spec.to_string().into_bytes())
}

fn denied_everywhere(lab: &Lab) -> Result<()> {
    let generated = Policy::of(BUSYBOX)
        .command(&COMMAND)
        .exec(&EXEC)
        .signals(&[SIGNAL_OF_INIT])
        .generate()?;
    let policy = shut("shutdown_container", generated.text())?;
    let layer = converted_layer()?;
    let vm = Vm::boot("points", policy.as_bytes())?;
    vm.with_agent(async |agent, context| {
        let world = world(&vm, &layer)?;
        open(&agent, context, &policy).await?;
        before_mounts(&agent, context, &world).await?;
        mount(&agent, context, &world).await?;
        with_a_container(&agent, context, &world).await
    })?;
    let console = vm.console()?;
    ensure!(
        !console.contains("agent: denied by"),
        "the agent's log is on the console although runtime_logging denies it:\n{console}"
    );
    vm.stop()?;
    lab.nothing_is_left()
}

async fn before_mounts(agent: &AgentClient, context: Deadlined, world: &World) -> Result<()> {
    let fragment = |message: &[u8], media_type: &str| LoadFragmentRequest {
        message: message.to_vec(),
        media_type: media_type.to_owned(),
        ..Default::default()
    };
    denied("load_fragment", agent.load_fragment(context(), &fragment(FRAGMENT, "")).await)?;
    let list = fragment(TRUST_LIST, TRUST_LISTS);
    denied("load_transparency_trust_list", agent.load_fragment(context(), &list).await)?;
    let mut forged = FRAGMENT.to_vec();
    if let Some(last) = forged.last_mut() {
        *last ^= 1;
    }
    let forged = agent.load_fragment(context(), &fragment(&forged, "")).await;
    refused("a forged fragment", Code::INVALID_ARGUMENT, forged)?;
    let mut layer = MountLayerRequest {
        slot: 5,
        ..world.layer.clone()
    };
    layer.root_hash[0] ^= 1;
    denied("mount_device", agent.mount_layer(context(), &layer).await)?;
    let slot = UnmountLayerRequest {
        slot: 5,
        ..Default::default()
    };
    denied("unmount_device", agent.unmount_layer(context(), &slot).await)?;
    let scratch = MountScratchRequest {
        sandbox_id: world.container.clone(),
        encrypted: false,
        ..Default::default()
    };
    denied("rw_mount_device", agent.mount_scratch(context(), &scratch).await)?;
    let scratch = UnmountScratchRequest {
        sandbox_id: world.container.clone(),
        ..Default::default()
    };
    denied("rw_unmount_device", agent.unmount_scratch(context(), &scratch).await)?;
    let rootfs = UnmountOverlayRequest {
        container_id: world.container.clone(),
        ..Default::default()
    };
    denied("unmount_overlay", agent.unmount_overlay(context(), &rootfs).await)?;
    denied("mount_blockdev", agent.attach_disk(context(), &AttachDiskRequest::new()).await)?;
    denied("unmount_blockdev", agent.detach_disk(context(), &DetachDiskRequest::new()).await)?;
    let share = MountShareRequest {
        container_id: world.container.clone(),
        ..Default::default()
    };
    denied("plan9_mount", agent.mount_share(context(), &share).await)?;
    let share = UnmountShareRequest {
        container_id: world.container.clone(),
        ..Default::default()
    };
    denied("plan9_unmount", agent.unmount_share(context(), &share).await)?;
    let console = ExecExternalRequest {
        exec_id: "console".to_owned(),
        args: vec!["/init".to_owned(), "show".to_owned()],
        working_dir: "/".to_owned(),
        ..Default::default()
    };
    denied("exec_external", agent.exec_external(context(), &console).await)?;
    denied("dump_stacks", agent.dump_stacks(context(), &DumpStacksRequest::new()).await)
}

async fn with_a_container(agent: &AgentClient, context: Deadlined, world: &World) -> Result<()> {
    let container_id = world.container.clone();
    let bare = overlay(world, "bare", Vec::new());
    denied("mount_overlay", agent.mount_overlay(context(), &bare).await)?;
    let whole = overlay(world, &container_id, vec![0]);
    agent.mount_overlay(context(), &whole).await.context("MountOverlay")?;
    denied("scratch_mount", agent.mount_overlay(context(), &whole).await)?;
    let share = MountShareRequest {
        container_id: container_id.clone(),
        ..Default::default()
    };
    refused("an allowed share", Code::UNIMPLEMENTED, agent.mount_share(context(), &share).await)?;
    let forbidden = create(world, world.forbidden_spec.clone());
    denied("create_container", agent.create_container(context(), &forbidden).await)?;
    let spec = changed(&world.spec, |spec| spec["annotations"] = json!({NETWORK_ANNOTATION: "true"}))?;
    denied("host_network", agent.create_container(context(), &create(world, spec)).await)?;
    let right = create(world, world.spec.clone());
    let elsewhere = CreateContainerRequest {
        sandbox_id: "elsewhere".to_owned(),
        ..right.clone()
    };
    let elsewhere = agent.create_container(context(), &elsewhere).await;
    refused("a container of another sandbox", Code::FAILED_PRECONDITION, elsewhere)?;
    agent.create_container(context(), &right).await.context("CreateContainer")?;
    let start = StartContainerRequest {
        container_id: container_id.clone(),
        ..Default::default()
    };
    agent.start_container(context(), &start).await.context("StartContainer")?;
    let exec = ExecProcessRequest {
        container_id: container_id.clone(),
        exec_id: "sh".to_owned(),
        process: world.forbidden_process.clone(),
        ..Default::default()
    };
    denied("exec_in_container", agent.exec_process(context(), &exec).await)?;
    signals(agent, context, world).await?;
    // Without a rule of its own a pause is SIGSTOP, which the policy lists for no process, and limits are not below what is used.
    let pause = PauseContainerRequest {
        container_id: container_id.clone(),
        ..Default::default()
    };
    denied("signal_container_process", agent.pause_container(context(), &pause).await)?;
    let update = |resources: &str| UpdateContainerRequest {
        container_id: container_id.clone(),
        resources: resources.as_bytes().to_vec(),
        ..Default::default()
    };
    let starved = agent.update_container(context(), &update(r#"{"memory":{"limit":4096}}"#)).await;
    refused("a limit below what is in use", Code::PERMISSION_DENIED, starved)?;
    let raised = update(r#"{"memory":{"limit":1073741824}}"#);
    agent.update_container(context(), &raised).await.context("a higher limit")?;
    let list = ListProcessesRequest {
        container_id: container_id.clone(),
        ..Default::default()
    };
    denied("get_properties", agent.list_processes(context(), &list).await)?;
    let stats = ContainerStatsRequest {
        container_id: container_id.clone(),
        ..Default::default()
    };
    denied("get_properties", agent.container_stats(context(), &stats).await)?;
    let shutdown = ShutdownContainerRequest {
        container_id,
        ..Default::default()
    };
    denied("shutdown_container", agent.shutdown_container(context(), &shutdown).await)
}

/// A signal to all processes is one signal to each process that the policy knows, judged one by one.
async fn signals(agent: &AgentClient, context: Deadlined, world: &World) -> Result<()> {
    let init = |signal: u32, all: bool| SignalProcessRequest {
        container_id: world.container.clone(),
        signal,
        all,
        ..Default::default()
    };
    let point = "signal_container_process";
    denied(point, agent.signal_process(context(), &init(10, false)).await)?;
    let all = init(SIGNAL_OF_INIT, true);
    agent
        .signal_process(context(), &all)
        .await
        .context("a signal to all processes, which is the init")?;
    let spec: Value = serde_json::from_slice(&world.spec).context("the container's spec is not JSON")?;
    let mut process = spec["process"].clone();
    process["args"] = json!(EXEC);
    let exec = ExecProcessRequest {
        container_id: world.container.clone(),
        exec_id: "sleep".to_owned(),
        process: process.to_string().into_bytes(),
        ..Default::default()
    };
    agent.exec_process(context(), &exec).await.context("ExecProcess")?;
    denied(point, agent.signal_process(context(), &all).await)?;
    let alone = init(SIGNAL_OF_INIT, false);
    agent
        .signal_process(context(), &alone)
        .await
        .context("a signal to the init beside an exec")?;
    Ok(())
}

/// A change of the container's spec that the policy must deny, and its description.
type Change = (&'static str, fn(&mut Value));

/// The rules with which a policy judges confinement.
const WITH_CONFINEMENT: &str = "casemate_version := \"1.0.0\"\nconfine_container := data.framework.confine_container\n\
    attestation_report := data.framework.attestation_report\n\
    guest_network := data.framework.guest_network\nport_forward := data.framework.port_forward\n\
    pause_container := data.framework.pause_container\nupdate_container := data.framework.update_container\n\
    pull_image := data.framework.pull_image\npulls := [{\"pattern\": \"r[.]corp/app@.*\", \"strategy\": \"re2\"}]\n";

fn confined(lab: &Lab) -> Result<()> {
    let generated = Policy::of(BUSYBOX).command(&COMMAND).generate()?;
    let policy = format!("{}{WITH_CONFINEMENT}", shut("scratch_unmount", generated.text())?);
    let layer = converted_layer()?;
    let vm = Vm::boot("confined", policy.as_bytes())?;
    vm.with_agent(async |agent, context| {
        let mut world = world(&vm, &layer)?;
        world.spec = changed(&world.spec, |spec| spec["process"]["rlimits"] = json!([]))?;
        open(&agent, context, &policy).await?;
        mount(&agent, context, &world).await?;
        let whole = overlay(&world, &world.container, vec![0]);
        agent.mount_overlay(context(), &whole).await.context("MountOverlay")?;
        let changes: [Change; 6] = [
            ("/proc/kcore to be seen", |spec| {
                spec["linux"]["maskedPaths"] = json!(["/proc/keys"])
            }),
            ("a file of the image to be hidden", |spec| {
                if let Some(masked) = spec["linux"]["maskedPaths"].as_array_mut() {
                    masked.push(json!("/bin/busybox"));
                }
            }),
            ("/proc/sys to be written", |spec| spec["linux"]["readonlyPaths"] = json!([])),
            ("the pod's processes to be seen", |spec| {
                spec["linux"]["namespaces"] = json!([{"type": "pid", "path": "/proc/1/ns/pid"}]);
            }),
            ("a limit of its own", |spec| {
                spec["process"]["rlimits"] = json!([{"type": "RLIMIT_CORE", "hard": 1, "soft": 1}]);
            }),
            ("a kernel parameter", |spec| {
                spec["linux"]["sysctl"] = json!({"net.core.somaxconn": "9"})
            }),
        ];
        for (what, change) in changes {
            println!("  requested: {what}");
            let spec = changed(&world.spec, change)?;
            denied("confine_container", agent.create_container(context(), &create(&world, spec)).await)?;
        }
        // No denied request has changed what the next one gets.
        let right = create(&world, world.spec.clone());
        agent.create_container(context(), &right).await.context("CreateContainer")?;
        let pause = PauseContainerRequest {
            container_id: world.container.clone(),
            ..Default::default()
        };
        denied("pause_container", agent.pause_container(context(), &pause).await)?;
        let update = UpdateContainerRequest {
            container_id: world.container.clone(),
            resources: br#"{"pids":{"limit":100}}"#.to_vec(),
            ..Default::default()
        };
        denied("update_container", agent.update_container(context(), &update).await)?;
        network(&vm, &agent, context, &world).await?;
        let shutdown = ShutdownContainerRequest {
            container_id: world.container.clone(),
            ..Default::default()
        };
        agent.shutdown_container(context(), &shutdown).await.context("ShutdownContainer")?;
        // Another point than the one under test, but only this kind of policy denies it.
        let unmount = UnmountOverlayRequest {
            container_id: world.container.clone(),
            ..Default::default()
        };
        denied("scratch_unmount", agent.unmount_overlay(context(), &unmount).await)
    })?;
    vm.stop()?;
    lab.nothing_is_left()
}

/// The guest pulls what the policy lists, by a puller that nobody answers: the VM has no network.
async fn pull(agent: &AgentClient, context: Deadlined, world: &World) -> Result<()> {
    let image = |name: &str| PullImageRequest {
        sandbox_id: world.container.clone(),
        image: format!("{name}@sha256:{}", "a".repeat(64)),
        ..Default::default()
    };
    denied("pull_image", agent.pull_image(context(), &image("r.corp/other")).await)?;
    let tag = PullImageRequest {
        image: "r.corp/app:v1".to_owned(),
        ..image("")
    };
    refused("a tag", Code::INVALID_ARGUMENT, agent.pull_image(context(), &tag).await)?;
    refused(
        "no network",
        Code::FAILED_PRECONDITION,
        agent.pull_image(context(), &image("r.corp/app")).await,
    )?;
    let unpulled = MountLayerRequest {
        slot: 9,
        pulled: true,
        root_hash: vec![1; 32],
        ..Default::default()
    };
    denied("mount_device", agent.mount_layer(context(), &unpulled).await)
}

/// Ports and networks that the policy does not list are denied.
async fn network(vm: &Vm, agent: &AgentClient, context: Deadlined, world: &World) -> Result<()> {
    let token = StreamToken([9; 16]);
    let _stream = open_stream(vm.vsock(), token).await.context("opening a stream")?;
    let forward = ForwardPortRequest {
        container_id: world.container.clone(),
        port: 80,
        stream_token: token.to_field(),
        ..Default::default()
    };
    denied("port_forward", agent.forward_port(context(), &forward).await)?;
    pull(agent, context, world).await?;
    let configure = ConfigureNetworkRequest {
        interface: "eth0".to_owned(),
        addresses: vec!["10.0.0.2/24".to_owned()],
        ..Default::default()
    };
    denied("guest_network", agent.configure_network(context(), &configure).await)
}
