//! The namespaces of a container, held open from its creation until it is shut down.
//!
//! `/proc/<pid>/ns` would lead into another process's namespaces once the init has ended and its pid is used again.

use std::{fs::File, io, os::fd::AsRawFd, process};

use launcher_protocol::{Namespace, NamespaceKind};
use nix::unistd::Pid;

/// One open namespace of each kind, in the order of [`NamespaceKind::ALL`].
#[derive(Debug)]
pub struct Namespaces([File; NamespaceKind::ALL.len()]);

impl Namespaces {
    /// Opens the namespaces of a process that cannot be reaped meanwhile.
    ///
    /// # Errors
    /// The process has ended.
    pub fn of(pid: Pid) -> io::Result<Self> {
        let open = |kind: NamespaceKind| File::open(format!("/proc/{pid}/ns/{}", kind.file()));
        let [pid, ipc, uts, mount, cgroup] = NamespaceKind::ALL.map(open);
        Ok(Self([pid?, ipc?, uts?, mount?, cgroup?]))
    }

    /// A request to enter the namespace of this kind. The launcher opens the path while this value is alive.
    pub fn enter(&self, kind: NamespaceKind) -> Namespace {
        let file = &self.0[kind as usize];
        Namespace {
            kind,
            path: Some(format!("/proc/{}/fd/{}", process::id(), file.as_raw_fd())),
        }
    }

    /// A request to enter all of them.
    pub fn enter_all(&self) -> Vec<Namespace> {
        NamespaceKind::ALL.map(|kind| self.enter(kind)).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reaper::CHILDREN;
    use std::{
        fs,
        process::{Command, Stdio},
        sync::PoisonError,
    };

    #[test]
    fn they_stay_those_of_the_process_when_its_pid_is_free() {
        let _children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        let namespaces = Namespaces::of(pid).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(Namespaces::of(pid).is_err(), "its files in /proc are gone");
        for (kind, namespace) in NamespaceKind::ALL.into_iter().zip(namespaces.enter_all()) {
            assert_eq!(namespace.kind, kind);
            let own = fs::read_link(format!("/proc/self/ns/{}", kind.file())).unwrap();
            assert_eq!(fs::read_link(namespace.path.unwrap()).unwrap(), own);
        }
    }
}
