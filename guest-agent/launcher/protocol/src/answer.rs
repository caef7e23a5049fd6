//! The launcher's answer.

use serde::{Deserialize, Serialize};

/// The only answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Answer {
    /// The process exists under this pid, as the launcher and the agent see it.
    Started(u32),
    /// No process was started.
    Failed(Cause),
}

/// Why a process cannot be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// No such program in the container.
    NotFound,
    /// The program is a directory, or is not executable.
    NotExecutable,
    /// The kernel does not know the program's format.
    Format,
    /// The working directory cannot be entered.
    WorkingDirectory,
    /// The seccomp profile cannot be loaded, or forbids a system call that starting a process needs.
    Seccomp,
    /// A mount cannot be made.
    Mount,
    /// A limit cannot be set, or the cgroup cannot be joined.
    Resources,
    /// A parameter of the kernel cannot be set.
    Sysctl,
    /// Something else failed.
    Other,
}
