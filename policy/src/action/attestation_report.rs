//! A report of the guest for one of its containers: `attestation_report`.

use serde::{Deserialize, Serialize};

use super::{Action, Subject};
use crate::ids::ContainerId;

/// Gives a container an attestation report that binds what the container chose.
///
/// Whoever has such a report can obtain what a relying party gives to this guest. So a policy with `casemate_version` names the
/// containers that may ask; policies without it allow all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttestationReport {
    /// The container that asks.
    #[serde(rename = "containerID")]
    pub container_id: ContainerId,
}

impl Action for AttestationReport {
    const POINT: &'static str = "attestation_report";
    type Verdict = ();

    fn subject(&self) -> Subject<'_> {
        Subject {
            container: Some(&self.container_id),
            ..Subject::default()
        }
    }
}
