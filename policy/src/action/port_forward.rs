//! Port forwarding from the host to the pod: `port_forward`.

use serde::{Deserialize, Serialize};

use super::{Action, Subject};
use crate::ids::ContainerId;

/// Connects the host to a port on which a container listens. Policies without `casemate_version` deny it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortForward {
    /// The container whose policy entry lists the port.
    #[serde(rename = "containerID")]
    pub container_id: ContainerId,
    /// TCP port.
    pub port: u16,
}

impl Action for PortForward {
    const POINT: &'static str = "port_forward";
    type Verdict = ();

    fn subject(&self) -> Subject<'_> {
        Subject {
            container: Some(&self.container_id),
            ..Subject::default()
        }
    }
}
