//! An exec process in a running container: `exec_in_container`.

use serde::{Deserialize, Serialize};

use super::{Action, Capabilities, IdName, Subject};
use crate::ids::ContainerId;
use crate::verdict::ProcessVerdict;

/// Starts a process in a running container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecInContainer {
    /// The container.
    #[serde(rename = "containerID")]
    pub container_id: ContainerId,
    /// Program and arguments.
    pub arg_list: Vec<String>,
    /// `NAME=value` in the order of the request.
    pub env_list: Vec<String>,
    /// Working directory.
    pub working_dir: String,
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
}

impl Action for ExecInContainer {
    const POINT: &'static str = "exec_in_container";
    type Verdict = ProcessVerdict;

    fn subject(&self) -> Subject<'_> {
        Subject {
            container: Some(&self.container_id),
            env: Some(&self.env_list),
            capabilities: self.capabilities.as_ref(),
            capabilities_needed: true,
            ..Subject::default()
        }
    }
}
