//! Writable devices: `rw_mount_device` and `rw_unmount_device`.

use serde::{Deserialize, Serialize};

use super::{Action, Subject};

/// Pattern of the mount points for writable devices.
const SCRATCH_MOUNT_POINTS: &str = "/run/gcs/c/[0-9a-fA-F]{64}";

/// Mounts a writable device, the pod's scratch disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RwMountDevice {
    /// Mount point, `/run/gcs/c/<64 hex>`.
    pub target: String,
    /// The device is encrypted by dm-crypt with a key generated in the guest.
    pub encrypted: bool,
    /// The guest formats the device instead of trusting its contents.
    pub ensure_filesystem: bool,
    /// `ext4` or `xfs`.
    pub filesystem: String,
    mount_path_regex: String,
}

impl RwMountDevice {
    /// An empty ext4 file system, formatted by the guest, at `target`.
    pub fn new(target: impl Into<String>, encrypted: bool) -> Self {
        Self {
            target: target.into(),
            encrypted,
            ensure_filesystem: true,
            filesystem: "ext4".to_owned(),
            mount_path_regex: SCRATCH_MOUNT_POINTS.to_owned(),
        }
    }
}

impl Action for RwMountDevice {
    const POINT: &'static str = "rw_mount_device";
    type Verdict = ();

    fn subject(&self) -> Subject<'_> {
        Subject {
            target: Some(&self.target),
            ..Subject::default()
        }
    }
}

/// Unmounts a writable device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RwUnmountDevice {
    /// Mount point.
    pub unmount_target: String,
}

impl Action for RwUnmountDevice {
    const POINT: &'static str = "rw_unmount_device";
    type Verdict = ();

    fn subject(&self) -> Subject<'_> {
        Subject {
            target: Some(&self.unmount_target),
            ..Subject::default()
        }
    }
}
