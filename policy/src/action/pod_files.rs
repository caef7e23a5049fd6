//! Files of the pod that its containers share: `pod_files`.

use serde::{Deserialize, Serialize};

use super::{Action, Subject};
use crate::ids::ContainerId;

/// Writes the pod's hosts, hostname and resolv.conf, line by line, and makes its `/dev/shm`. Policies without `casemate_version` allow it
/// without evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodFiles {
    /// The sandbox, which is the id of the pod's first container.
    #[serde(rename = "sandboxID")]
    pub sandbox_id: ContainerId,
    /// Lines of `/etc/hosts`, without their ends; none: the pod has no such file.
    pub hosts: Vec<String>,
    /// Lines of `/etc/hostname`.
    pub hostname: Vec<String>,
    /// Lines of `/etc/resolv.conf`.
    pub resolv_conf: Vec<String>,
    /// Size of `/dev/shm` in bytes; 0: the pod has none.
    pub shm_bytes: u64,
}

impl Action for PodFiles {
    const POINT: &'static str = "pod_files";
    type Verdict = ();

    fn subject(&self) -> Subject<'_> {
        Subject {
            container: Some(&self.sandbox_id),
            ..Subject::default()
        }
    }
}
