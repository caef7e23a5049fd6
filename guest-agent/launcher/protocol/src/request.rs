//! The agent's requests.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Process, Profile};

/// One process to start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// A container with its init, which waits for its start notice.
    Create(Box<Container>),
    /// An exec in a running container, which runs at once.
    Exec(Box<Exec>),
    /// A process of the guest outside every container, which runs at once.
    External(External),
}

/// A container to create.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// The container's id in libcontainer: 64 hex digits.
    pub id: String,
    /// Its cgroup, relative to the hierarchy's root.
    pub cgroup: String,
    /// Path of its root file system, mounted by the agent.
    pub rootfs: String,
    /// Whether it can write to its root file system.
    pub read_only_root: bool,
    /// Host name; empty for the guest's or pod's.
    pub hostname: String,
    /// The init process.
    pub process: Process,
    /// Mounts, in the order in which they are made.
    pub mounts: Vec<Mount>,
    /// Namespaces to create or to join.
    pub namespaces: Vec<Namespace>,
    /// Device nodes to create in `/dev`; the device filter decides which of them can be opened.
    pub devices: Vec<Device>,
    /// Kernel parameters of its namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Masked paths.
    pub masked_paths: Vec<String>,
    /// Read-only paths.
    pub readonly_paths: Vec<String>,
    /// Seccomp profile of its processes, in addition to the guest's own filter.
    pub seccomp: Option<Profile>,
}

/// An exec in a running container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// The container's cgroup, relative to the hierarchy's root.
    pub cgroup: String,
    /// The container's namespaces, each with a path.
    pub namespaces: Vec<Namespace>,
    /// The process.
    pub process: Process,
    /// The container's seccomp profile.
    pub seccomp: Option<Profile>,
}

/// A process in the guest itself, as root with all privileges of the guest.
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

/// One of OCI's `mounts`, with the source as the guest resolved it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Path in the container.
    pub destination: String,
    /// File system type, or `bind`.
    pub kind: String,
    /// Path in the guest for `bind`, otherwise a name.
    pub source: String,
    /// Mount options, if the document has any.
    pub options: Option<Vec<String>>,
}

/// A namespace of the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// Its kind.
    pub kind: NamespaceKind,
    /// A path that opens the namespace to join; `None` to create a new one.
    pub path: Option<String>,
}

/// Kinds of namespaces that containers have; the network namespace is always the guest's.
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
    /// Cgroup namespace.
    Cgroup,
}

impl NamespaceKind {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Pid, Self::Ipc, Self::Uts, Self::Mount, Self::Cgroup];

    /// Its name in OCI (config-linux.md).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pid => "pid",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Mount => "mount",
            Self::Cgroup => "cgroup",
        }
    }

    /// The name of its file below `/proc/<pid>/ns`.
    pub const fn file(self) -> &'static str {
        match self {
            Self::Mount => "mnt",
            _ => self.name(),
        }
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
    fn the_kernels_name_for_mount_namespaces_is_mnt() {
        assert_eq!(NamespaceKind::Mount.file(), "mnt");
        assert_eq!(NamespaceKind::Pid.file(), "pid");
    }
}
