//! A signal to a process of a container: `signal_container_process`.

use serde::{Deserialize, Serialize};

use super::{Action, Subject};
use crate::ids::ContainerId;

/// Sends a signal to the init or to an exec process of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignalContainerProcess {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: ContainerId,
    /// Signal number.
    pub signal: i32,
    /// The receiver is the container's init.
    pub is_init_process: bool,
    /// Command line of the receiver; `None` if it is unknown.
    pub arg_list: Option<Vec<String>>,
}

impl Action for SignalContainerProcess {
    const POINT: &'static str = "signal_container_process";
    type Verdict = ();

    fn subject(&self) -> Subject<'_> {
        Subject {
            container: Some(&self.container_id),
            ..Subject::default()
        }
    }
}
