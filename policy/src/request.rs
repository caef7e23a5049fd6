//! Parts of requests that actions, verdicts and denials share.

use serde::{Deserialize, Serialize};

use crate::ids::ContainerId;

/// The parts of an action that its verdict and its denial refer to.
#[derive(Debug, Default, Clone, Copy)]
pub struct Subject<'a> {
    /// The container.
    pub container: Option<&'a ContainerId>,
    /// The requested environment.
    pub env: Option<&'a [String]>,
    /// The requested capabilities; see [`Subject::capabilities_needed`].
    pub capabilities: Option<&'a Capabilities>,
    /// Whether an action without capabilities is refused without evaluating the policy.
    pub capabilities_needed: bool,
    /// Whether the answer decides on stdio for the container and its exec processes.
    pub decides_stdio: bool,
    /// The mount point or device.
    pub target: Option<&'a str>,
}

/// A user or group: decimal id, and the name in the container's `/etc/passwd` or `/etc/group` (empty if there is none).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdName {
    /// Decimal number.
    pub id: String,
    /// Name, or empty.
    pub name: String,
}

impl IdName {
    /// Id `id` with the name `name`.
    pub fn new(id: u32, name: impl Into<String>) -> Self {
        Self {
            id: id.to_string(),
            name: name.into(),
        }
    }
}

/// The five capability sets of a process, names as `CAP_CHOWN`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    /// Ambient set.
    pub ambient: Vec<String>,
    /// Bounding set.
    pub bounding: Vec<String>,
    /// Effective set.
    pub effective: Vec<String>,
    /// Inheritable set.
    pub inheritable: Vec<String>,
    /// Permitted set.
    pub permitted: Vec<String>,
}

/// A mount of an OCI spec, with the source path in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Path in the container.
    pub destination: String,
    /// Mount options; `None` where the spec has none.
    pub options: Option<Vec<String>>,
    /// Path in the guest, or file system name.
    pub source: String,
    /// File system type.
    #[serde(rename = "type")]
    pub kind: String,
}
