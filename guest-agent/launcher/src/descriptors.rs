//! Takes ownership of what the agent left open for this program.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd, RawFd},
    os::unix::net::UnixStream,
};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// The control socket under the number that the agent wrote on the command line.
///
/// # Errors
/// The number is one of the three standard descriptors, or not open.
pub fn inherited_socket(number: RawFd) -> io::Result<UnixStream> {
    if number <= libc::STDERR_FILENO {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: called once, first thing in main, with the one number the agent passed for this purpose; nothing else
    // in this process has opened a descriptor yet. fcntl below fails if the number is not open.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    // No process of a container may keep the agent's socket.
    fcntl(&owned, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(UnixStream::from(owned))
}

/// The first of the descriptors that arrived with a message.
pub fn received(numbers: &[RawFd]) -> Option<OwnedFd> {
    let (first, rest) = numbers.split_first()?;
    for &number in rest {
        // SAFETY: the kernel just made these numbers for this process in recvmsg; they have no other owner.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    }
    // SAFETY: as above.
    Some(unsafe { OwnedFd::from_raw_fd(*first) })
}
