//! A container with its init process: `create_container`.

use serde::{Deserialize, Serialize};

use super::{Action, Capabilities, IdName, Mount, Subject};
use crate::ids::ContainerId;
use crate::verdict::ProcessVerdict;

/// Creates a container whose overlay is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateContainer {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: ContainerId,
    /// Program and arguments.
    pub arg_list: Vec<String>,
    /// `NAME=value` in the order of the spec.
    pub env_list: Vec<String>,
    /// Working directory.
    pub working_dir: String,
    /// `/run/gcs/c/<sandbox>/sandboxMounts`
    pub sandbox_dir: String,
    /// `/run/gcs/c/<sandbox>/hugepages`
    pub huge_pages_dir: String,
    /// Every mount of the spec, with source paths in the guest.
    pub mounts: Vec<Mount>,
    /// Device nodes of the spec.
    pub devices: Vec<Device>,
    /// The container is privileged.
    pub privileged: bool,
    /// `no_new_privs` of the process.
    pub no_new_privileges: bool,
    /// User the process runs as.
    pub user: IdName,
    /// Its groups, the primary one first.
    pub groups: Vec<IdName>,
    /// Four octal digits, `0022`.
    pub umask: String,
    /// Capability sets; `None` is refused without evaluating the policy.
    pub capabilities: Option<Capabilities>,
    /// SHA-256 of the seccomp profile in hex, empty without one.
    #[serde(rename = "seccompProfileSHA256")]
    pub seccomp_profile_sha256: String,
    /// The pod's own (pause) container.
    pub is_sandbox_container: bool,
}

impl Action for CreateContainer {
    const POINT: &'static str = "create_container";
    type Verdict = ProcessVerdict;

    fn subject(&self) -> Subject<'_> {
        Subject {
            container: Some(&self.container_id),
            env: Some(&self.env_list),
            capabilities: self.capabilities.as_ref(),
            capabilities_needed: true,
            decides_stdio: true,
            target: None,
        }
    }
}

/// A device node of an OCI spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Device {
    /// Path in the container.
    pub path: String,
    /// `c`, `b`, `p` or `u`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// Permission bits.
    pub file_mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}
