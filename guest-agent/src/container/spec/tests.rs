//! What goes to the launcher is what was judged, within the agent's own walls.

use super::*;
use crate::{container::user::UserDatabase, decode::User};

/// What is judged by create_container, the walls that the agent makes where nobody judges them, and the rest.
fn split_spec(spec: Value) -> Result<(CreateContainer, Walls, Rest), ForeignSource> {
    let identity = UserDatabase::default()
        .identify(&User {
            uid: 3,
            gid: 4,
            ..User::default()
        })
        .unwrap();
    let (action, confinement, rest) = split(
        serde_json::from_value(spec).unwrap(),
        &ContainerId::new("c"),
        &ContainerId::new("s"),
        identity,
    )?;
    let mut enforcer = policy::Enforcer::new(policy::OPEN_DOOR).unwrap();
    let walls = Walls::of(enforcer.enforce(confinement).unwrap(), false);
    Ok((action, walls, rest))
}

fn host_spec() -> Value {
    json!({
        "process": {"args": ["sh", "-c", "id"], "env": ["A=1", "B=2"], "cwd": "/tmp", "noNewPrivileges": false,
            "capabilities": {"bounding": ["CAP_CHOWN", "CAP_KILL"]}, "oomScoreAdj": -1000},
        "root": {"path": "/host/rootfs", "readonly": true},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "ipc", "path": "/proc/1234/ns/ipc"}, {"type": "network"}],
            "cgroupsPath": "/../../etc", "maskedPaths": ["/extra", "/proc/keys"],
            "resources": {"devices": [{"allow": true, "access": "rwm"}], "memory": {"limit": 1024}, "unified": {"x": "y"}}},
    })
}

fn verdict() -> ProcessVerdict {
    let capabilities = Capabilities {
        bounding: vec!["CAP_KILL".to_owned()],
        ..Capabilities::default()
    };
    ProcessVerdict {
        env: vec!["B=2".to_owned()],
        capabilities,
        stdio: true,
    }
}

#[test]
fn the_verdict_takes_the_place_of_the_request() {
    let (action, walls, rest) = split_spec(host_spec()).unwrap();
    let namespaces = walls.namespaces(Some(77)).unwrap();
    let spec = of_container(&action, &verdict(), &walls, &rest, &namespaces);
    assert_eq!(spec["process"]["env"], json!(["B=2"]));
    assert_eq!(spec["process"]["capabilities"]["bounding"], json!(["CAP_KILL"]));
    assert_eq!(
        spec["process"]["user"],
        json!({"uid": 3, "gid": 4, "umask": 0o22, "additionalGids": []})
    );
    assert_eq!(spec["process"]["oomScoreAdj"], json!(-999));
    assert!(spec["process"].get("noNewPrivileges").is_none());
}

#[test]
fn the_walls_are_the_agents_own() {
    let (action, walls, rest) = split_spec(host_spec()).unwrap();
    let spec = of_container(&action, &verdict(), &walls, &rest, &walls.namespaces(Some(77)).unwrap());
    let id = ContainerId::new("c");
    assert_eq!(spec["root"], json!({"path": paths::rootfs(&id), "readonly": true}));
    assert_eq!(spec["linux"]["cgroupsPath"], json!(paths::cgroup(&id)));
    assert_eq!(spec["linux"]["resources"], json!({"memory": {"limit": 1024}}));
    let masked = spec["linux"]["maskedPaths"].as_array().unwrap();
    assert!(!masked.contains(&json!("/extra")) && masked.contains(&json!("/proc/kcore")));
    assert_eq!(
        spec["linux"]["namespaces"],
        json!([{"type": "pid"}, {"type": "ipc", "path": "/proc/77/ns/ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}])
    );
    assert!(walls.namespaces(None).is_none(), "the pod's namespace is not there");
}

#[test]
fn only_a_judged_privilege_unmasks() {
    let mut host = host_spec();
    host["annotations"] = json!({PRIVILEGED: "true"});
    let (action, walls, rest) = split_spec(host).unwrap();
    assert!(action.privileged);
    let spec = of_container(&action, &verdict(), &walls, &rest, &[]);
    assert_eq!(spec["linux"]["maskedPaths"], json!(["/proc/keys"]));
}

#[test]
fn binds_lead_into_the_sandbox_or_nowhere() {
    let bind = |source: &str| {
        let mut host = host_spec();
        host["mounts"] = json!([{"destination": "/data", "type": "bind", "source": source, "options": ["rbind"]}]);
        split_spec(host).map(|(action, ..)| action.mounts[0].source.clone())
    };
    let directory = paths::sandbox_mounts(&ContainerId::new("s"));
    assert_eq!(bind("sandbox:///tmp/a").unwrap(), format!("{directory}/tmp/a"));
    for foreign in [
        "/etc",
        "sandbox://",
        "sandbox:///",
        "sandbox:///a/../..",
        "sandbox://a//b",
        "hugepages://2M/x",
        "",
    ] {
        assert!(bind(foreign).is_err(), "{foreign:?}");
    }
}

#[test]
fn an_exec_enters_the_containers_namespaces_and_keeps_its_profile() {
    let process: ProcessSpec = serde_json::from_value(host_spec()["process"].clone()).unwrap();
    let identity = UserDatabase::default().identify(&User::default()).unwrap();
    let (action, terminal, rlimits, oom) = exec_action(process, &ContainerId::new("c"), identity);
    let profile = Profile {
        default_action: "SCMP_ACT_ALLOW".to_owned(),
        ..Profile::default()
    };
    let spec = of_exec(&action, &verdict(), terminal, &rlimits, oom, 99, Some(&profile));
    assert_eq!(spec["linux"]["namespaces"][3], json!({"type": "mount", "path": "/proc/99/ns/mnt"}));
    assert_eq!(spec["linux"]["seccomp"], json!({"defaultAction": "SCMP_ACT_ALLOW"}));
    assert_eq!(spec["process"]["args"], json!(["sh", "-c", "id"]));
}
