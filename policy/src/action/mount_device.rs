//! Read-only layer devices: `mount_device` and `unmount_device`.

use serde::{Deserialize, Serialize};

use super::{Action, Subject};
use crate::ids::RootHash;

/// Pattern of the mount points for layer devices.
const LAYER_MOUNT_POINTS: &str = "/run/mounts/scsi/m[0-9]+";

/// Mounts a verity-protected layer device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MountDevice {
    /// Mount point, `/run/mounts/scsi/m<N>`.
    pub target: String,
    /// Root hash the device is opened with.
    pub device_hash: RootHash,
    mount_path_regex: String,
}

impl MountDevice {
    /// The device with `device_hash`, to be mounted at `target`.
    pub fn new(target: impl Into<String>, device_hash: RootHash) -> Self {
        Self {
            target: target.into(),
            device_hash,
            mount_path_regex: LAYER_MOUNT_POINTS.to_owned(),
        }
    }
}

impl Action for MountDevice {
    const POINT: &'static str = "mount_device";
    type Verdict = ();

    fn subject(&self) -> Subject<'_> {
        Subject {
            target: Some(&self.target),
            ..Subject::default()
        }
    }
}

/// Unmounts a layer device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UnmountDevice {
    /// Mount point.
    pub unmount_target: String,
}

impl Action for UnmountDevice {
    const POINT: &'static str = "unmount_device";
    type Verdict = ();

    fn subject(&self) -> Subject<'_> {
        Subject {
            target: Some(&self.unmount_target),
            ..Subject::default()
        }
    }
}
