//! Mount sources lead into the sandbox's own directory.

use super::*;
use crate::{container::user::UserDatabase, decode::User};
use serde_json::json;

#[test]
fn no_mount_hides_one_before_it() {
    let mount = |destination: &str| json!({"destination": destination, "type": "tmpfs", "source": "tmpfs"});
    let host = json!({
        "process": {"args": ["sh"], "cwd": "/"},
        "mounts": [mount("/a/b//c"), mount("/dev"), mount("/a/b"), mount("/a/x"), mount("/a")],
    });
    let identity = UserDatabase::default().identify(&User::default()).unwrap();
    let (container, sandbox) = (ContainerId::new("c"), ContainerId::new("s"));
    let spec = serde_json::from_value(host).unwrap();
    let (create, confine, _) = split(spec, &container, &sandbox, identity, &Limits::default(), &Present::default()).unwrap();
    let order = create.mounts.iter().map(|mount| mount.destination.as_str()).collect::<Vec<_>>();
    assert_eq!(order, ["/dev", "/a", "/a/b", "/a/x", "/a/b//c"]);
    assert_eq!(confine.mounts, create.mounts);
}

#[test]
fn binds_outside_the_sandbox_are_refused() {
    let bind = |source: &str| {
        let host = json!({
            "process": {"args": ["sh"], "cwd": "/"},
            "mounts": [{"destination": "/data", "type": "bind", "source": source, "options": ["rbind"]}],
        });
        let identity = UserDatabase::default().identify(&User::default()).unwrap();
        let (container, sandbox) = (ContainerId::new("c"), ContainerId::new("s"));
        let spec = serde_json::from_value(host).unwrap();
        split(spec, &container, &sandbox, identity, &Limits::default(), &Present::default())
            .map(|(action, ..)| action.mounts[0].source.clone())
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
