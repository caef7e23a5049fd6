//! A sandbox's directory on the host: sockets, console, and the record by which a later process can end the VM.

use super::{cgroup, process::ProcessId};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read, Seek, SeekFrom},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::DirBuilderExt, net::UnixListener},
    },
    path::{Path, PathBuf},
    time::Duration,
};

/// Longest path of a unix socket: `sun_path` without its terminator (unix(7)).
const SOCKET_PATH_MAX: usize = 107;
/// Requests that may wait on the control socket.
const CONTROL_BACKLOG: i32 = 8;
/// How much of a console is read for an error message, in bytes.
const CONSOLE_END_BYTES: u64 = 8 * 1024;
/// The threads of a killed VMM have left its cgroups after this time; leaves room within containerd's five seconds.
const CGROUPS_EMPTY: Duration = Duration::from_secs(1);
/// How often the namespace's directory may vanish while one is made in it.
const NAMESPACE_LOST: usize = 16;
/// Longest record, in bytes.
const RECORD_MAX_BYTES: u64 = 64 * 1024;

/// Why the directory of a sandbox cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A system call on a path in it failed.
    #[error("cannot {doing} {}", path.display())]
    Path {
        /// What was tried.
        doing: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another VM of that name runs.
    #[error("a VM of this sandbox runs already, as process {0}")]
    Running(u32),
    /// The record is not ours.
    #[error("{} is not the record of a sandbox", .0.display())]
    Record(PathBuf, #[source] serde_json::Error),
    /// A process that should run does not.
    #[error("process {0} ended before it could be recorded")]
    Ended(u32),
}

fn at<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StateError + use<'a> {
    move |source| StateError::Path {
        doing,
        path: path.to_owned(),
        source,
    }
}

/// Makes a sandbox's directory and its namespace's, which the end of another sandbox may take away in between.
fn make(path: &Path) -> io::Result<()> {
    let mut made = Ok(());
    for _ in 0..NAMESPACE_LOST {
        made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        match &made {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => break,
        }
    }
    made
}

/// What `state.json` says of a running sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Sandbox id.
    pub id: String,
    /// containerd namespace.
    pub namespace: String,
    /// The VMM.
    pub vmm: ProcessId,
    /// The shim.
    pub shim: ProcessId,
    /// Cgroups made for the VMM.
    pub cgroups: Vec<PathBuf>,
}

impl Record {
    /// Reads the record in `dir`; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read or is not one.
    pub fn load(dir: &Path) -> Result<Option<Self>, StateError> {
        let path = dir.join("state.json");
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(at("open", &path))?,
        };
        let mut text = Vec::new();
        file.take(RECORD_MAX_BYTES).read_to_end(&mut text).map_err(at("read", &path))?;
        serde_json::from_slice(&text).map(Some).map_err(|e| StateError::Record(path, e))
    }

    /// Removes the cgroups that were made for the VMM, once it has been killed.
    pub fn remove_cgroups(&self) {
        cgroup::remove_within(&self.cgroups, CGROUPS_EMPTY);
    }
}

/// A sandbox's directory; dropping it removes it.
pub struct StateDir {
    path: PathBuf,
    namespace: String,
    id: String,
    /// Held open, so that sockets can be reached by a short path.
    handle: File,
}

impl StateDir {
    /// Where the directory of a sandbox lies.
    pub fn path(root: &Path, namespace: &str, id: &str) -> PathBuf {
        root.join(namespace).join(id)
    }

    /// Makes the directory; what a dead shim left under that name is removed first.
    ///
    /// # Errors
    /// When a VM of that name still runs, or a system call fails.
    pub fn create(root: &Path, namespace: &str, id: &str) -> Result<Self, StateError> {
        let path = Self::path(root, namespace, id);
        if let Some(record) = Record::load(&path)? {
            if record.vmm.is_alive() {
                return Err(StateError::Running(record.vmm.pid));
            }
            record.remove_cgroups();
        }
        Self::remove_leftovers(&path)?;
        make(&path).map_err(at("make", &path))?;
        let handle = File::open(&path).map_err(at("open", &path))?;
        Ok(Self {
            path,
            namespace: namespace.to_owned(),
            id: id.to_owned(),
            handle,
        })
    }

    /// Removes the directory at `path`, if there is one, and its namespace's once that is empty.
    ///
    /// # Errors
    /// When something in it cannot be removed.
    pub fn remove_leftovers(path: &Path) -> Result<(), StateError> {
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

    /// containerd namespace of the sandbox.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Path of the file `name`.
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Path of the socket `name` that is short enough for the kernel, valid in this process.
    pub fn reachable(&self, name: &str) -> PathBuf {
        let path = self.path_of(name);
        if path.as_os_str().len() <= SOCKET_PATH_MAX {
            path
        } else {
            format!("/proc/self/fd/{}/{name}", self.handle.as_raw_fd()).into()
        }
    }

    /// Binds `vsock.sock`, a stream socket.
    pub fn bind_vsock(&self) -> Result<OwnedFd, StateError> {
        let path = self.reachable("vsock.sock");
        UnixListener::bind(&path).map(Into::into).map_err(at("bind", &path))
    }

    /// Binds `control.sock`, a `SOCK_SEQPACKET` socket.
    pub fn bind_control(&self) -> Result<OwnedFd, StateError> {
        let path = self.reachable("control.sock");
        let bound = || -> nix::Result<OwnedFd> {
            let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
            bind(socket.as_raw_fd(), &UnixAddr::new(&path)?)?;
            listen(&socket, Backlog::new(CONTROL_BACKLOG)?)?;
            Ok(socket)
        };
        bound().map_err(|e| at("bind", &path)(e.into()))
    }

    /// Writes `state.json`.
    pub fn record(&self, vmm: u32, cgroups: &[PathBuf]) -> Result<(), StateError> {
        let process = |pid| ProcessId::of(pid).ok_or(StateError::Ended(pid));
        let record = Record {
            id: self.id.clone(),
            namespace: self.namespace.clone(),
            vmm: process(vmm)?,
            shim: process(std::process::id())?,
            cgroups: cgroups.to_vec(),
        };
        let path = self.path_of("state.json");
        let text = serde_json::to_vec(&record).map_err(|e| StateError::Record(path.clone(), e))?;
        // Renamed into place: `delete` and `casemate ps` read it at any time.
        let temporary = self.path_of(".state.json");
        fs::write(&temporary, text)
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(at("write", &path))
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        self.remove();
    }
}

impl StateDir {
    /// Removes the directory; nothing happens when it is gone.
    pub fn remove(&self) {
        if let Err(error) = Self::remove_leftovers(&self.path) {
            log::warn!("{}", crate::error::describe(&error));
        }
    }
}

/// The last bytes of a file.
pub fn read_end(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(CONSOLE_END_BYTES)))?;
    let mut end = Vec::new();
    file.take(CONSOLE_END_BYTES).read_to_end(&mut end)?;
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_its_sandboxes_alone_and_vanishes_with_it() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::create(root.path(), "ns", "web").unwrap();
        state.record(std::process::id(), &[]).unwrap();
        let dir = StateDir::path(root.path(), "ns", "web");
        let record = Record::load(&dir).unwrap().unwrap();
        assert_eq!((record.id.as_str(), record.vmm.pid), ("web", std::process::id()));
        assert!(matches!(StateDir::create(root.path(), "ns", "web"), Err(StateError::Running(_))));
        drop(state);
        assert!(!root.path().join("ns").exists());
        assert_eq!(Record::load(&dir).unwrap(), None);
    }

    #[test]
    fn what_a_dead_shim_left_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::path(root.path(), "ns", "web");
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
        fs::write(dir.join("state.json"), serde_json::to_vec(&record).unwrap()).unwrap();
        fs::write(dir.join("vsock.sock"), "").unwrap();
        let state = StateDir::create(root.path(), "ns", "web").unwrap();
        state.bind_vsock().unwrap();
        state.bind_control().unwrap();
    }

    #[test]
    fn long_names_still_have_reachable_sockets() {
        let root = tempfile::tempdir().unwrap();
        let long = "x".repeat(76);
        let state = StateDir::create(root.path(), &long, &long).unwrap();
        let _listener = state.bind_vsock().unwrap();
        assert!(std::os::unix::net::UnixStream::connect(state.reachable("vsock.sock")).is_ok());
    }
}
