//! New limits of a running container: `update_container`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Action, Subject};
use crate::ids::ContainerId;

/// Limits of a container's cgroup by the kernel's names (cgroup-v2.rst); `null` is no limit.
///
/// `memory.max` and `memory.low` are bytes, `pids.max` a number of processes, `cpu.weight` 1 to 10000, and `cpu.max` microseconds of
/// CPU time in 100 milliseconds.
pub type Limits = BTreeMap<String, Option<u64>>;

/// Sets these limits of a container, and leaves the others as they are.
///
/// Policies without `casemate_version` allow it without evaluation. The guest must then refuse limits below what is in use; see
/// [`crate::Enforcer::judges_confinement`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateContainer {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: ContainerId,
    /// The new limits.
    pub limits: Limits,
}

impl Action for UpdateContainer {
    const POINT: &'static str = "update_container";
    type Verdict = ();

    fn subject(&self) -> Subject<'_> {
        Subject {
            container: Some(&self.container_id),
            ..Subject::default()
        }
    }
}
