mod texts;

use proptest::prelude::*;

use super::*;
use crate::action::{
    Capabilities, CreateContainer, ExecInContainer, IdName, LoadFragment, MountDevice, MountOverlay, RwMountDevice, ScratchMount,
    ShutdownContainer, SignalContainerProcess, UnmountDevice, UnmountOverlay,
};
use crate::ids::{ContainerId, RootHash};
use crate::{OPEN_DOOR, data, extract_decision};

const LAYER: [u8; 32] = [0xab; 32];

/// A policy of one container with one layer that uses the rules of the framework.
fn policy(extra: &str) -> String {
    let rules: String = crate::POINTS
        .iter()
        .map(|point| format!("{0} := data.framework.{0}\n", point.name))
        .collect();
    format!(
        r#"package policy
api_version := "0.12.0"
framework_version := "0.5.0"
containers := [{{
    "command": ["redis-server"],
    "env_rules": [{{"pattern": "PATH=/bin", "strategy": "string", "required": true}},
                  {{"pattern": "NONCE=[0-9a-f]+", "strategy": "re2", "required": false}}],
    "layers": ["{}"],
    "mounts": [],
    "exec_processes": [{{"command": ["redis-cli", "ping"], "signals": [15]}}],
    "signals": [9, 15],
    "user": {{"user_idname": {{"pattern": "", "strategy": "any"}}, "group_idnames": [{{"pattern": "", "strategy": "any"}}], "umask": "0022"}},
    "capabilities": null,
    "seccomp_profile_sha256": "",
    "allow_elevated": false,
    "working_dir": "/",
    "allow_stdio_access": true,
    "no_new_privileges": true,
}}]
{extra}
{rules}
reason := data.framework.reason
"#,
        hex::encode(LAYER)
    )
}

fn enforcer() -> Enforcer {
    Enforcer::new(&policy("")).unwrap()
}

fn id() -> ContainerId {
    ContainerId::new("nginx")
}

fn mount_layer() -> MountDevice {
    MountDevice::new("/run/mounts/scsi/m0", RootHash::new(&LAYER))
}

fn overlay() -> MountOverlay {
    MountOverlay {
        container_id: id(),
        layer_paths: vec!["/run/mounts/scsi/m0".to_owned()],
        target: format!("/run/gcs/c/{}/rootfs", id().as_hex()),
    }
}

fn create(command: &[&str], env: &[&str]) -> CreateContainer {
    CreateContainer {
        container_id: id(),
        arg_list: command.iter().map(|arg| (*arg).to_owned()).collect(),
        env_list: env.iter().map(|entry| (*entry).to_owned()).collect(),
        working_dir: "/".to_owned(),
        sandbox_dir: String::new(),
        huge_pages_dir: String::new(),
        mounts: Vec::new(),
        devices: Vec::new(),
        privileged: false,
        no_new_privileges: true,
        user: IdName::new(0, "root"),
        groups: vec![IdName::new(0, "root")],
        umask: "0022".to_owned(),
        capabilities: Some(data::unprivileged_capabilities()),
        seccomp_profile_sha256: String::new(),
        is_sandbox_container: false,
    }
}

fn exec(command: &[&str]) -> ExecInContainer {
    ExecInContainer {
        container_id: id(),
        arg_list: command.iter().map(|arg| (*arg).to_owned()).collect(),
        env_list: vec!["PATH=/bin".to_owned()],
        working_dir: "/".to_owned(),
        no_new_privileges: true,
        user: IdName::new(0, "root"),
        groups: Vec::new(),
        umask: "0022".to_owned(),
        capabilities: Some(data::unprivileged_capabilities()),
    }
}

fn start(enforcer: &mut Enforcer) {
    enforcer.enforce(mount_layer()).unwrap().commit();
    enforcer.enforce(overlay()).unwrap().commit();
    enforcer.enforce(create(&["redis-server"], &["PATH=/bin"])).unwrap().commit();
}

fn denied<A: Action>(enforcer: &mut Enforcer, action: A) -> Denied {
    enforcer.enforce(action).err().expect("denied")
}

#[test]
fn a_container_is_mounted_created_signalled_and_shut_down() {
    let mut enforcer = enforcer();
    start(&mut enforcer);
    let permit = enforcer.enforce(exec(&["redis-cli", "ping"])).unwrap();
    assert_eq!(permit.verdict().env, ["PATH=/bin"]);
    assert!(permit.verdict().stdio, "as decided for the container");
    permit.commit();
    let signal = |signal, is_init_process| SignalContainerProcess {
        container_id: id(),
        signal,
        is_init_process,
        arg_list: Some(vec!["redis-cli".to_owned(), "ping".to_owned()]),
    };
    enforcer.enforce(signal(15, false)).unwrap().commit();
    assert_eq!(
        denied(&mut enforcer, signal(9, false)).reasons(),
        ["target isn't allowed to receive the signal"]
    );
    enforcer.enforce(signal(9, true)).unwrap().commit();
    enforcer.enforce(ShutdownContainer { container_id: id() }).unwrap().commit();
    enforcer
        .enforce(UnmountOverlay {
            unmount_target: overlay().target,
        })
        .unwrap()
        .commit();
    enforcer
        .enforce(UnmountDevice {
            unmount_target: "/run/mounts/scsi/m0".to_owned(),
        })
        .unwrap()
        .commit();
}

#[test]
fn denials_have_a_sentence_with_the_cause() {
    let mut enforcer = enforcer();
    enforcer.enforce(mount_layer()).unwrap().commit();
    enforcer.enforce(overlay()).unwrap().commit();
    let other = denied(&mut enforcer, create(&["sh"], &["PATH=/bin"]));
    assert_eq!(
        other.summary(),
        "container \"nginx\" may not start: command is not in the policy (rule create_container)"
    );
    assert!(
        other
            .to_string()
            .starts_with(&format!("denied by policy: {}. policyDecision< ", other.summary()))
    );
    assert!(other.to_string().ends_with(" >policyDecision"));
    assert_eq!(other.reasons(), ["invalid command"]);

    let secret = denied(&mut enforcer, create(&["redis-server"], &["PATH=/bin", "SECRET=xyzzy"]));
    assert!(
        secret.summary().contains("environment variable SECRET is not in the policy"),
        "{secret}"
    );
    let decision = extract_decision(&secret.to_string()).unwrap();
    assert_eq!(
        decision["input"]["envList"],
        serde_json::json!(["PATH=<<redacted>>", "SECRET=<<redacted>>"])
    );
    assert_eq!(decision["input"]["capabilities"], "[unprivileged]");

    let changed = denied(&mut enforcer, MountDevice::new("/run/mounts/scsi/m1", RootHash::new(&[1; 32])));
    assert!(changed.summary().contains("layer hash 0101"), "{changed}");
    start_only(&mut enforcer);
    let unlisted = denied(&mut enforcer, exec(&["sh"]));
    assert_eq!(
        unlisted.summary(),
        "process may not start in container \"nginx\": command is not in the policy (rule exec_in_container)"
    );
}

fn start_only(enforcer: &mut Enforcer) {
    enforcer.enforce(create(&["redis-server"], &["PATH=/bin"])).unwrap().commit();
}

#[test]
fn a_dropped_permit_is_rolled_back() {
    let mut enforcer = enforcer();
    enforcer.enforce(mount_layer()).unwrap().commit();
    enforcer.enforce(overlay()).unwrap().commit();
    let before = enforcer.snapshot();
    drop(enforcer.enforce(create(&["redis-server"], &["PATH=/bin"])).unwrap());
    assert_eq!(enforcer.snapshot().state, before.state);
    assert!(enforcer.memory.stdio.is_empty());
    start_only(&mut enforcer);
    assert_eq!(
        denied(&mut enforcer, create(&["redis-server"], &["PATH=/bin"])).reasons(),
        ["container already started"]
    );
}

#[test]
fn a_dropped_transaction_rolls_back_committed_permits() {
    let mut enforcer = enforcer();
    enforcer.enforce(mount_layer()).unwrap().commit();
    let before = enforcer.snapshot().state;
    let mut transaction = enforcer.transaction();
    transaction
        .enforce(ScratchMount {
            target: "/scratch".to_owned(),
            encrypted: true,
        })
        .unwrap()
        .commit();
    transaction.enforce(overlay()).unwrap().commit();
    drop(transaction);
    assert_eq!(enforcer.snapshot().state, before);
    let mut transaction = enforcer.transaction();
    transaction
        .enforce(ScratchMount {
            target: "/scratch".to_owned(),
            encrypted: true,
        })
        .unwrap()
        .commit();
    transaction.commit();
    assert_ne!(enforcer.snapshot().state, before);
}

#[test]
fn a_policy_may_require_scratch_in_memory() {
    let target = format!("/run/gcs/c/{}", id().as_hex());
    let (disk, memory) = (RwMountDevice::on_disk(&target, true), RwMountDevice::in_memory(&target));
    let allows = |extra: &str, action: &RwMountDevice| Enforcer::new(&policy(extra)).unwrap().enforce(action.clone()).is_ok();
    for (extra, on_disk, in_memory) in [
        ("", true, true),
        ("scratch_medium := \"memory\"", false, true),
        ("scratch_medium := \"disk\"", true, false),
        ("scratch_medium := \"ram\"", false, false),
        ("scratch_medium := false", false, false),
        ("scratch_medium contains \"memory\"", false, false),
    ] {
        assert_eq!((allows(extra, &disk), allows(extra, &memory)), (on_disk, in_memory), "{extra}");
    }
    // The framework decides for a policy that is older than the point.
    let older = policy("scratch_medium := \"memory\"")
        .replace("\"0.12.0\"", "\"0.10.0\"")
        .replace("rw_mount_device := data.framework.rw_mount_device\n", "");
    assert!(Enforcer::new(&older).unwrap().enforce(disk.clone()).is_err());
    assert!(Enforcer::new(&older).unwrap().enforce(memory).is_ok());

    let denial = denied(&mut Enforcer::new(&policy("scratch_medium := \"memory\"")).unwrap(), disk.clone());
    assert!(denial.to_string().contains("requires scratch in the guest's memory"), "{denial}");
    let input = serde_json::to_value(disk).unwrap();
    assert!(input.get("medium").is_none(), "hcsshim's input has no such field: {input}");
}

#[test]
fn a_rule_that_is_undefined_fails_or_has_the_wrong_type_denies() {
    for (rule, error) in [
        ("", "rule for unmount_device is missing from policy"),
        ("unmount_device := true", "unable to load results object from Rego query"),
        ("unmount_device := {\"allowed\": 1}", "value for 'allowed' is not a boolean"),
        (
            "unmount_device := {\"allowed\": true, \"metadata\": {}}",
            "error loading metadata array: invalid type",
        ),
        (
            "unmount_device := {\"allowed\": true} if input.unmountTarget\nunmount_device := {\"allowed\": false} if true",
            "",
        ),
    ] {
        let mut enforcer = Enforcer::new(&format!("package policy\napi_version := \"0.12.0\"\n{rule}\n")).unwrap();
        let denied = denied(
            &mut enforcer,
            UnmountDevice {
                unmount_target: "/m".to_owned(),
            },
        );
        let decision = extract_decision(&denied.to_string()).unwrap();
        let policy_error = decision["policyError"].as_str().unwrap();
        assert!(error.is_empty() || policy_error == error, "{rule}: {policy_error}");
    }
}

/// In hcsshim's framework both names define one rule, which then has two values.
#[test]
fn two_names_of_a_version_must_not_differ() {
    let decide = |versions: &str| {
        let text = format!("package policy\n{versions}\nunmount_device := {{\"allowed\": true}}\nreason := data.framework.reason\n");
        let mut enforcer = Enforcer::new(&text).unwrap();
        enforcer
            .enforce(UnmountDevice {
                unmount_target: "/m".to_owned(),
            })
            .map(|permit| permit.commit())
    };
    assert!(decide("api_version := \"0.12.0\"\napi_svn := \"0.12.0\"").is_ok());
    assert!(decide("api_version := \"0.12.0\"\napi_svn := \"0.11.0\"").is_err());
    assert!(decide("api_svn := \"0.11.0\"").is_ok());
}

#[test]
fn an_older_policy_gets_the_defaults_of_its_version() {
    let mut enforcer = Enforcer::new("package policy\napi_version := \"0.1.0\"\n").unwrap();
    enforcer
        .enforce(UnmountDevice {
            unmount_target: "/m".to_owned(),
        })
        .unwrap()
        .commit();
    assert!(enforcer.enforce(mount_layer()).is_err());
}

#[test]
fn a_policy_has_metadata_names_of_its_own() {
    let text = "package policy\napi_version := \"0.12.0\"\n\
        unmount_device := {\"allowed\": true, \"metadata\": [{\"name\": \"odd name\", \"action\": \"add\", \"key\": \"k\", \"value\": 1}]} \
        if not data.metadata[\"odd name\"].k\n";
    let mut enforcer = Enforcer::new(text).unwrap();
    let unmount = || UnmountDevice {
        unmount_target: "/m".to_owned(),
    };
    drop(enforcer.enforce(unmount()).unwrap());
    enforcer.enforce(unmount()).unwrap().commit();
    assert!(enforcer.enforce(unmount()).is_err(), "remembered");
}

#[test]
fn the_open_door_allows_everything_unchanged() {
    let mut enforcer = Enforcer::new(OPEN_DOOR).unwrap();
    let permit = enforcer.enforce(create(&["anything"], &["A=1", "A=1"])).unwrap();
    assert_eq!(permit.verdict().env, ["A=1", "A=1"]);
    assert!(permit.verdict().stdio);
    permit.commit();
}

#[test]
fn the_open_door_of_the_wire_is_the_same_text() {
    assert_eq!(OPEN_DOOR, include_str!("../../../guest-agent/protocol/src/open_door.rego"));
}

#[test]
fn missing_capabilities_are_refused_without_evaluation() {
    let mut enforcer = Enforcer::new(OPEN_DOOR).unwrap();
    let denied = denied(
        &mut enforcer,
        CreateContainer {
            capabilities: None,
            ..create(&["sh"], &[])
        },
    );
    assert_eq!(
        denied.decision(),
        "capabilities object provided by the UVM to the policy engine is nil"
    );
}

#[test]
fn an_invalid_policy_does_not_load() {
    for text in [
        "",
        "{\"allow_all\":true}",
        "package policy\nx = y { true }\n",
        "package policy\nallow if {\n",
        "package policy\nx := {\"a\": y}\n",
    ] {
        assert!(Enforcer::new(text).is_err(), "{text:?}");
    }
    assert!(matches!(
        Enforcer::new(&" ".repeat(crate::MAX_POLICY_BYTES + 1)),
        Err(PolicyError::TooLarge(_))
    ));
}

#[test]
fn a_long_line_loads() {
    let text = format!("package policy\napi_version := \"0.12.0\"\nx := \"{}\"\n", "y".repeat(100_000));
    assert!(Enforcer::new(&text).is_ok());
}

#[test]
fn when_state_cannot_be_restored_everything_is_denied() {
    let mut enforcer = Enforcer::new(OPEN_DOOR).unwrap();
    enforcer.poisoned = true;
    assert!(denied(&mut enforcer, mount_layer()).to_string().contains("everything is denied"));
}

#[test]
fn an_enforcer_can_move_between_threads() {
    fn sendable<T: Send>(_: &T) {}
    sendable(&enforcer());
}

/// An import of the whole package must not change decisions.
#[test]
fn an_imported_framework_decides_the_same() {
    let text = policy("")
        .replace("package policy\n", "package policy\nimport data.framework\n")
        .replace("data.framework.", "framework.");
    let mut enforcer = Enforcer::new(&text).unwrap();
    start(&mut enforcer);
    assert_eq!(denied(&mut enforcer, mount_layer()).reasons(), ["device already mounted at path"]);
    assert_eq!(
        denied(&mut enforcer, create(&["redis-server"], &["PATH=/bin"])).reasons(),
        ["container already started"]
    );
    enforcer.enforce(exec(&["redis-cli", "ping"])).unwrap().commit();
}

#[test]
fn capabilities_are_dropped_only_if_the_policy_allows_it() {
    let more = || Capabilities {
        ambient: vec!["CAP_SYS_ADMIN".to_owned()],
        ..data::unprivileged_capabilities()
    };
    for (extra, allowed) in [("", false), ("allow_capability_dropping := true", true)] {
        let mut enforcer = Enforcer::new(&policy(extra)).unwrap();
        enforcer.enforce(mount_layer()).unwrap().commit();
        enforcer.enforce(overlay()).unwrap().commit();
        let asked = CreateContainer {
            capabilities: Some(more()),
            ..create(&["redis-server"], &["PATH=/bin"])
        };
        match enforcer.enforce(asked) {
            Ok(permit) => {
                assert!(allowed);
                assert_eq!(permit.verdict().capabilities, data::unprivileged_capabilities());
                permit.commit();
            }
            Err(denied) => {
                assert!(!allowed);
                assert_eq!(denied.reasons(), ["capabilities don't match"]);
            }
        };
    }
}

/// Requests that a host may send in any order.
#[derive(Debug, Clone)]
enum Request {
    Layer(u8),
    Overlay,
    Create(bool),
    Exec(bool),
    Shutdown,
    Unmount(u8),
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        (0..3u8).prop_map(Request::Layer),
        Just(Request::Overlay),
        any::<bool>().prop_map(Request::Create),
        any::<bool>().prop_map(Request::Exec),
        Just(Request::Shutdown),
        (0..3u8).prop_map(Request::Unmount),
    ]
}

/// Runs a request, and returns whether it is allowed.
fn run(enforcer: &mut Enforcer, request: &Request, commit: bool) -> bool {
    fn settle<A: Action>(result: Result<Permit<'_, A>, Denied>, commit: bool) -> bool {
        match result {
            Ok(permit) if commit => {
                permit.commit();
                true
            }
            Ok(_) => true,
            Err(_) => false,
        }
    }
    let layer = |n: &u8| format!("/run/mounts/scsi/m{n}");
    match request {
        Request::Layer(n) => settle(enforcer.enforce(MountDevice::new(layer(n), RootHash::new(&LAYER))), commit),
        Request::Overlay => settle(enforcer.enforce(overlay()), commit),
        Request::Create(right) => settle(
            enforcer.enforce(create(&[if *right { "redis-server" } else { "sh" }], &["PATH=/bin"])),
            commit,
        ),
        Request::Exec(right) => settle(enforcer.enforce(exec(&["redis-cli", if *right { "ping" } else { "x" }])), commit),
        Request::Shutdown => settle(enforcer.enforce(ShutdownContainer { container_id: id() }), commit),
        Request::Unmount(n) => settle(enforcer.enforce(UnmountDevice { unmount_target: layer(n) }), commit),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Denied requests and dropped permits change nothing: leaving them out gives the same decisions and the same state.
    #[test]
    fn only_committed_permits_are_remembered(requests in prop::collection::vec((request(), any::<bool>()), 1..12)) {
        let (mut all, mut kept) = (enforcer(), enforcer());
        for (request, commit) in requests {
            let before = all.snapshot().state;
            let allowed = run(&mut all, &request, commit);
            if allowed && commit {
                prop_assert!(run(&mut kept, &request, true));
            } else {
                prop_assert_eq!(all.snapshot().state, before);
            }
            prop_assert_eq!(all.snapshot().state, kept.snapshot().state);
        }
    }
}
