//! The shim's socket. Its name is a function of containerd, namespace and sandbox: all containers of a pod find one shim.

use super::BootstrapError;
use sha2::{Digest, Sha256};
use std::{
    fs, io,
    os::unix::{
        fs::{DirBuilderExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

/// Directory of shims' sockets unless containerd names another. Short: the path of a socket has at most 107 bytes.
const SOCKET_DIR: &str = "/run/containerd/s";

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

    /// The address that `listener` is bound to.
    pub fn of(listener: &UnixListener) -> Option<Self> {
        listener.local_addr().ok()?.as_pathname().map(|path| Self(path.to_path_buf()))
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

    /// Whether a process listens.
    pub fn answers(&self) -> bool {
        UnixStream::connect(&self.0).is_ok()
    }

    /// Removes the socket.
    pub fn unlink(&self) {
        // It may have been removed already.
        let _ = fs::remove_file(&self.0);
    }
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

    #[test]
    fn a_served_socket_is_kept_and_a_dead_one_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let address = Address::new(dir.path().to_str(), "c", "n", "g");
        let Ok(Bound::New(listener)) = address.bind() else {
            panic!("first bind")
        };
        assert!(matches!(address.bind(), Ok(Bound::Served)));
        drop(listener);
        assert!(matches!(address.bind(), Ok(Bound::New(_))));
        address.unlink();
        assert!(!address.answers());
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
