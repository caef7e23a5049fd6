//! Shared host directories: `plan9_mount` and `plan9_unmount`.

use serde::{Deserialize, Serialize};

use super::{Action, Subject};

/// Directory that holds all containers.
const ROOT_PREFIX: &str = "/run/gcs/c";
/// Pattern of the mount points for shares, below a container's directory.
const MOUNT_PATH_PREFIX: &str = "/mounts/m[0-9]+";

/// Mounts a directory of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan9Mount {
    root_prefix: String,
    mount_path_prefix: String,
    /// Mount point, `/run/gcs/c/<64 hex>/mounts/m<N>`.
    pub target: String,
}

impl Plan9Mount {
    /// A share to be mounted at `target`.
    pub fn new(target: impl Into<String>) -> Self {
        Self {
            root_prefix: ROOT_PREFIX.to_owned(),
            mount_path_prefix: MOUNT_PATH_PREFIX.to_owned(),
            target: target.into(),
        }
    }
}

impl Action for Plan9Mount {
    const POINT: &'static str = "plan9_mount";
    type Verdict = ();

    fn subject(&self) -> Subject<'_> {
        Subject {
            target: Some(&self.target),
            ..Subject::default()
        }
    }
}

/// Unmounts a share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan9Unmount {
    /// Mount point.
    pub unmount_target: String,
}

impl Action for Plan9Unmount {
    const POINT: &'static str = "plan9_unmount";
    type Verdict = ();

    fn subject(&self) -> Subject<'_> {
        Subject {
            target: Some(&self.unmount_target),
            ..Subject::default()
        }
    }
}
