//! The state directory as its shim owns it: created for one VM, removed with it.

use crate::{ProcessId, Record, SandboxDir, StateError, at};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use std::{
    fs::{self, DirBuilder},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::DirBuilderExt, net::UnixListener},
    },
    path::{Path, PathBuf},
};

/// Requests that may wait on the control socket.
const CONTROL_BACKLOG: i32 = 8;
/// How often the namespace's directory may vanish while a directory is made in it.
const CREATE_ATTEMPTS: usize = 16;

/// A state directory; dropping it removes it.
#[derive(Debug)]
pub struct OwnedSandboxDir {
    dir: SandboxDir,
    namespace: String,
    id: String,
}

impl OwnedSandboxDir {
    /// Creates the state directory of sandbox `id` in `namespace`; what a dead shim left there is removed first.
    ///
    /// # Errors
    /// When the recorded VMM is alive, or a system call fails.
    pub fn create(root: &Path, namespace: &str, id: &str) -> Result<Self, StateError> {
        let path = SandboxDir::path_below(root, namespace, id);
        if let Some(record) = Record::load(&path)?
            && record.vmm.is_alive()
        {
            return Err(StateError::Running(record.vmm.pid));
        }
        Self::remove_at(&path)?;
        create(&path).map_err(at("make", &path))?;
        Ok(Self {
            dir: SandboxDir::open(path)?,
            namespace: namespace.to_owned(),
            id: id.to_owned(),
        })
    }

    /// Removes the state directory at `path`, if there is one, and its namespace's once that is empty.
    ///
    /// # Errors
    /// When something in it cannot be removed.
    pub fn remove_at(path: &Path) -> Result<(), StateError> {
        match fs::remove_dir_all(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(at("remove", path)(e)),
            _ => {
                if let Some(namespace) = path.parent() {
                    // Fails while other sandboxes are in it, as it should.
                    let _ = fs::remove_dir(namespace);
                }
                Ok(())
            }
        }
    }

    /// Removes the directory; nothing happens when it is gone, or when the next sandbox of this name has made its own there.
    ///
    /// # Errors
    /// When something in it cannot be removed.
    pub fn remove(&self) -> Result<(), StateError> {
        if self.dir.is_at_its_path() {
            Self::remove_at(self.dir.path())
        } else {
            Ok(())
        }
    }

    /// The directory.
    pub fn dir(&self) -> &SandboxDir {
        &self.dir
    }

    /// containerd namespace of the sandbox.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Binds the socket to the guest's vsock ports.
    ///
    /// # Errors
    /// When the system call fails.
    pub fn bind_vsock(&self) -> Result<OwnedFd, StateError> {
        let path = self.dir.vsock_socket();
        UnixListener::bind(&path).map(Into::into).map_err(at("bind", &path))
    }

    /// Binds the VMM's control socket.
    ///
    /// # Errors
    /// When a system call fails.
    pub fn bind_control(&self) -> Result<OwnedFd, StateError> {
        let path = self.dir.control_socket();
        let bound = || -> nix::Result<OwnedFd> {
            let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
            bind(socket.as_raw_fd(), &UnixAddr::new(&path)?)?;
            listen(&socket, Backlog::new(CONTROL_BACKLOG)?)?;
            Ok(socket)
        };
        bound().map_err(|e| at("bind", &path)(e.into()))
    }

    /// Writes the record: process `vmm`, this process as its shim, and the cgroups of the VMM.
    ///
    /// # Errors
    /// When `vmm` has ended, or the file cannot be written.
    pub fn record(&self, vmm: u32, cgroups: &[PathBuf]) -> Result<(), StateError> {
        let process = |pid| ProcessId::of(pid).ok_or(StateError::Ended(pid));
        let record = Record {
            id: self.id.clone(),
            namespace: self.namespace.clone(),
            vmm: process(vmm)?,
            shim: process(std::process::id())?,
            cgroups: cgroups.to_vec(),
        };
        record.write(self.dir.path())
    }
}

impl Drop for OwnedSandboxDir {
    fn drop(&mut self) {
        // There is no caller to report to: the next sandbox of this name, or the shim's `delete`, removes it or reports why not.
        let _ = self.remove();
    }
}

/// Makes a sandbox's directory and its namespace's, which another sandbox that ends may remove in between.
fn create(path: &Path) -> io::Result<()> {
    let mut made = Ok(());
    for _ in 0..CREATE_ATTEMPTS {
        made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        match &made {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => break,
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_belongs_to_one_sandbox_and_is_removed_with_it() {
        let root = tempfile::tempdir().unwrap();
        let state = OwnedSandboxDir::create(root.path(), "ns", "web").unwrap();
        state.record(std::process::id(), &[]).unwrap();
        let record = state.dir().record().unwrap().unwrap();
        assert_eq!((record.id.as_str(), record.vmm.pid), ("web", std::process::id()));
        assert!(matches!(
            OwnedSandboxDir::create(root.path(), "ns", "web"),
            Err(StateError::Running(_))
        ));
        let path = state.dir().path().to_owned();
        drop(state);
        assert!(!root.path().join("ns").exists());
        assert_eq!(Record::load(&path).unwrap(), None);
    }

    #[test]
    fn the_directory_of_the_next_sandbox_of_this_name_is_left() {
        let root = tempfile::tempdir().unwrap();
        let old = OwnedSandboxDir::create(root.path(), "ns", "web").unwrap();
        old.remove().unwrap();
        let new = OwnedSandboxDir::create(root.path(), "ns", "web").unwrap();
        old.remove().unwrap();
        drop(old);
        assert!(new.dir().path().exists());
    }

    #[test]
    fn the_directory_of_a_dead_shim_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let dir = SandboxDir::path_below(root.path(), "ns", "web");
        fs::create_dir_all(&dir).unwrap();
        let dead = ProcessId {
            pid: std::process::id(),
            start_time: 1,
        };
        let record = Record {
            id: "web".into(),
            namespace: "ns".into(),
            vmm: dead,
            shim: dead,
            cgroups: vec![],
        };
        record.write(&dir).unwrap();
        fs::write(dir.join("vsock.sock"), "").unwrap();
        let state = OwnedSandboxDir::create(root.path(), "ns", "web").unwrap();
        state.bind_vsock().unwrap();
        state.bind_control().unwrap();
    }

    #[test]
    fn a_process_that_has_ended_is_not_recorded() {
        let root = tempfile::tempdir().unwrap();
        let state = OwnedSandboxDir::create(root.path(), "ns", "web").unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(matches!(state.record(child.id(), &[]), Err(StateError::Ended(_))));
        assert_eq!(state.dir().record().unwrap(), None);
    }

    #[test]
    fn long_names_still_have_reachable_sockets() {
        let root = tempfile::tempdir().unwrap();
        let long = "x".repeat(76);
        let state = OwnedSandboxDir::create(root.path(), &long, &long).unwrap();
        let _listener = state.bind_vsock().unwrap();
        assert!(std::os::unix::net::UnixStream::connect(state.dir().vsock_socket()).is_ok());
    }
}
