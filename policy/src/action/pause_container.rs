//! Freezing a running container: `pause_container`.

use serde::{Deserialize, Serialize};

use super::{Action, Subject};
use crate::ids::ContainerId;

/// Freezes every process of a container until it is resumed.
///
/// Policies without `casemate_version` allow it without evaluation. The guest must then have judged it as SIGSTOP to the init and to
/// each exec ([`super::SignalContainerProcess`]); see [`crate::Enforcer::judges_confinement`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PauseContainer {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: ContainerId,
}

impl Action for PauseContainer {
    const POINT: &'static str = "pause_container";
    type Verdict = ();

    fn subject(&self) -> Subject<'_> {
        Subject {
            container: Some(&self.container_id),
            ..Subject::default()
        }
    }
}
