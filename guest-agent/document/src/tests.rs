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
