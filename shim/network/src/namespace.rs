//! A network namespace, held open, and work inside of it.

use crate::{Interface, Loopback, NetworkError, Tap, loopback, read, redirect};
use nix::{
    sched::{CloneFlags, setns},
    sys::stat::fstat,
};
use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    thread,
};

/// A network namespace.
#[derive(Debug)]
pub struct Netns(File);

impl Netns {
    /// The namespace at `path`, such as `/run/netns/NAME`.
    ///
    /// # Errors
    /// When there is none, or it is the host's.
    pub fn open(path: &Path) -> Result<Self, NetworkError> {
        let failed = |e| NetworkError::Open(path.to_owned(), e);
        let file = File::open(path).map_err(failed)?;
        if !is_netns(&file) {
            return Err(NetworkError::NotANamespace(path.to_owned()));
        }
        for host in ["/proc/self/ns/net", "/proc/1/ns/net"] {
            // Where the host's first process may not be looked at, this process is in its namespace.
            let Ok(host) = File::open(host) else { continue };
            if same(&file, &host).map_err(failed)? {
                return Err(NetworkError::Host(path.to_owned()));
            }
        }
        Ok(Self(file))
    }

    /// The namespace of process `pid`.
    ///
    /// # Errors
    /// When it has ended, or is in the host's.
    pub fn of_process(pid: u32) -> Result<Self, NetworkError> {
        Self::open(&PathBuf::from(format!("/proc/{pid}/ns/net")))
    }

    /// Runs `work` in the namespace, on a thread that ends with it.
    ///
    /// # Errors
    /// When the thread cannot enter.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T, NetworkError> + Send) -> Result<T, NetworkError> {
        let enter = || {
            setns(&self.0, CloneFlags::CLONE_NEWNET).map_err(|e| NetworkError::Step("enter the pod's network namespace", e.into()))?;
            work()
        };
        thread::scope(|scope| match scope.spawn(enter).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// The one interface that is up, besides loopback and [`Tap`]s; `None` without one.
    ///
    /// # Errors
    /// When there are several, or the guest cannot be given what it has.
    pub fn interface(&self) -> Result<Option<Interface>, NetworkError> {
        self.inside(read::interface)
    }

    /// Makes a TAP and redirects frames between it and the interface, in the place of what an earlier VM had there.
    ///
    /// # Errors
    /// When the kernel refuses a step; then nothing is redirected.
    pub fn connect(&self, interface: &Interface) -> Result<Tap, NetworkError> {
        self.inside(|| redirect::connect(interface))
    }

    /// Takes back what [`Netns::connect`] put there; nothing to do is success.
    ///
    /// # Errors
    /// When the kernel refuses a step.
    pub fn disconnect(&self) -> Result<(), NetworkError> {
        self.inside(redirect::disconnect)
    }

    /// Listens for TCP connections to any port of the namespace's loopback.
    ///
    /// # Errors
    /// When the kernel cannot redirect them.
    pub fn loopback(&self) -> Result<Loopback, NetworkError> {
        self.inside(|| loopback::listen(&self.0))
    }
}

/// `NS_GET_NSTYPE` (ioctl_ns(2)).
fn is_netns(file: &File) -> bool {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: the request takes no argument and reads nothing of this process.
    (unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) }) == libc::CLONE_NEWNET
}

fn same(one: &File, other: &File) -> io::Result<bool> {
    let (one, other) = (fstat(one)?, fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}
