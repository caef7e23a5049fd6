//! What keeps a container apart from the guest and its neighbours: `confine_container`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Action, Subject};
use crate::ids::ContainerId;

/// Asks, after `mount_overlay` and before `create_container`, whether the container may run with this confinement.
///
/// Allowed without being judged under policies that declare no `casemate_version`: there the guest must not take the confinement
/// from the host but force its own; see [`crate::Enforcer::judges_confinement`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfineContainer {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: ContainerId,
    /// Paths hidden from it (`linux.maskedPaths` of the spec).
    pub masked_paths: Vec<String>,
    /// Paths it can only read (`linux.readonlyPaths`).
    pub readonly_paths: Vec<String>,
    /// Its namespaces (`linux.namespaces`).
    pub namespaces: Vec<Namespace>,
    /// Limits of its processes (`process.rlimits`).
    pub rlimits: Vec<Rlimit>,
    /// Kernel parameters of its namespaces (`linux.sysctl`).
    pub sysctls: BTreeMap<String, String>,
}

/// A namespace of an OCI spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// `pid`, `network`, `ipc`, `uts`, `mount`, `user`, `cgroup` or `time`.
    #[serde(rename = "type")]
    pub kind: String,
    /// One that exists already, by path; empty for a new one. The pod's own are spelled `pod`, whatever their path.
    pub path: String,
}

/// A limit of an OCI spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE` and the like.
    #[serde(rename = "type")]
    pub kind: String,
    /// What no process can raise it beyond.
    pub hard: u64,
    /// What counts.
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
