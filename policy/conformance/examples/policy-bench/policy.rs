//! Policies of any size, and requests for one of their containers.

use std::fmt::Write as _;

use policy::action::{CreateContainer, ExecInContainer, IdName, Mount, MountDevice, MountOverlay, UnmountDevice};
use policy::{ContainerId, POINTS, RootHash, data};
use serde_json::json;

/// Layers of a container.
pub const LAYERS: usize = 4;

/// A layer of a container; shared layers are those of the first container.
fn layer(container: usize, index: usize, shared: bool) -> [u8; 32] {
    let mut hash = [index as u8 + 1; 32];
    hash[..8].copy_from_slice(&(if shared { 0 } else { container as u64 }).to_be_bytes());
    hash
}

/// A policy of containers with environment rules, mounts and exec processes, in the form of generated policies.
pub fn policy(size: usize, shared: bool) -> String {
    let mut text = String::from("package policy\n\napi_version := \"0.12.0\"\nframework_version := \"0.5.0\"\n\ncontainers := [\n");
    for container in 0..size {
        let layers: Vec<String> = (0..LAYERS).map(|index| hex(&layer(container, index, shared))).collect();
        let container = json!({
            "command": ["/bin/app", format!("--instance={container}"), "--config=/etc/app/config.yaml"],
            "env_rules": [
                {"pattern": "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "strategy": "string", "required": true},
                {"pattern": "TERM=xterm", "strategy": "string", "required": false},
                {"pattern": format!("INSTANCE={container}"), "strategy": "string", "required": false},
                {"pattern": "KUBERNETES_[A-Z_0-9]+=.*", "strategy": "re2", "required": false},
                {"pattern": "NODE_[A-Z]+=.+", "strategy": "re2", "required": false},
            ],
            "layers": layers,
            "mounts": [
                {"destination": "/etc/resolv.conf", "options": ["rbind", "rshared", "rw"], "source": "sandbox:///tmp/atlas/resolvconf/.+", "type": "bind"},
                {"destination": "/data", "options": ["rbind", "rshared", "ro"], "source": format!("sandbox:///data/{container}"), "type": "bind"},
            ],
            "exec_processes": [{"command": ["/bin/sh", "-c", "true"], "signals": [9]}, {"command": ["/bin/probe"], "signals": []}],
            "signals": [9, 15],
            "user": {"user_idname": {"pattern": "", "strategy": "any"}, "group_idnames": [{"pattern": "", "strategy": "any"}], "umask": "0022"},
            "capabilities": data::unprivileged_capabilities(),
            "seccomp_profile_sha256": "",
            "allow_elevated": false,
            "working_dir": "/",
            "allow_stdio_access": true,
            "no_new_privileges": false,
        });
        let _ = writeln!(text, "    {container},");
    }
    text.push_str(
        "]\n\nallow_properties_access := true\nallow_environment_variable_dropping := true\nallow_capability_dropping := true\n\n",
    );
    for point in POINTS {
        let _ = writeln!(text, "{0} := data.framework.{0}", point.name);
    }
    text.push_str("reason := data.framework.reason\n");
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Mount point of a layer.
fn target(index: usize) -> String {
    format!("/run/mounts/scsi/m{index}")
}

/// Requests for one container.
pub struct Requests {
    pub container: usize,
    pub shared: bool,
}

impl Requests {
    fn id(&self) -> ContainerId {
        ContainerId::new("bench")
    }

    pub fn mount(&self, index: usize) -> MountDevice {
        MountDevice::new(target(index), RootHash::new(&layer(self.container, index, self.shared)))
    }

    pub fn unmount(&self, index: usize) -> UnmountDevice {
        UnmountDevice {
            unmount_target: target(index),
        }
    }

    pub fn overlay(&self) -> MountOverlay {
        MountOverlay {
            container_id: self.id(),
            layer_paths: (0..LAYERS).rev().map(target).collect(),
            target: format!("/run/gcs/c/{}/rootfs", self.id().as_hex()),
        }
    }

    pub fn create(&self) -> CreateContainer {
        let container = self.container;
        CreateContainer {
            container_id: self.id(),
            arg_list: vec![
                "/bin/app".into(),
                format!("--instance={container}"),
                "--config=/etc/app/config.yaml".into(),
            ],
            env_list: vec![
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
                "TERM=xterm".into(),
                format!("INSTANCE={container}"),
                "KUBERNETES_SERVICE_HOST=10.0.0.1".into(),
                "UNKNOWN=1".into(),
            ],
            working_dir: "/".into(),
            sandbox_dir: "/run/gcs/c/s/sandboxMounts".into(),
            huge_pages_dir: "/run/gcs/c/s/hugepages".into(),
            mounts: vec![Mount {
                destination: "/data".into(),
                options: Some(vec!["rbind".into(), "rshared".into(), "ro".into()]),
                source: format!("/run/gcs/c/s/sandboxMounts/data/{container}"),
                kind: "bind".into(),
            }],
            devices: Vec::new(),
            privileged: false,
            no_new_privileges: false,
            user: IdName::new(0, "root"),
            groups: vec![IdName::new(0, "root")],
            umask: "0022".into(),
            capabilities: Some(data::unprivileged_capabilities()),
            seccomp_profile_sha256: String::new(),
            is_sandbox_container: false,
        }
    }

    pub fn create_denied(&self) -> CreateContainer {
        CreateContainer {
            arg_list: vec!["/bin/other".into()],
            ..self.create()
        }
    }

    pub fn exec(&self) -> ExecInContainer {
        let create = self.create();
        ExecInContainer {
            container_id: self.id(),
            arg_list: vec!["/bin/probe".into()],
            env_list: create.env_list,
            working_dir: create.working_dir,
            no_new_privileges: false,
            user: create.user,
            groups: create.groups,
            umask: create.umask,
            capabilities: create.capabilities,
        }
    }
}
