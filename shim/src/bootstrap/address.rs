//! The shim's socket. Its name is a function of containerd, namespace and sandbox: all containers of a pod find one shim.

use super::BootstrapError;
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File, TryLockError},
    io,
    os::{
        fd::AsRawFd,
        unix::{
            fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Directory of shims' sockets unless containerd names another. Short: the path of a socket has at most 107 bytes.
const SOCKET_DIR: &str = "/run/containerd/s";

/// Longest wait for the lock of the directory, which others hold for some system calls.
const LOCK_WAIT: Duration = Duration::from_secs(1);
/// Pause between attempts.
const LOCK_POLL: Duration = Duration::from_millis(1);

/// Address of one sandbox's shim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(PathBuf);

/// The result of [`Address::bind`].
pub enum Bound {
    /// No shim served this sandbox; the caller does now.
    New(UnixListener),
    /// A shim of this sandbox already answers.
    Served,
}

impl Address {
    /// The socket of `group` in `namespace` of the containerd at `containerd`.
    pub fn new(socket_dir: Option<&str>, containerd: &str, namespace: &str, group: &str) -> Self {
        // containerd's own formula (runtime/v2/shim, SocketAddress): SHA-256 of the three joined as a path.
        let joined = Path::new(containerd).join(namespace).join(group);
        let name = hex::encode(Sha256::digest(joined.as_os_str().as_encoded_bytes()));
        Self(Path::new(socket_dir.unwrap_or(SOCKET_DIR)).join(name))
    }

    /// Reads what [`Address::write`] wrote.
    pub fn read(bundle: &Path) -> Option<Self> {
        let text = fs::read_to_string(bundle.join("address")).ok()?;
        text.trim().strip_prefix("unix://").map(|path| Self(PathBuf::from(path)))
    }

    /// Writes the address into the bundle, where containerd reads it after a restart.
    pub fn write(&self, bundle: &Path) -> Result<(), BootstrapError> {
        let path = bundle.join("address");
        // Renamed into place: containerd reads it at any time.
        let temporary = bundle.join(".address");
        fs::write(&temporary, self.to_string())
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(|source| BootstrapError::Path {
                doing: "write",
                path,
                source,
            })
    }

    /// Binds the socket unless a running shim serves it; a dead shim's socket is replaced.
    pub fn bind(&self) -> Result<Bound, BootstrapError> {
        let failed = |doing, source| BootstrapError::Path {
            doing,
            path: self.0.clone(),
            source,
        };
        if let Some(dir) = self.0.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o711)
                .create(dir)
                .map_err(|e| failed("make the directory of", e))?;
        }
        // A socket is bound before it listens, and in between it looks like a dead one.
        let _lock = self.lock();
        let listener = match UnixListener::bind(&self.0) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                if self.answers() {
                    return Ok(Bound::Served);
                }
                fs::remove_file(&self.0).map_err(|e| failed("remove the dead socket", e))?;
                UnixListener::bind(&self.0)
            }
            other => other,
        };
        let listener = listener.map_err(|e| failed("bind", e))?;
        fs::set_permissions(&self.0, fs::Permissions::from_mode(0o600)).map_err(|e| failed("protect", e))?;
        Ok(Bound::New(listener))
    }

    /// Whether a process listens. Does not wait for it: a shim that hangs has a full queue, and still listens.
    pub fn answers(&self) -> bool {
        let connected = || {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
            connect(socket.as_raw_fd(), &UnixAddr::new(&self.0)?)
        };
        // Any other error says nothing about the process.
        !matches!(connected(), Err(Errno::ECONNREFUSED | Errno::ENOENT))
    }

    /// Removes the socket of a shim that has died.
    pub fn remove_dead(&self) {
        let _lock = self.lock();
        if !self.answers() {
            // They may have been removed already.
            let _ = fs::remove_file(&self.0);
            let _ = fs::remove_dir_all(self.joining());
        }
    }

    /// Announces a container that the answering shim will be asked to create, so that it does not end before; false if none answers.
    ///
    /// # Errors
    /// When the announcement cannot be written.
    pub fn announce(&self, id: &str, bundle: &Path) -> Result<bool, BootstrapError> {
        let _lock = self.lock();
        if !self.answers() {
            return Ok(false);
        }
        let place = self.joining();
        let link = place.join(id);
        let written = fs::DirBuilder::new().recursive(true).mode(0o700).create(&place).and_then(|()| {
            // Of an earlier container with this id.
            let _ = fs::remove_file(&link);
            symlink(bundle, &link)
        });
        let failed = |source| BootstrapError::Path {
            doing: "announce a container at",
            path: link.clone(),
            source,
        };
        written.map(|()| true).map_err(failed)
    }

    /// Directory of links from the ids of announced containers to their bundles.
    fn joining(&self) -> PathBuf {
        self.0.with_extension("joining")
    }

    /// One process at a time binds or removes a socket in the directory. Nobody waits while holding the lock, so a holder that
    /// keeps it longer than [`LOCK_WAIT`] is stopped: then only processes that start at the same moment can disturb each other.
    fn lock(&self) -> Option<File> {
        let dir = File::open(self.0.parent()?).ok()?;
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            match dir.try_lock() {
                Ok(()) => return Some(dir),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_POLL),
                Err(_) => return None,
            }
        }
    }
}

/// The socket of the shim that listens on it: removed by it, and never another one's that has taken its place.
#[derive(Debug)]
pub struct Name {
    address: Address,
    /// Device and inode of the socket's file.
    file: (u64, u64),
}

impl Name {
    /// The name that `listener` is bound to; `None` once its file is gone. By the socket itself: containerd removes the bundle,
    /// and the address file in it, before the shim ends.
    pub fn of(listener: &UnixListener) -> Option<Self> {
        let address = listener.local_addr().ok()?.as_pathname().map(|path| Address(path.to_path_buf()))?;
        let file = file_at(&address.0)?;
        Some(Self { address, file })
    }

    /// Removes the socket. A connection to it goes on; the next start of the sandbox binds a new one.
    pub fn remove(&self) {
        let _lock = self.address.lock();
        self.take_away();
    }

    /// Removes the socket if no container is announced whose bundle is there, and then `close` says so too. Nothing is announced meanwhile.
    pub fn remove_if(&self, close: impl FnOnce() -> bool) -> bool {
        let _lock = self.address.lock();
        let announced = fs::read_dir(self.address.joining()).into_iter().flatten().flatten();
        // Follows the link.
        let unwanted = announced.map(|link| link.path()).all(|bundle| !bundle.exists()) && close();
        if unwanted {
            self.take_away();
        }
        unwanted
    }

    /// An announced container is being created.
    pub fn joined(&self, id: &str) {
        // There is none for the container that this shim was started for.
        let _ = fs::remove_file(self.address.joining().join(id));
    }

    fn take_away(&self) {
        if file_at(&self.address.0) == Some(self.file) {
            let _ = fs::remove_file(&self.address.0);
            let _ = fs::remove_dir_all(self.address.joining());
        }
    }
}

fn file_at(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "unix://{}", self.0.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_follows_containerds_formula() {
        // printf %s /run/containerd/containerd.sock/default/web | sha256sum
        let address = Address::new(None, "/run/containerd/containerd.sock", "default", "web");
        let digest = hex::encode(Sha256::digest(b"/run/containerd/containerd.sock/default/web"));
        assert_eq!(address.to_string(), format!("unix:///run/containerd/s/{digest}"));
        assert_ne!(address, Address::new(None, "/run/containerd/containerd.sock", "default", "db"));
    }

    fn bound(address: &Address) -> UnixListener {
        match address.bind() {
            Ok(Bound::New(listener)) => listener,
            Ok(Bound::Served) => panic!("somebody answers"),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_served_socket_is_kept_and_a_dead_one_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let address = Address::new(dir.path().to_str(), "c", "n", "g");
        let listener = bound(&address);
        assert!(matches!(address.bind(), Ok(Bound::Served)));
        address.remove_dead();
        assert!(address.answers());
        drop(listener);
        let name = Name::of(&bound(&address)).unwrap();
        name.remove();
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "the lock leaves nothing");
    }

    #[test]
    fn a_shim_stays_for_a_container_that_is_announced() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = dir.path().join("bundle");
        fs::create_dir(&bundle).unwrap();
        let address = Address::new(dir.path().to_str(), "c", "n", "g");
        assert!(!address.announce("c1", &bundle).unwrap(), "nobody answers");
        let listener = bound(&address);
        let name = Name::of(&listener).unwrap();
        assert!(address.announce("c1", &bundle).unwrap());
        assert!(!name.remove_if(|| true) && address.answers());
        // containerd gives it up.
        fs::remove_dir(&bundle).unwrap();
        assert!(!name.remove_if(|| false) && address.answers());
        assert!(name.remove_if(|| true) && !address.answers());
        assert!(!address.announce("c2", dir.path()).unwrap(), "it has no name any more");
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
    }

    #[test]
    fn a_container_is_announced_until_it_is_created() {
        let dir = tempfile::tempdir().unwrap();
        let address = Address::new(dir.path().to_str(), "c", "n", "g");
        let listener = bound(&address);
        let name = Name::of(&listener).unwrap();
        assert!(address.announce("c1", dir.path()).unwrap());
        name.joined("c1");
        name.joined("c0");
        assert!(name.remove_if(|| true));
    }

    #[test]
    fn a_shim_that_hangs_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let address = Address::new(dir.path().to_str(), "c", "n", "g");
        let _listener = bound(&address);
        // More than the queue of any listener (net.core.somaxconn), none of them accepted.
        let waiting: Vec<_> = (0..8192)
            .map_while(|_| {
                let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).ok()?;
                connect(socket.as_raw_fd(), &UnixAddr::new(&address.0).unwrap())
                    .ok()
                    .map(|()| socket)
            })
            .collect();
        assert!(address.answers(), "{} wait", waiting.len());
        assert!(matches!(address.bind(), Ok(Bound::Served)));
    }

    #[test]
    fn a_shim_that_ends_late_leaves_the_socket_of_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let address = Address::new(dir.path().to_str(), "c", "n", "g");
        let old = bound(&address);
        let name = Name::of(&old).unwrap();
        name.remove();
        let new = bound(&address);
        name.remove();
        assert!(address.answers() && Name::of(&new).is_some());
        // The old one listens on, without a name.
        drop(old);
    }

    #[test]
    fn of_many_starts_one_serves() {
        let dir = tempfile::tempdir().unwrap();
        let address = Address::new(dir.path().to_str(), "c", "n", "g");
        for _ in 0..50 {
            let listeners = std::thread::scope(|scope| {
                let starts: Vec<_> = (0..4).map(|_| scope.spawn(|| address.bind().unwrap())).collect();
                let bound = starts.into_iter().map(|start| start.join().unwrap());
                bound
                    .filter_map(|bound| match bound {
                        Bound::New(listener) => Some(listener),
                        Bound::Served => None,
                    })
                    .collect::<Vec<_>>()
            });
            assert_eq!(listeners.len(), 1);
            assert!(address.answers());
            // Its file is left, as by a shim that was killed.
        }
    }

    #[test]
    fn the_address_is_read_back_from_the_bundle() {
        let dir = tempfile::tempdir().unwrap();
        let address = Address::new(None, "c", "n", "g");
        address.write(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("address")).unwrap(), address.to_string());
        assert_eq!(Address::read(dir.path()), Some(address));
    }
}
