//! OCI's `linux.seccomp` (config-linux.md). The order of fields is that of the Go structure whose JSON policies hash.

use serde::{Deserialize, Deserializer, Serialize};

/// A seccomp profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// Action for system calls without a rule.
    pub default_action: String,
    /// The error of the default action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u64>,
    /// Architectures of the filter.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub architectures: Vec<String>,
    /// Flags of seccomp(2).
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub flags: Vec<String>,
    /// Socket of a seccomp notify listener.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub listener_path: String,
    /// Data passed to the listener.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub listener_metadata: String,
    /// The rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub syscalls: Vec<Syscall>,
}

/// One of `linux.seccomp.syscalls`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Syscall {
    /// Go encodes a missing list as null.
    pub names: Option<Vec<String>>,
    /// Names of the system calls.
    pub action: String,
    /// The error of the action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u64>,
    /// Conditions that all must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub args: Vec<Argument>,
}

/// One of `linux.seccomp.syscalls.args`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Argument {
    /// Index of the argument, from 0.
    #[serde(default)]
    pub index: u64,
    /// Value to compare with.
    #[serde(default)]
    pub value: u64,
    /// Second value of a masked comparison.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub value_two: u64,
    /// Comparison operator.
    #[serde(default)]
    pub op: String,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
