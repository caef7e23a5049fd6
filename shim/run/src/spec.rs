//! The container's OCI specification, as `ctr run` makes it (containerd, pkg/oci: `populateDefaultUnixSpec`).

use crate::process::Process;
use policy::data::unprivileged_capabilities;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Version of the runtime specification.
const OCI_VERSION: &str = "1.0.2";
/// Files of `/proc` and `/sys` that a container does not see.
const MASKED: [&str; 10] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
    "/proc/scsi",
];
/// Files of `/proc` that a container does not write.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Namespaces that a container has of its own.
const NAMESPACES: [&str; 5] = ["pid", "ipc", "uts", "mount", "network"];
/// Files that a container may have open.
const OPEN_FILES: u64 = 1024;

/// The specification of container `id`, in JSON.
pub fn of_container(process: &Process, cgroup: &str, annotations: &BTreeMap<String, String>) -> Value {
    let capabilities = unprivileged_capabilities();
    // The guest knows the image's users: a name, and a number that stands for a name, is resolved there.
    let user = match process.user.is_empty() {
        true => json!({ "uid": 0, "gid": 0 }),
        false => json!({ "uid": 0, "gid": 0, "username": process.user }),
    };
    json!({
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": process.terminal,
            "user": user,
            "args": process.args,
            "env": process.env,
            "cwd": process.cwd,
            "capabilities": {
                "bounding": capabilities.bounding,
                "effective": capabilities.effective,
                "permitted": capabilities.permitted,
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": OPEN_FILES, "soft": OPEN_FILES }],
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs" },
        "mounts": mounts(),
        "annotations": annotations,
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "cgroupsPath": cgroup,
            "namespaces": NAMESPACES.map(|kind| json!({ "type": kind })),
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
        },
    })
}

fn mounts() -> Value {
    let mount = |destination: &str, kind: &str, source: &str, options: &str| {
        let options: Vec<&str> = options.split(',').collect();
        json!({ "destination": destination, "type": kind, "source": source, "options": options })
    };
    json!([
        mount("/proc", "proc", "proc", "nosuid,noexec,nodev"),
        mount("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5"
        ),
        mount("/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=65536k"),
        mount("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
        mount("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
        mount("/run", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn process(user: &str) -> Process {
        Process {
            args: vec!["sh".to_owned(), "-c".to_owned(), "id".to_owned()],
            env: vec!["PATH=/bin".to_owned()],
            cwd: "/srv".to_owned(),
            user: user.to_owned(),
            terminal: true,
            stop_signal: None,
        }
    }

    fn spec(user: &str) -> Value {
        let annotations = BTreeMap::from([("io.casemate.tee".to_owned(), "simulated".to_owned())]);
        of_container(&process(user), "/default/web", &annotations)
    }

    #[test]
    fn the_agent_takes_it_as_it_was_meant() {
        let text = spec("app:staff").to_string();
        container_document::check(text.as_bytes()).unwrap();
        let read: container_document::HostSpec = serde_json::from_str(&text).unwrap();
        assert_eq!(read.process.args, ["sh", "-c", "id"]);
        assert_eq!((read.process.cwd.as_str(), read.process.env.len()), ("/srv", 1));
        assert_eq!((read.process.user.username.as_str(), read.process.terminal), ("app:staff", true));
        assert!(read.process.no_new_privileges);
        assert_eq!(read.linux.masked_paths.len(), MASKED.len());
        assert_eq!(read.annotations["io.casemate.tee"], "simulated");
        assert_eq!(spec("")["process"]["user"], json!({ "uid": 0, "gid": 0 }));
    }

    /// A generated policy allows the default mounts, and no others.
    #[test]
    fn every_mount_is_one_that_policies_allow_by_default() {
        let base = policy::data::base_document();
        let plain = |mounts: &Value| -> BTreeSet<String> {
            let mounts = mounts.as_array().unwrap().iter();
            mounts
                .map(|m| format!("{} {} {} {}", m["destination"], m["type"], m["source"], m["options"]))
                .collect()
        };
        let (ours, allowed) = (plain(&mounts()), plain(&base["defaultMounts"]));
        assert!(ours.is_subset(&allowed), "{:?}", ours.difference(&allowed).collect::<Vec<_>>());
        assert_eq!(ours.len(), 7);
    }
}
