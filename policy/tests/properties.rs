//! Requests that are rolled back or denied do not change the answers to later requests.

use std::fmt::Debug;

use policy::action::{
    Action, CreateContainer, DumpStacks, ExecInContainer, IdName, LoadFragment, MountDevice, MountOverlay, ShutdownContainer,
    SignalContainerProcess, UnmountDevice, UnmountOverlay,
};
use policy::{ContainerId, Enforcer, POINTS, Permit, RootHash, data};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Fragments of one issuer: `f` may include everything, `g` containers from version 2 on.
const FRAGMENTS: &str = r#"fragments := [
    {"issuer": "i", "feed": "f", "minimum_svn": "1", "includes": ["containers", "fragments", "external_processes", "namespace"]},
    {"issuer": "i", "feed": "g", "minimum_svn": "2", "includes": ["containers"]},
]
"#;
/// Additions of a strict policy: a rule that denies with a metadata command, and a fragment that the policy allows with the first of
/// two parameter sets and denies with the second.
const STRICT: &str = r#"strict := true
fragments := [
    {"issuer": "i", "feed": "f", "minimum_svn": "1", "includes": ["containers", "fragments", "external_processes", "namespace"]},
    {"issuer": "i", "feed": "g", "minimum_svn": "2", "includes": ["containers"]},
    {"issuer": "i", "feed": "p", "minimum_svn": "1", "includes": ["containers"], "parameters": {"svn": "2"}},
    {"issuer": "i", "feed": "p", "minimum_svn": "1", "includes": ["containers"], "parameters": {"svn": "0"}},
]
dump_stacks := {"allowed": false, "metadata": [
    {"name": "devices", "action": "update", "key": "/run/mounts/scsi/m0", "value": "none"},
    {"name": "own", "action": "update", "key": "x", "value": input},
]}
"#;

fn container(command: &str, layers: &[u8]) -> Value {
    let layers: Vec<String> = layers
        .iter()
        .map(|layer| RootHash::new(&[*layer; 32]).as_str().to_owned())
        .collect();
    json!({
        "command": [command], "env_rules": [{"pattern": "A=[01]", "strategy": "re2", "required": false}], "layers": layers, "mounts": [],
        "exec_processes": [{"command": ["probe"], "signals": [9]}], "signals": [15],
        "user": {"user_idname": {"pattern": "", "strategy": "any"}, "group_idnames": [{"pattern": "", "strategy": "any"}], "umask": "0022"},
        "capabilities": null, "seccomp_profile_sha256": "", "allow_elevated": false, "working_dir": "/", "allow_stdio_access": true,
        "no_new_privileges": false,
    })
}

fn policy(strict: bool) -> String {
    let containers = [container("a", &[0, 1]), container("b", &[0, 1]), container("a", &[2])];
    let mut text = format!(
        "package policy\napi_version := \"0.12.0\"\nframework_version := \"0.5.0\"\n{}containers := {}\n",
        if strict { STRICT } else { FRAGMENTS },
        Value::from(containers.to_vec())
    );
    for point in POINTS.iter().filter(|point| !strict || point.name != "dump_stacks") {
        text.push_str(&format!("{0} := data.framework.{0}\n", point.name));
    }
    text + "reason := data.framework.reason\n"
}

/// A request from a small set of ids and paths, so that requests interact.
#[derive(Debug, Clone, Copy)]
enum Request {
    Mount { target: u8, layer: u8 },
    Unmount { target: u8 },
    Overlay { container: u8, targets: [u8; 2], one: bool },
    UnmountOverlay { container: u8 },
    Create { container: u8, command: bool, environment: u8 },
    Exec { container: u8, command: bool },
    Signal { container: u8, init: bool, signal: i32 },
    Shutdown { container: u8 },
    Fragment { kind: u8 },
    DumpStacks,
}

fn request() -> impl Strategy<Value = Request> {
    let container = 0..2u8;
    prop_oneof![
        4 => (0..3u8, 0..4u8).prop_map(|(target, layer)| Request::Mount { target, layer }),
        1 => (0..3u8).prop_map(|target| Request::Unmount { target }),
        4 => (container.clone(), [0..3u8, 0..3u8], prop::bool::weighted(0.3))
            .prop_map(|(container, targets, one)| Request::Overlay { container, targets, one }),
        1 => container.clone().prop_map(|container| Request::UnmountOverlay { container }),
        4 => (container.clone(), any::<bool>(), 0..3u8)
            .prop_map(|(container, command, environment)| Request::Create { container, command, environment }),
        3 => (container.clone(), any::<bool>()).prop_map(|(container, command)| Request::Exec { container, command }),
        2 => (container.clone(), any::<bool>(), prop::sample::select(vec![9, 15]))
            .prop_map(|(container, init, signal)| Request::Signal { container, init, signal }),
        1 => container.prop_map(|container| Request::Shutdown { container }),
        3 => (0..7u8).prop_map(|kind| Request::Fragment { kind }),
        1 => Just(Request::DumpStacks),
    ]
}

fn id(container: u8) -> ContainerId {
    ContainerId::new(&format!("container-{container}"))
}

fn target(index: u8) -> String {
    format!("/run/mounts/scsi/m{index}")
}

/// Texts that load, that add nothing, that are too old, that are damaged, and that replace another.
fn fragment(kind: u8) -> LoadFragment {
    let text = |namespace: &str, svn: &str, more: &str| {
        let containers = Value::from(vec![container("c", &[3]), container("a", &[0, 1])]);
        format!("package {namespace}\nsvn := {svn}\nframework_version := \"0.5.0\"\ncontainers := {containers}\n{more}")
    };
    let (feed, text) = match kind {
        0 => ("f", text("one", "\"1\"", "")),
        1 => ("f", text("one", "\"2\"", "mount_device := {\"allowed\": true}\n")),
        2 => ("g", text("two", "\"1\"", "")),
        3 => ("g", text("two", "\"2\"", "")),
        4 => ("g", text("one", "\"2\"", "x := [")),
        5 => ("p", text("parameters", "parameter(\"svn\")", "")),
        _ => ("g", text("one", "\"2\"", "")),
    };
    LoadFragment {
        issuer: "i".to_owned(),
        feed: feed.to_owned(),
        header_svn: None,
        text,
        receipts: Vec::new(),
    }
}

impl Request {
    /// The observable answer, and whether the request is allowed.
    fn ask(self, enforcer: &mut Enforcer, keep: bool) -> (String, bool) {
        match self {
            Self::Mount { target: at, layer } => {
                let action = MountDevice::new(target(at), RootHash::new(&[layer; 32]));
                judged(enforcer.enforce(action), keep)
            }
            Self::Unmount { target: at } => {
                let action = UnmountDevice {
                    unmount_target: target(at),
                };
                judged(enforcer.enforce(action), keep)
            }
            Self::Overlay { container, targets, one } => {
                let action = MountOverlay {
                    container_id: id(container),
                    layer_paths: targets.into_iter().take(if one { 1 } else { 2 }).map(target).collect(),
                    target: rootfs(container),
                };
                judged(enforcer.enforce(action), keep)
            }
            Self::UnmountOverlay { container } => {
                let action = UnmountOverlay {
                    unmount_target: rootfs(container),
                };
                judged(enforcer.enforce(action), keep)
            }
            Self::Create {
                container,
                command,
                environment,
            } => judged(enforcer.enforce(create(container, command, environment)), keep),
            Self::Exec { container, command } => {
                let CreateContainer {
                    container_id,
                    env_list,
                    working_dir,
                    user,
                    groups,
                    umask,
                    capabilities,
                    ..
                } = create(container, true, 0);
                let action = ExecInContainer {
                    container_id,
                    arg_list: vec![if command { "probe" } else { "sh" }.to_owned()],
                    env_list,
                    working_dir,
                    no_new_privileges: false,
                    user,
                    groups,
                    umask,
                    capabilities,
                };
                judged(enforcer.enforce(action), keep)
            }
            Self::Signal { container, init, signal } => {
                let action = SignalContainerProcess {
                    container_id: id(container),
                    signal,
                    is_init_process: init,
                    arg_list: Some(vec![if init { "a" } else { "probe" }.to_owned()]),
                };
                judged(enforcer.enforce(action), keep)
            }
            Self::Shutdown { container } => {
                let action = ShutdownContainer {
                    container_id: id(container),
                };
                judged(enforcer.enforce(action), keep)
            }
            Self::Fragment { kind } => judged(enforcer.enforce(fragment(kind)), keep),
            Self::DumpStacks => judged(enforcer.enforce(DumpStacks {}), keep),
        }
    }
}

fn rootfs(container: u8) -> String {
    format!("/run/gcs/c/{}/rootfs", id(container).as_hex())
}

fn create(container: u8, command: bool, environment: u8) -> CreateContainer {
    CreateContainer {
        container_id: id(container),
        arg_list: vec![if command { "a" } else { "b" }.to_owned()],
        env_list: vec![format!("A={environment}")],
        working_dir: "/".to_owned(),
        sandbox_dir: String::new(),
        huge_pages_dir: String::new(),
        mounts: Vec::new(),
        devices: Vec::new(),
        privileged: false,
        no_new_privileges: false,
        user: IdName::new(0, "root"),
        groups: vec![IdName::new(0, "root")],
        umask: "0022".to_owned(),
        capabilities: Some(data::unprivileged_capabilities()),
        seccomp_profile_sha256: String::new(),
        is_sandbox_container: false,
    }
}

fn judged<A: Action>(answer: Result<Permit<'_, A>, policy::Denied>, keep: bool) -> (String, bool)
where
    A::Verdict: Debug,
{
    match answer {
        Ok(permit) => {
            let seen = format!("{:?} {:?}", permit.answer(), permit.verdict());
            if keep {
                permit.commit();
            }
            (seen, true)
        }
        Err(denied) => (denied.to_string(), false),
    }
}

/// Runs `before`, then perhaps a request, then `after`. Returns the answers to `after`, and whether the request was allowed.
fn answers(strict: bool, before: &[Request], something: Option<(Request, bool)>, after: &[Request]) -> (Vec<String>, Option<bool>) {
    let mut enforcer = Enforcer::new(&policy(strict)).expect("the policy loads");
    for request in before {
        request.ask(&mut enforcer, true);
    }
    let allowed = something.map(|(request, keep)| request.ask(&mut enforcer, keep).1);
    let seen = after.iter().map(|request| request.ask(&mut enforcer, true).0).collect();
    (seen, allowed)
}

/// Mostly requests whose denial changes state under a policy that is not strict: metadata commands, and partly loaded fragments.
fn denied() -> impl Strategy<Value = Request> {
    prop_oneof![
        2 => request(),
        1 => Just(Request::DumpStacks),
        1 => Just(Request::Fragment { kind: 5 }),
    ]
}

fn requests(most: usize) -> impl Strategy<Value = Vec<Request>> {
    prop::collection::vec(request(), 0..most)
}

/// Containers in every stage, so that later requests can interfere.
fn running() -> Vec<Request> {
    let (container, command, environment) = (0, true, 0);
    vec![
        Request::Mount { target: 0, layer: 0 },
        Request::Mount { target: 1, layer: 1 },
        Request::Overlay {
            container,
            targets: [1, 0],
            one: false,
        },
        Request::Create {
            container,
            command,
            environment,
        },
    ]
}

/// Nothing, or the requests that start a container.
fn before() -> impl Strategy<Value = Vec<Request>> {
    (any::<bool>(), requests(8)).prop_map(|(runs, more)| {
        let start = if runs { running() } else { Vec::new() };
        start.into_iter().chain(more).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_permit_that_is_dropped_leaves_no_trace(strict: bool, before in before(), undone in request(), after in requests(8)) {
        // Without `strict` a denial may change state, as in hcsshim.
        let (with, allowed) = answers(strict, &before, Some((undone, false)), &after);
        prop_assume!(allowed == Some(true));
        let (without, _) = answers(strict, &before, None, &after);
        prop_assert_eq!(with, without);
    }

    #[test]
    fn a_denied_request_leaves_no_trace(strict: bool, before in before(), denied in denied(), after in requests(16)) {
        let (with, allowed) = answers(strict, &before, Some((denied, true)), &after);
        prop_assume!(allowed == Some(false));
        let (without, _) = answers(strict, &before, None, &after);
        prop_assert_eq!(with, without);
    }
}

#[test]
fn every_kind_of_request_is_allowed_and_denied_somewhere() {
    let mut enforcer = Enforcer::new(&policy(true)).unwrap();
    for request in running() {
        let (seen, allowed) = request.ask(&mut enforcer, true);
        assert!(allowed, "{request:?}: {seen}");
    }
    for (kind, expected) in [(0, true), (1, true), (2, false), (3, true), (4, false), (5, false), (6, false)] {
        let (seen, allowed) = Request::Fragment { kind }.ask(&mut enforcer, true);
        assert_eq!(allowed, expected, "fragment {kind}: {seen}");
    }
}
