//! The writable upper directory of an overlay: `scratch_mount` and `scratch_unmount`.

use serde::{Deserialize, Serialize};

use super::{Action, Subject};

/// Uses a directory of the scratch disk as an overlay's upper directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScratchMount {
    /// Directory, `/run/gcs/c/<sandbox>/scratch/<container>`.
    pub target: String,
    /// The scratch disk is encrypted.
    pub encrypted: bool,
}

impl Action for ScratchMount {
    const POINT: &'static str = "scratch_mount";
    type Verdict = ();

    fn subject(&self) -> Subject<'_> {
        Subject {
            target: Some(&self.target),
            ..Subject::default()
        }
    }
}

/// Removes an upper directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScratchUnmount {
    /// Directory.
    pub unmount_target: String,
}

impl Action for ScratchUnmount {
    const POINT: &'static str = "scratch_unmount";
    type Verdict = ();

    fn subject(&self) -> Subject<'_> {
        Subject {
            target: Some(&self.unmount_target),
            ..Subject::default()
        }
    }
}
