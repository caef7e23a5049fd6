//! Policy texts with what hcsshim does with each, from the file that `CASEMATE_POLICY_SYNTAX` names; skipped without it.
//!
//! A line is `{name, policy, hcsshim, answers}`. `hcsshim` is `loads` or `refused`; the letters of `answers` are `a` (allowed) or `d`
//! (denied) for the requests of [`requests`] in turn.

use policy::Enforcer;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Case {
    name: String,
    policy: String,
    hcsshim: String,
    answers: String,
}

/// The first layer, a scratch disk and its mount, the overlay, and the container as the policies have it.
fn requests() -> Vec<(&'static str, Value)> {
    let (id, layer) = ("c".repeat(64), "/run/mounts/scsi/m0");
    let capabilities = serde_json::to_value(policy::data::unprivileged_capabilities()).unwrap_or_default();
    let root = json!({"id": "0", "name": "root"});
    vec![
        (
            "mount_device",
            json!({"target": layer, "deviceHash": "ab".repeat(32), "mountPathRegex": "/run/mounts/scsi/m[0-9]+"}),
        ),
        (
            "rw_mount_device",
            json!({"target": format!("/run/gcs/c/{id}"), "encrypted": true, "ensureFilesystem": true, "filesystem": "ext4",
                "mountPathRegex": "/run/gcs/c/[0-9a-fA-F]{64}"}),
        ),
        (
            "scratch_mount",
            json!({"target": format!("/run/gcs/c/{id}/scratch/{id}"), "encrypted": true}),
        ),
        (
            "mount_overlay",
            json!({"containerID": id, "layerPaths": [layer], "target": format!("/run/gcs/c/{id}/rootfs")}),
        ),
        (
            "create_container",
            json!({"containerID": id, "argList": ["/app", "-x"], "envList": ["A=1"], "workingDir": "/",
                "sandboxDir": format!("/run/gcs/c/{id}/sandboxMounts"), "hugePagesDir": format!("/run/gcs/c/{id}/hugepages"),
                "mounts": [], "devices": [], "privileged": false, "noNewPrivileges": false, "user": root, "groups": [root],
                "umask": "0022", "capabilities": capabilities, "seccompProfileSHA256": "", "isSandboxContainer": false}),
        ),
    ]
}

fn answers(policy: &str) -> Result<String, String> {
    let mut enforcer = Enforcer::new(policy).map_err(|error| error.to_string())?;
    let answer = |(point, input)| if enforcer.ask(point, input).is_ok() { 'a' } else { 'd' };
    Ok(requests().into_iter().map(answer).collect())
}

#[test]
fn texts_load_and_decide_as_in_hcsshim() {
    let Some(path) = std::env::var_os("CASEMATE_POLICY_SYNTAX") else {
        println!("skipped: CASEMATE_POLICY_SYNTAX names no file");
        return;
    };
    let text = std::fs::read_to_string(&path).unwrap();
    let mut wrong = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let case: Case = serde_json::from_str(line).unwrap();
        let ours = answers(&case.policy);
        let known = policy::compile_problems(&case.policy).is_ok_and(|problems| !problems.is_empty());
        match (&ours, case.hcsshim.as_str()) {
            (Ok(ours), "loads") if *ours == case.answers => {}
            (Err(_), "refused") => {}
            (Ok(_), "refused") if known => {}
            _ => wrong.push(format!("{}: {} with {}, here {ours:?}", case.name, case.hcsshim, case.answers)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
