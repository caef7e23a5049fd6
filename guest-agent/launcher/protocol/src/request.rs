//! What the agent asks for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Process, Profile, Resources};

/// One process to be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// A container with its init, which waits for its start notice.
    Create(Box<Container>),
    /// A process in a running container, which runs at once.
    Exec(Box<Exec>),
    /// A process of the guest outside every container, which runs at once.
    External(External),
}

/// A container to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// 64 hex digits: libcontainer's name of it.
    pub id: String,
    /// Its cgroup, relative to the hierarchy's root.
    pub cgroup: String,
    /// Path of its root file system, mounted by the agent.
    pub rootfs: String,
    /// Whether it can write to its root file system.
    pub read_only_root: bool,
    /// Host name; empty for the guest's or pod's.
    pub hostname: String,
    /// The init.
    pub process: Process,
    /// In the order in which they are made.
    pub mounts: Vec<Mount>,
    /// Namespaces to be made or entered.
    pub namespaces: Vec<Namespace>,
    /// Limits of its cgroup.
    pub resources: Resources,
    /// Device nodes to be made in `/dev`; the device filter decides which of them open.
    pub devices: Vec<Device>,
    /// Kernel parameters of its namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Paths that are hidden.
    pub masked_paths: Vec<String>,
    /// Paths that can only be read.
    pub readonly_paths: Vec<String>,
    /// System call filter of its processes, besides the guest's own.
    pub seccomp: Option<Profile>,
}

/// A process to be started in a running container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// The container's cgroup, relative to the hierarchy's root.
    pub cgroup: String,
    /// The container's namespaces, each with a path.
    pub namespaces: Vec<Namespace>,
    /// The process.
    pub process: Process,
    /// The container's system call filter.
    pub seccomp: Option<Profile>,
}

/// A process to be started in the guest itself, as root and with whatever the guest has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// The cgroup of the guest's own processes, relative to the hierarchy's root.
    pub cgroup: String,
    /// As [`Process::terminal`].
    pub terminal: bool,
    /// As [`Process::args`].
    pub args: Vec<String>,
    /// As [`Process::env`].
    pub env: Vec<String>,
    /// As [`Process::cwd`], in the guest.
    pub cwd: String,
}

/// One of OCI's `mounts`, its source as the guest resolved it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Path in the container.
    pub destination: String,
    /// File system type, or `bind`.
    pub kind: String,
    /// Path in the guest for `bind`, else a name.
    pub source: String,
    /// Mount options, where the document has some.
    pub options: Option<Vec<String>>,
}

/// A namespace of the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// Which kind.
    pub kind: NamespaceKind,
    /// `/proc/<pid>/ns/…` of the namespace to enter; `None` for one of the container's own.
    pub path: Option<String>,
}

/// Kinds of namespaces that containers have; the network namespace is the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceKind {
    /// Process ids.
    Pid,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host name.
    Uts,
    /// Mounts.
    Mount,
    /// Root of the cgroup hierarchy.
    Cgroup,
}

impl NamespaceKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Pid, Self::Ipc, Self::Uts, Self::Mount, Self::Cgroup];

    /// OCI's name of it (config-linux.md).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pid => "pid",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Mount => "mount",
            Self::Cgroup => "cgroup",
        }
    }

    /// The kernel's file of it below `/proc/<pid>/ns`.
    pub fn path_of(self, pid: i32) -> String {
        let file = if self == Self::Mount { "mnt" } else { self.name() };
        format!("/proc/{pid}/ns/{file}")
    }
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Path below `/dev`.
    pub path: String,
    /// `c`, `u`, `b` or `p`, as mknod(1).
    pub kind: String,
    /// Major number.
    pub major: i64,
    /// Minor number.
    pub minor: i64,
    /// Permissions.
    pub file_mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_calls_mount_namespaces_mnt() {
        assert_eq!(NamespaceKind::Mount.path_of(7), "/proc/7/ns/mnt");
        assert_eq!(NamespaceKind::Pid.path_of(7), "/proc/7/ns/pid");
    }
}
