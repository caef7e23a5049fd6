//! Writable devices: `rw_mount_device` and `rw_unmount_device`.

use serde::{Deserialize, Serialize};

use super::{Action, Subject};

/// Pattern of the mount points for writable devices.
const SCRATCH_MOUNT_POINTS: &str = "/run/gcs/c/[0-9a-fA-F]{64}";

/// What a pod's scratch is kept on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Medium {
    /// A disk of the host's, which can return older versions of its blocks.
    #[default]
    Disk,
    /// The guest's memory.
    Memory,
}

impl Medium {
    /// Input documents about a disk are hcsshim's, which have no medium.
    fn is_disk(&self) -> bool {
        *self == Self::Disk
    }
}

/// Mounts a writable device, the pod's scratch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RwMountDevice {
    /// Mount point, `/run/gcs/c/<64 hex>`.
    pub target: String,
    /// The device is encrypted by dm-crypt with a key generated in the guest, or nothing of it leaves the guest's memory.
    pub encrypted: bool,
    /// The guest formats the device instead of trusting its contents.
    pub ensure_filesystem: bool,
    /// `ext4` or `xfs`; in memory `tmpfs`.
    pub filesystem: String,
    /// What it is on. hcsshim has disks only.
    #[serde(default, skip_serializing_if = "Medium::is_disk")]
    pub medium: Medium,
    mount_path_regex: String,
}

impl RwMountDevice {
    /// An empty ext4 file system on a disk, formatted by the guest, at `target`.
    pub fn on_disk(target: impl Into<String>, encrypted: bool) -> Self {
        Self {
            target: target.into(),
            encrypted,
            ensure_filesystem: true,
            filesystem: "ext4".to_owned(),
            medium: Medium::Disk,
            mount_path_regex: SCRATCH_MOUNT_POINTS.to_owned(),
        }
    }

    /// An empty tmpfs at `target`.
    pub fn in_memory(target: impl Into<String>) -> Self {
        Self {
            filesystem: "tmpfs".to_owned(),
            medium: Medium::Memory,
            ..Self::on_disk(target, true)
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
