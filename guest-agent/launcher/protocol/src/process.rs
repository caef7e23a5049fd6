//! A process to start.

use serde::{Deserialize, Serialize};

/// OCI's `process` (config.md), with every optional field decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Standard input, output and error are one terminal, whose master is attached to the answer.
    pub terminal: bool,
    /// Program and arguments; never empty.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Absolute path in the container.
    pub cwd: String,
    /// Its user and groups.
    pub user: User,
    /// Its capability sets.
    pub capabilities: Capabilities,
    /// Its resource limits.
    pub rlimits: Vec<Rlimit>,
    /// Whether execve grants it no new privileges (no_new_privs).
    pub no_new_privileges: bool,
    /// Its OOM score adjustment, -1000 to 1000.
    pub oom_score_adj: i32,
}

/// Numeric ids and umask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// At most 0o777.
    pub umask: u32,
    /// Supplementary groups.
    pub additional_gids: Vec<u32>,
}

/// Capabilities by name (`CAP_CHOWN`), see capabilities(7).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

/// One limit of setrlimit(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// Hard limit.
    pub hard: u64,
    /// Soft limit.
    pub soft: u64,
}
