//! Mount sources lead into the sandbox's own directory.

use super::*;
use crate::{container::user::UserDatabase, decode::User};
use serde_json::json;

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
        split(spec, &container, &sandbox, identity).map(|(action, ..)| action.mounts[0].source.clone())
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
