//! Documents that no guest can serve; the agent's own tests try every limit.

use super::*;
use serde_json::{Value, json};

/// The answer for a small document with `path` (keys separated by dots) set to `value`.
fn with(path: &str, value: Value) -> Result<(), DocumentError> {
    let mut document = json!({"process": {"args": ["sh"], "cwd": "/"}, "mounts": [], "linux": {}});
    let mut at = &mut document;
    for key in path.split('.') {
        at = &mut at[key];
    }
    *at = value;
    check(document.to_string().as_bytes())
}

fn refused(path: &str, value: Value) -> String {
    with(path, value).expect_err(path).to_string()
}

#[test]
fn a_directory_of_the_host_is_refused_by_its_destination() {
    let bind = |source: &str| json!([{"destination": "/data", "type": "bind", "source": source, "options": ["rbind"]}]);
    assert!(with("mounts", bind("sandbox:///tmp/a")).is_ok());
    for foreign in ["/etc", "sandbox://", "sandbox:///", "sandbox:///a/../..", "sandbox://a//b", ""] {
        assert!(refused("mounts", bind(foreign)).contains("mount at /data is not a directory of the sandbox"));
    }
}

#[test]
fn user_namespaces_are_named_and_refused() {
    for (path, value) in [
        ("linux.namespaces", json!([{"type": "pid"}, {"type": "user"}])),
        ("linux.uidMappings", json!([{"containerID": 0, "hostID": 1000, "size": 10}])),
        ("linux.gidMappings", json!([{"containerID": 0, "hostID": 1000, "size": 10}])),
    ] {
        assert!(refused(path, value).contains("user namespaces are not offered"));
    }
    let mapped = json!([{"destination": "/p", "type": "proc", "uidMappings": [{}]}]);
    assert!(refused("mounts", mapped).contains("maps no users"));
    assert!(with("linux.uidMappings", json!([])).is_ok() && with("linux.uidMappings", Value::Null).is_ok());
}

#[test]
fn a_namespace_of_another_kind_is_not_ignored() {
    assert!(refused("linux.namespaces", json!([{"type": "time"}])).contains("not offered"));
    let all = NAMESPACE_KINDS.map(|kind| json!({"type": kind}));
    assert!(with("linux.namespaces", json!(all)).is_ok());
}

#[test]
fn only_a_document_within_the_limit_is_read() {
    assert!(matches!(check(b"[1]"), Err(DocumentError::Json { line: 1, .. })));
    assert!(matches!(check(&vec![b' '; SPEC_BYTES + 1]), Err(DocumentError::TooLong(_))));
    let error = check(br#"{"process":{"cwd":"/","args":["secret"],"env":"secret"}}"#).unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[test]
fn profiles_and_labels_that_the_guest_cannot_apply_are_refused() {
    assert!(refused("process.apparmorProfile", json!("my-profile")).contains("no AppArmor"));
    for nothing in ["", "unconfined", "cri-containerd.apparmor.d"] {
        assert!(with("process.apparmorProfile", json!(nothing)).is_ok(), "{nothing}");
    }
    let label = "system_u:system_r:container_t:s0";
    assert!(refused("process.selinuxLabel", json!(label)).contains("no SELinux"));
    assert!(refused("linux.mountLabel", json!(label)).contains("no SELinux"));
}

#[test]
fn a_device_that_no_container_can_open_is_refused_by_its_path() {
    let node = |kind: &str, major: i64, minor: i64| json!([{"path": "/dev/x", "type": kind, "major": major, "minor": minor}]);
    for (kind, major, minor) in [("c", 1, 3), ("u", 1, 9), ("c", 136, 77), ("p", 0, 0)] {
        assert!(with("linux.devices", node(kind, major, minor)).is_ok(), "{kind} {major}:{minor}");
    }
    for (kind, major, minor) in [("c", 10, 232), ("c", 1, 1), ("b", 1, 3), ("b", 254, 0), ("c", -1, 3), ("", 1, 3)] {
        let said = refused("linux.devices", node(kind, major, minor));
        assert!(said.contains(&format!("the device /dev/x ({kind} {major}:{minor})")), "{said}");
    }
}

#[test]
fn a_privileged_container_asks_for_every_device_and_for_none_by_name() {
    let linux =
        |rule: Value| json!({"devices": [{"path": "/dev/kvm", "type": "c", "major": 10, "minor": 232}], "resources": {"devices": rule}});
    assert!(with("linux", linux(json!([{"allow": false}, {"allow": true, "access": "rwm"}]))).is_ok());
    assert!(with("linux", linux(json!([{"allow": true, "type": "a"}]))).is_ok());
    for rules in [
        json!(null),
        json!([]),
        json!([{"allow": false, "access": "rwm"}]),
        json!([{"allow": true, "type": "c", "major": 10, "minor": 232, "access": "rwm"}]),
        json!([{"allow": true, "type": "c"}, {"allow": true, "major": 10}]),
    ] {
        assert!(refused("linux", linux(rules)).contains("/dev/kvm"));
    }
    let many = json!(vec![json!({"allow": true}); DEVICE_RULES + 1]);
    assert!(refused("linux", linux(many)).contains("too many"));
}
