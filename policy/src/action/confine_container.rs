//! Confinement of a container: `confine_container`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Action, Limits, Mount, Subject};
use crate::ids::ContainerId;

/// Runs a container with this confinement. Enforced after `mount_overlay` and before `create_container`.
///
/// Policies without `casemate_version` allow it without evaluation. The guest must then enforce its own confinement instead of the
/// host's; see [`crate::Enforcer::judges_confinement`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfineContainer {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: ContainerId,
    /// The sandbox, which is the id of the container whose namespaces are the pod's.
    #[serde(rename = "sandboxID")]
    pub sandbox_id: ContainerId,
    /// Masked paths (`linux.maskedPaths` of the spec).
    pub masked_paths: Vec<String>,
    /// Read-only paths (`linux.readonlyPaths`).
    pub readonly_paths: Vec<String>,
    /// Its namespaces (`linux.namespaces`).
    pub namespaces: Vec<Namespace>,
    /// Limits of its processes (`process.rlimits`).
    pub rlimits: Vec<Rlimit>,
    /// Kernel parameters of its namespaces (`linux.sysctl`).
    pub sysctls: BTreeMap<String, String>,
    /// Whether its root file system is read-only (`root.readonly`).
    pub readonly_root: bool,
    /// Its mounts, as in `create_container`: no mount hides one before it.
    pub mounts: Vec<Mount>,
    /// Directories of the pod that the sources of mounts lie in, as in `create_container`.
    pub sandbox_dir: String,
    /// As in `create_container`.
    pub huge_pages_dir: String,
    /// How likely the OOM killer chooses its init (`process.oomScoreAdj`).
    pub oom_score_adj: i32,
    /// Limits of its cgroup (`linux.resources`).
    pub limits: Limits,
}

/// A namespace of an OCI spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// `pid`, `network`, `ipc`, `uts`, `mount`, `user`, `cgroup` or `time`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Path of an existing namespace; empty for a new one; `pod` for the pod's own, whatever its path.
    pub path: String,
}

/// A limit of an OCI spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE` and the like.
    #[serde(rename = "type")]
    pub kind: String,
    /// Upper bound of the soft limit.
    pub hard: u64,
    /// The limit in effect.
    pub soft: u64,
}

impl Action for ConfineContainer {
    const POINT: &'static str = "confine_container";
    type Verdict = ();

    fn subject(&self) -> Subject<'_> {
        Subject {
            container: Some(&self.container_id),
            ..Subject::default()
        }
    }
}
