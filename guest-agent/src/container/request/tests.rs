//! The launcher gets what was judged, within the agent's own confinement.

use super::*;
use crate::{
    container::{
        spec::{exec_action, split},
        user::UserDatabase,
    },
    decode::{Limits, ProcessSpec, User as HostUser},
};
use launcher_protocol::NamespaceKind;
use nix::unistd::Pid;
use policy::ContainerId;
use serde_json::{Value, json};

/// A create_container action, the confinement that the agent chooses if no policy judges it, and the rest.
fn split_spec(spec: Value) -> (CreateContainer, Confinement, UnjudgedSpec) {
    let user = HostUser {
        uid: 3,
        gid: 4,
        ..HostUser::default()
    };
    let identity = UserDatabase::default().identify(&user).unwrap();
    let spec = serde_json::from_value(spec).unwrap();
    let (action, requested, unjudged) = split(
        spec,
        &ContainerId::new("c"),
        &ContainerId::new("s"),
        identity,
        &Limits::default(),
        &crate::pod_files::Present::default(),
    )
    .unwrap();
    let mut enforcer = policy::Enforcer::new(policy::OPEN_DOOR).unwrap();
    let confinement = Confinement::of(enforcer.enforce(requested).unwrap(), false).unwrap();
    (action, confinement, unjudged)
}

fn own_namespaces() -> Namespaces {
    Namespaces::of(Pid::this()).unwrap()
}

fn container(spec: Value) -> Container {
    let (action, confinement, unjudged) = split_spec(spec);
    let namespaces = confinement.namespaces(Some(&own_namespaces())).unwrap();
    let variable = Some("AGENTS=own".to_owned());
    match of_container(
        &action,
        &verdict(),
        &confinement,
        &unjudged,
        namespaces,
        &Sources::new("/nowhere".into()),
        variable,
    ) {
        Request::Create(container) => *container,
        other => panic!("{other:?}"),
    }
}

fn host_spec() -> Value {
    json!({
        "process": {"args": ["sh", "-c", "id"], "env": ["A=1", "B=2"], "cwd": "/tmp", "noNewPrivileges": false,
            "capabilities": {"bounding": ["CAP_CHOWN", "CAP_KILL"]}, "oomScoreAdj": -1000},
        "root": {"path": "/host/rootfs", "readonly": true},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "ipc", "path": "/proc/1234/ns/ipc"}, {"type": "network"}],
            "cgroupsPath": "/../../etc", "maskedPaths": ["/proc/keys"], "readonlyPaths": ["/extra"],
            "resources": {"devices": [{"allow": true, "access": "rwm"}], "memory": {"limit": 1024}, "unified": {"x": "y"}}},
    })
}

fn verdict() -> ProcessVerdict {
    let capabilities = action::Capabilities {
        bounding: vec!["CAP_KILL".to_owned()],
        ..action::Capabilities::default()
    };
    ProcessVerdict {
        env: vec!["B=2".to_owned()],
        capabilities,
        stdio: true,
    }
}

#[test]
fn the_policys_decision_replaces_the_request() {
    let process = container(host_spec()).process;
    assert_eq!(process.env, ["B=2", "AGENTS=own"]);
    assert_eq!(process.capabilities.bounding, ["CAP_KILL"]);
    let user = User {
        uid: 3,
        gid: 4,
        umask: 0o22,
        additional_gids: vec![],
    };
    assert_eq!(process.user, user);
    assert_eq!(process.oom_score_adj, -999);
    assert!(!process.no_new_privileges);
}

#[test]
fn the_confinement_is_the_agents_own() {
    let made = container(host_spec());
    let id = ContainerId::new("c");
    assert_eq!((made.rootfs, made.read_only_root), (paths::rootfs(&id), true));
    assert_eq!(made.cgroup, paths::cgroup(&id));
    assert!(made.readonly_paths.contains(&"/extra".to_owned()) && made.masked_paths.contains(&"/proc/kcore".to_owned()));
    let ipc = made
        .namespaces
        .iter()
        .find(|namespace| namespace.kind == NamespaceKind::Ipc)
        .unwrap();
    assert!(ipc.path.is_some());
    assert_eq!(made.namespaces.iter().filter(|namespace| namespace.path.is_none()).count(), 4);
}

#[test]
fn only_a_judged_privilege_unmasks_paths() {
    let mut host = host_spec();
    host["annotations"] = json!({"io.microsoft.virtualmachine.lcow.privileged": "true"});
    assert!(split_spec(host.clone()).0.privileged);
    assert_eq!(container(host).masked_paths, ["/proc/keys"]);
}

#[test]
fn an_exec_enters_the_containers_namespaces_and_keeps_its_profile() {
    let process: ProcessSpec = serde_json::from_value(host_spec()["process"].clone()).unwrap();
    let identity = UserDatabase::default().identify(&HostUser::default()).unwrap();
    let (action, terminal, rlimits, oom) = exec_action(process, &ContainerId::new("c"), identity);
    let profile = Profile {
        default_action: "SCMP_ACT_ALLOW".to_owned(),
        ..Profile::default()
    };
    let namespaces = own_namespaces();
    let Request::Exec(exec) = of_exec(&action, &verdict(), terminal, &rlimits, oom.unwrap(), &namespaces, Some(&profile)) else {
        panic!("no exec");
    };
    assert_eq!(exec.namespaces, namespaces.enter_all());
    assert_eq!(exec.seccomp, Some(profile));
    assert_eq!(exec.process.args, ["sh", "-c", "id"]);
}
