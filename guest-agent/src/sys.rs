//! System calls that have no safe wrapper.

#![expect(unsafe_code, reason = "system calls that have no safe wrapper")]

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    time::Duration,
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
    unistd::{ForkResult, Pid, fork},
};
use tokio::io::{Interest, unix::AsyncFd};

/// `include/uapi/linux/fs.h`
const FS_IMMUTABLE_FL: libc::c_int = 0x10;

/// Forks this process; returns the child's pid in the parent, and `None` in the child.
///
/// # Errors
/// The kernel has no room, or this process has more than one thread.
pub fn fork_single_threaded() -> io::Result<Option<Pid>> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    // SAFETY: this is the only thread, as just checked, so no other thread can hold a lock that the child would wait for.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Sends a signal by number; nix's own type has no real-time signals.
pub fn kill(pid: Pid, number: i32) -> Result<(), Errno> {
    // SAFETY: kill takes two numbers and touches no memory.
    Errno::result(unsafe { libc::kill(pid.as_raw(), number) }).map(drop)
}

/// A process by descriptor: a signal to it never reaches another process of the same pid (pidfd_open(2)).
pub struct PidFd(OwnedFd);

impl PidFd {
    /// The process that has this pid now.
    ///
    /// # Errors
    /// There is none.
    pub fn open(pid: Pid) -> io::Result<Self> {
        // SAFETY: pidfd_open takes two numbers and touches no memory.
        let number = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
        // SAFETY: the kernel has just made this descriptor for this process; it is close-on-exec.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(number as RawFd) }))
    }

    /// Sends a signal by number.
    ///
    /// # Errors
    /// The process has ended.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        let info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: with a null siginfo_t, pidfd_send_signal touches no memory.
        Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), number, info, 0) })?;
        Ok(())
    }
}

/// Reaps one exited child: its exit code or 128 + signal; nothing if all still run.
///
/// Not nix's function, which has no real-time signals and loses a child that was killed by one.
pub fn reap() -> Result<Option<(Pid, u32)>, Errno> {
    let mut status = 0;
    // SAFETY: waitpid writes one int, which lives for the call.
    let pid = Errno::result(unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) })?;
    let code = if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status)
    } else {
        // Stopped or continued children are not requested.
        128 + libc::WTERMSIG(status)
    };
    Ok((pid != 0).then(|| (Pid::from_raw(pid), code as u32)))
}

/// Brings the loopback interface up.
pub fn loopback_up() -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: an all-zero ifreq is a valid value of that plain C structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives for the call; its name is NUL-terminated.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) })?;
    Ok(())
}

/// Makes a TAP of `/dev/net/tun` (tuntap.rst).
#[cfg(test)]
pub fn make_tap(tun: &File, name: &str) -> io::Result<()> {
    // SAFETY: an all-zero ifreq is a valid value of that plain C structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives for the call.
    Errno::result(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF as _, &mut request) })?;
    Ok(())
}

/// Sets a terminal's size in characters.
pub fn resize_terminal(master: BorrowedFd<'_>, columns: u16, rows: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize, which lives for the call.
    Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &size) })?;
    Ok(())
}

/// Sets or clears the immutable flag: no process may open the file for writing, rename or remove it (ioctl_iflags(2)).
fn set_immutable(file: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let mut flags: libc::c_int = 0;
    // SAFETY: FS_IOC_GETFLAGS writes one int, which lives for the call (the `long` in its number is a historical error).
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &mut flags) })?;
    let flags = if on { flags | FS_IMMUTABLE_FL } else { flags & !FS_IMMUTABLE_FL };
    // SAFETY: FS_IOC_SETFLAGS reads one int, which lives for the call.
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_SETFLAGS, &flags) })?;
    Ok(())
}

/// Makes a file immutable. A process with CAP_LINUX_IMMUTABLE can lift that.
pub fn make_immutable(file: BorrowedFd<'_>) -> io::Result<()> {
    set_immutable(file, true)
}

/// Removes the flag that [`make_immutable`] set.
#[cfg(test)]
pub fn make_mutable(file: BorrowedFd<'_>) -> io::Result<()> {
    set_immutable(file, false)
}

/// Registers a descriptor with the runtime, which must be the calling thread's.
pub fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the value owns its descriptor, which is neither replaced nor closed before the value is dropped.
    Ok(unsafe { AsyncFd::register(descriptor) }?)
}

/// As [`register`], for a file of a cgroup, which reports changes as exceptional data (cgroup-v2.rst, "Basic Operations").
pub fn register_for_changes(file: File) -> io::Result<AsyncFd<File>> {
    // SAFETY: as in `register`.
    Ok(unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) }?)
}

/// How long a connect of an AF_VSOCK socket may take (`include/uapi/linux/vm_sockets.h`, `SO_VM_SOCKETS_CONNECT_TIMEOUT`); 2 seconds by
/// default.
pub fn set_vsock_connect_timeout(socket: &OwnedFd, time: Duration) -> io::Result<()> {
    const CONNECT_TIMEOUT: libc::c_int = 6;
    let value = libc::timeval {
        tv_sec: time.as_secs() as libc::time_t,
        tv_usec: time.subsec_micros().into(),
    };
    // SAFETY: the kernel reads one timeval, which is live and has the size that is passed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::AF_VSOCK,
            CONNECT_TIMEOUT,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    Ok(Errno::result(result).map(drop)?)
}

/// Fills `bytes` from the kernel's random number generator, waiting until it is seeded.
pub fn random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        // SAFETY: getrandom writes at most the given number of bytes to the live slice.
        match Errno::result(unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) }) {
            Ok(count) => filled += count as usize,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
