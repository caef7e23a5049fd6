//! Raw block devices in a container: `mount_blockdev` and `unmount_blockdev`.

use serde::{Deserialize, Serialize};

use super::{Action, Subject};

/// Attaches a block device as a device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountBlockdev {
    /// Path of the device node.
    pub target: String,
}

impl Action for MountBlockdev {
    const POINT: &'static str = "mount_blockdev";
    type Verdict = ();

    fn subject(&self) -> Subject<'_> {
        Subject {
            target: Some(&self.target),
            ..Subject::default()
        }
    }
}

/// Detaches a block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UnmountBlockdev {
    /// Path of the device node.
    pub unmount_target: String,
}

impl Action for UnmountBlockdev {
    const POINT: &'static str = "unmount_blockdev";
    type Verdict = ();

    fn subject(&self) -> Subject<'_> {
        Subject {
            target: Some(&self.unmount_target),
            ..Subject::default()
        }
    }
}
