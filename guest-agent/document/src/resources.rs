//! Limits of a container's cgroup.

use serde::{Deserialize, Serialize};

/// The fields of OCI's `linux.resources` (config-linux.md) that limit a container inside the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Processor time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids: Option<Pids>,
    /// Which devices it may open. The guest's own list decides that; here they only tell a privileged container.
    #[serde(default, skip_serializing)]
    pub devices: Option<Vec<DeviceRule>>,
}

/// One of `linux.resources.devices`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct DeviceRule {
    /// Whether it allows.
    #[serde(default)]
    pub allow: bool,
    /// `c`, `b`, or all.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// One number; otherwise all.
    pub major: Option<i64>,
    /// One number; otherwise all.
    pub minor: Option<i64>,
}

impl Resources {
    /// Whether every device is allowed, as for a privileged container.
    pub fn allow_every_device(&self) -> bool {
        let is_any = |rule: &DeviceRule| rule.allow && matches!(rule.kind.as_str(), "" | "a") && rule.major.or(rule.minor).is_none();
        self.devices.iter().flatten().any(is_any)
    }
}

/// `linux.resources.memory`, in bytes; -1 means unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Hard limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
    /// Soft limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservation: Option<i64>,
    /// Memory and swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap: Option<i64>,
}

/// `linux.resources.cpu`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// Relative weight of cgroup v1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shares: Option<u64>,
    /// Microseconds per period; -1 means unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<i64>,
    /// Period in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<u64>,
}

/// `linux.resources.pids`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pids {
    /// Maximum number of processes; -1 means unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<i64>,
}
