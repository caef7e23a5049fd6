//! A process in the guest, outside all containers: `exec_external`.

use serde::{Deserialize, Serialize};

use super::{Action, Subject};
use crate::verdict::ExternalVerdict;

/// Starts a process in the guest's own root file system, for the debug console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecExternal {
    /// Program and arguments.
    pub arg_list: Vec<String>,
    /// `NAME=value` in the order of the request.
    pub env_list: Vec<String>,
    /// Working directory.
    pub working_dir: String,
}

impl Action for ExecExternal {
    const POINT: &'static str = "exec_external";
    type Verdict = ExternalVerdict;

    fn subject(&self) -> Subject<'_> {
        Subject {
            env: Some(&self.env_list),
            ..Subject::default()
        }
    }
}
