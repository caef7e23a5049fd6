//! An open state directory, and the files and sockets in it.

use crate::{Record, StateError, at};
use std::{
    fs::{self, File},
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

/// Longest path of a unix socket: `sun_path` without its terminator (unix(7)).
const SOCKET_PATH_MAX: usize = 107;

/// Name of the file that the guest's serial console is written to.
pub const CONSOLE: &str = "console.log";

/// An open state directory; it may be removed at any time by the shim that owns it.
#[derive(Debug)]
pub struct SandboxDir {
    path: PathBuf,
    /// Held open, so that its sockets have a short path.
    handle: File,
}

impl SandboxDir {
    /// Path of the state directory of sandbox `id` in `namespace`.
    pub fn path_below(root: &Path, namespace: &str, id: &str) -> PathBuf {
        root.join(namespace).join(id)
    }

    /// Opens the state directory at `path`.
    ///
    /// # Errors
    /// When it does not exist or cannot be opened.
    pub fn open(path: PathBuf) -> Result<Self, StateError> {
        let handle = File::open(&path).map_err(at("open", &path))?;
        Ok(Self { path, handle })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its path still leads to it.
    pub(crate) fn is_at_its_path(&self) -> bool {
        match (self.handle.metadata(), fs::symlink_metadata(&self.path)) {
            (Ok(own), Ok(there)) => (own.dev(), own.ino()) == (there.dev(), there.ino()),
            _ => false,
        }
    }

    /// The record, once the VM runs.
    ///
    /// # Errors
    /// As [`Record::load`].
    pub fn record(&self) -> Result<Option<Record>, StateError> {
        Record::load(&self.path)
    }

    /// The file with the output of the guest's serial console.
    pub fn console(&self) -> PathBuf {
        self.path.join(CONSOLE)
    }

    /// The VMM's control socket (`SOCK_SEQPACKET`), by a path valid in this process while `self` lives.
    pub fn control_socket(&self) -> PathBuf {
        self.socket("control.sock")
    }

    /// The stream socket to the guest's vsock ports, by a path valid in this process while `self` lives.
    pub fn vsock_socket(&self) -> PathBuf {
        self.socket("vsock.sock")
    }

    /// Ids and namespaces may make the full path too long for a socket address.
    fn socket(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        if path.as_os_str().len() <= SOCKET_PATH_MAX {
            path
        } else {
            format!("/proc/self/fd/{}/{name}", self.handle.as_raw_fd()).into()
        }
    }
}
