//! Runs a hostile host's requests against decoding and judging, without a guest: what the model refuses is refused, nothing
//! panics, and the policy's state does not change.

use agent_protocol::{
    AttachDiskRequest, ConfigureNetworkRequest, CreateContainerRequest, DeleteProcessRequest, ExecExternalRequest, ExecProcessRequest,
    ListProcessesRequest, LoadFragmentRequest, MountLayerRequest, MountOverlayRequest, MountScratchRequest, MountShareRequest,
    PullImageRequest, ResizeTerminalRequest, SetPolicyRequest, ShutdownContainerRequest, SignalProcessRequest, StartContainerRequest,
    UnmountLayerRequest, UnmountOverlayRequest, UnmountScratchRequest, WaitProcessRequest, WritePodFilesRequest,
};
use hostile_requests::{Sent, Stage, Traffic, World};
use policy::{
    ContainerId, Denied, Enforcer, RootHash,
    action::{
        Action, MountBlockdev, MountDevice, MountOverlay, Plan9Mount, RwMountDevice, RwUnmountDevice, ScratchMount, ShutdownContainer,
        SignalContainerProcess, UnmountDevice,
    },
};
use protobuf::Message;
use ttrpc::Code;

use crate::{
    container::{UserDatabase, exec_action, split},
    decode::{self, CreateOrder, DecodeError, ExecOrder, ExternalOrder, LayerOrder, PullOrder, SignalOrder},
    paths,
};

/// Fixed, so that a failure is reproducible; the story that talks to a VM uses another seed each time.
const SEED: u64 = 0x00ca_5e3a_7e00;
const CONTAINER: &str = "hostile-host-container";
const LAYER: [u8; 32] = [0xab; 32];

fn policy() -> String {
    let rules = policy::POINTS
        .iter()
        .map(|point| format!("{0} := data.framework.{0}\n", point.name));
    format!(
        r#"package policy
api_version := "0.12.0"
framework_version := "0.5.0"
containers := [{{
    "command": ["sleep", "1000"],
    "env_rules": [{{"pattern": "PATH=/bin", "strategy": "string", "required": true}}],
    "layers": ["{}"],
    "mounts": [],
    "exec_processes": [{{"command": ["date"], "signals": []}}],
    "signals": [],
    "user": {{"user_idname": {{"pattern": "", "strategy": "any"}}, "group_idnames": [{{"pattern": "", "strategy": "any"}}], "umask": "0022"}},
    "capabilities": null,
    "seccomp_profile_sha256": "",
    "allow_elevated": false,
    "working_dir": "/",
    "allow_stdio_access": true,
    "no_new_privileges": true,
}}]
{}
reason := data.framework.reason
"#,
        hex::encode(LAYER),
        rules.collect::<String>()
    )
}

fn process(command: &[&str]) -> serde_json::Value {
    let capabilities = policy::data::unprivileged_capabilities();
    serde_json::json!({
        "args": command, "env": ["PATH=/bin"], "cwd": "/", "noNewPrivileges": true,
        "capabilities": {
            "bounding": capabilities.bounding, "effective": capabilities.effective, "permitted": capabilities.permitted,
        },
    })
}

fn world() -> World {
    let spec = |command: &[&str]| serde_json::json!({"process": process(command)}).to_string().into_bytes();
    World {
        container: CONTAINER.to_owned(),
        spec: spec(&["sleep", "1000"]),
        forbidden_spec: spec(&["sleep", "1001"]),
        forbidden_process: process(&["sh"]).to_string().into_bytes(),
        layer: MountLayerRequest {
            data_blocks: 100,
            total_blocks: 102,
            root_hash: LAYER.to_vec(),
            ..Default::default()
        },
    }
}

/// The result of decoding a request.
enum Decoded {
    Layer(LayerOrder),
    NoLayer(u32),
    Scratch(RwMountDevice),
    NoScratch(ContainerId),
    Overlay(ContainerId, Vec<u32>),
    Create(Box<CreateOrder>),
    Exec(Box<ExecOrder>),
    Signal(SignalOrder),
    External(ExternalOrder),
    Share(ContainerId, u32),
    Disk(u32),
    Pull(PullOrder),
    /// No policy is asked about it.
    Unjudged,
}

/// Not a message of its method, or a message that decoding refuses.
struct Refused;

impl From<DecodeError> for Refused {
    fn from(_: DecodeError) -> Self {
        Self
    }
}

impl From<protobuf::Error> for Refused {
    fn from(_: protobuf::Error) -> Self {
        Self
    }
}

fn decoded(sent: &Sent) -> Result<Decoded, Refused> {
    fn message<M: Message>(sent: &Sent) -> Result<M, protobuf::Error> {
        M::parse_from_bytes(&sent.payload)
    }
    let container = |id: &str| decode::container_id(id).map(|_| Decoded::Unjudged);
    Ok(match sent.method {
        "SetPolicy" => decode::policy(message::<SetPolicyRequest>(sent)?).map(|_| Decoded::Unjudged)?,
        "MountLayer" => Decoded::Layer(message::<MountLayerRequest>(sent)?.try_into()?),
        "UnmountLayer" => Decoded::NoLayer(decode::layer_slot(message::<UnmountLayerRequest>(sent)?.slot)?),
        "MountScratch" => {
            let (_, asked) = decode::scratch(&message::<MountScratchRequest>(sent)?)?;
            Decoded::Scratch(asked)
        }
        "UnmountScratch" => Decoded::NoScratch(decode::sandbox_id(&message::<UnmountScratchRequest>(sent)?.sandbox_id)?),
        "MountOverlay" => {
            let (container, _, slots) = decode::overlay(&message::<MountOverlayRequest>(sent)?)?;
            Decoded::Overlay(container, slots)
        }
        "CreateContainer" => Decoded::Create(Box::new(message::<CreateContainerRequest>(sent)?.try_into()?)),
        "ExecProcess" => Decoded::Exec(Box::new(message::<ExecProcessRequest>(sent)?.try_into()?)),
        "SignalProcess" => Decoded::Signal((&message::<SignalProcessRequest>(sent)?).try_into()?),
        "ExecExternal" => Decoded::External(message::<ExecExternalRequest>(sent)?.try_into()?),
        "MountShare" => {
            let request = message::<MountShareRequest>(sent)?;
            Decoded::Share(decode::container_id(&request.container_id)?, decode::share("share", request.share)?)
        }
        "AttachDisk" => Decoded::Disk(decode::share("slot", message::<AttachDiskRequest>(sent)?.slot)?),
        "ConfigureNetwork" => decode::network(message::<ConfigureNetworkRequest>(sent)?).map(|_| Decoded::Unjudged)?,
        "WritePodFiles" => decode::pod_files(message::<WritePodFilesRequest>(sent)?).map(|_| Decoded::Unjudged)?,
        "PullImage" => Decoded::Pull(message::<PullImageRequest>(sent)?.try_into()?),
        "LoadFragment" => {
            let opened = decode::injection(message::<LoadFragmentRequest>(sent)?)?.open();
            opened.map(|_| Decoded::Unjudged)?
        }
        "ResizeTerminal" => decode::resize(&message::<ResizeTerminalRequest>(sent)?).map(|_| Decoded::Unjudged)?,
        "StartContainer" => container(&message::<StartContainerRequest>(sent)?.container_id)?,
        "ListProcesses" => container(&message::<ListProcessesRequest>(sent)?.container_id)?,
        "ShutdownContainer" => container(&message::<ShutdownContainerRequest>(sent)?.container_id)?,
        "UnmountOverlay" => container(&message::<UnmountOverlayRequest>(sent)?.container_id)?,
        "WaitProcess" => container(&message::<WaitProcessRequest>(sent)?.container_id)?,
        "DeleteProcess" => container(&message::<DeleteProcessRequest>(sent)?.container_id)?,
        "PowerOff" => Decoded::Unjudged,
        other => panic!("no such method: {other}"),
    })
}

/// Whether the policy allows it; the change of its state is rolled back.
fn is_allowed(enforcer: &mut Enforcer, request: Decoded) -> bool {
    fn asked<A: Action>(enforcer: &mut Enforcer, action: A) -> bool {
        enforcer.enforce(action).is_ok()
    }
    match request {
        Decoded::Layer(order) => asked(enforcer, MountDevice::new(paths::layer(order.slot), order.root_hash)),
        Decoded::NoLayer(slot) => asked(enforcer, unmount(slot)),
        Decoded::Scratch(action) => asked(enforcer, action),
        Decoded::NoScratch(sandbox) => asked(
            enforcer,
            RwUnmountDevice {
                unmount_target: paths::container(&sandbox),
            },
        ),
        Decoded::Overlay(container, slots) => asked(enforcer, overlay(container, &slots)),
        Decoded::Create(order) => {
            let identity = UserDatabase::default().identify(&order.spec.process.user).unwrap();
            let (action, ..) = split(
                order.spec,
                &order.container,
                &order.sandbox,
                identity,
                &order.limits,
                &crate::pod_files::Present::default(),
            )
            .unwrap();
            asked(enforcer, action)
        }
        Decoded::Exec(order) => {
            let identity = UserDatabase::default().identify(&order.process.user).unwrap();
            asked(enforcer, exec_action(order.process, &order.container, identity).0)
        }
        Decoded::Signal(order) => asked(
            enforcer,
            SignalContainerProcess {
                container_id: order.container,
                signal: order.signal,
                is_init_process: true,
                arg_list: Some(vec!["sleep".to_owned(), "1000".to_owned()]),
            },
        ),
        Decoded::External(order) => asked(enforcer, order.action),
        Decoded::Share(container, share) => asked(enforcer, Plan9Mount::new(paths::share(&container, share))),
        Decoded::Disk(slot) => asked(enforcer, MountBlockdev { target: paths::disk(slot) }),
        Decoded::Pull(order) => asked(enforcer, order.action),
        Decoded::Unjudged => unreachable!("the model expects the policy to judge it"),
    }
}

fn unmount(slot: u32) -> UnmountDevice {
    UnmountDevice {
        unmount_target: paths::layer(slot),
    }
}

fn overlay(container: ContainerId, slots: &[u32]) -> MountOverlay {
    MountOverlay {
        layer_paths: slots.iter().map(|&slot| paths::layer(slot)).collect(),
        target: paths::rootfs(&container),
        container_id: container,
    }
}

/// Moves the guest from one stage to the next with allowed requests.
fn advance(enforcer: &mut Enforcer, to: Stage) -> Result<(), Denied> {
    let container = ContainerId::new(CONTAINER);
    match to {
        Stage::Closed | Stage::Open => {}
        Stage::Mounted => {
            enforcer.enforce(MountDevice::new(paths::layer(0), RootHash::new(&LAYER)))?.commit();
            enforcer
                .enforce(RwMountDevice::on_disk(paths::container(&container), true))?
                .commit();
            let scratch = ScratchMount {
                target: paths::scratch(&container, &container),
                encrypted: true,
            };
            enforcer.enforce(scratch)?.commit();
            enforcer.enforce(overlay(container, &[0]))?.commit();
        }
        Stage::Running => {
            let request = CreateContainerRequest {
                container_id: CONTAINER.to_owned(),
                sandbox_id: CONTAINER.to_owned(),
                spec: world().spec,
                ..Default::default()
            };
            let order = CreateOrder::try_from(request).unwrap();
            let identity = UserDatabase::default().identify(&order.spec.process.user).unwrap();
            let (action, ..) = split(
                order.spec,
                &order.container,
                &order.sandbox,
                identity,
                &order.limits,
                &crate::pod_files::Present::default(),
            )
            .unwrap();
            enforcer.enforce(action)?.commit();
        }
    }
    Ok(())
}

#[test]
fn what_the_model_refuses_is_refused_and_changes_no_state() {
    let mut traffic = Traffic::new(SEED, world(), 25);
    let mut enforcer = Enforcer::new(&policy()).unwrap();
    let mut judged = 0;
    for stage in [Stage::Closed, Stage::Open, Stage::Mounted, Stage::Running] {
        advance(&mut enforcer, stage).unwrap();
        for n in 0..10_000 {
            let sent = traffic.next(stage);
            let decoded = decoded(&sent);
            let context = || format!("{n} at {stage:?}: {sent:?}");
            if sent.allowed == [Code::INVALID_ARGUMENT] {
                assert!(decoded.is_err(), "taken: {}", context());
            }
            if !sent.allowed.contains(&Code::INVALID_ARGUMENT) {
                let Ok(decoded) = decoded else { panic!("refused: {}", context()) };
                if sent.allowed == [Code::PERMISSION_DENIED] && sent.method != "SetPolicy" {
                    judged += 1;
                    assert!(!is_allowed(&mut enforcer, decoded), "allowed: {}", context());
                } else if sent.allowed.contains(&Code::PERMISSION_DENIED) && sent.method != "SetPolicy" {
                    is_allowed(&mut enforcer, decoded);
                }
            }
        }
    }
    assert!(judged > 500, "the policy was asked {judged} times");
    // The policy judges as if nothing had been asked.
    let container_id = ContainerId::new(CONTAINER);
    let exec = ExecProcessRequest {
        container_id: CONTAINER.to_owned(),
        exec_id: "date".to_owned(),
        process: process(&["date"]).to_string().into_bytes(),
        ..Default::default()
    };
    assert!(is_allowed(&mut enforcer, Decoded::Exec(Box::new(exec.try_into().unwrap()))));
    enforcer.enforce(ShutdownContainer { container_id }).unwrap().commit();
    enforcer.enforce(unmount(0)).unwrap().commit();
    assert!(!enforcer.is_poisoned());
}
