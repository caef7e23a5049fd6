//! Root file systems of containers: `mount_overlay` and `unmount_overlay`.

use serde::{Deserialize, Serialize};

use super::{Action, Subject};
use crate::ids::ContainerId;

/// Stacks mounted layers into a container's root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountOverlay {
    /// The container that gets the root file system.
    #[serde(rename = "containerID")]
    pub container_id: ContainerId,
    /// Mount points of the layers, top layer first.
    #[serde(rename = "layerPaths")]
    pub layer_paths: Vec<String>,
    /// Mount point, `/run/gcs/c/<64 hex>/rootfs`.
    pub target: String,
}

impl Action for MountOverlay {
    const POINT: &'static str = "mount_overlay";
    type Verdict = ();

    fn subject(&self) -> Subject<'_> {
        Subject {
            container: Some(&self.container_id),
            target: Some(&self.target),
            ..Subject::default()
        }
    }
}

/// Unmounts a container's root file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UnmountOverlay {
    /// Mount point.
    pub unmount_target: String,
}

impl Action for UnmountOverlay {
    const POINT: &'static str = "unmount_overlay";
    type Verdict = ();

    fn subject(&self) -> Subject<'_> {
        Subject {
            target: Some(&self.unmount_target),
            ..Subject::default()
        }
    }
}
