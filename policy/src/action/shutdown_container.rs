//! Shutdown of a container: `shutdown_container`.

use serde::{Deserialize, Serialize};

use super::{Action, Subject};
use crate::ids::ContainerId;

/// Kills a container and all its processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShutdownContainer {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: ContainerId,
}

impl Action for ShutdownContainer {
    const POINT: &'static str = "shutdown_container";
    type Verdict = ();

    fn subject(&self) -> Subject<'_> {
        Subject {
            container: Some(&self.container_id),
            ..Subject::default()
        }
    }
}
