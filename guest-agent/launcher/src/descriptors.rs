//! The descriptors that this program and its children hold: what the agent left open, and nothing that a container could use.

#![expect(unsafe_code, reason = "numbers of descriptors are taken into ownership or closed")]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    os::unix::net::UnixStream,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::stat::{SFlag, fstat},
};

/// The control socket, whose number the agent passed on the command line.
///
/// # Errors
/// The number is one of the three standard descriptors, or not open.
pub fn inherited_socket(number: RawFd) -> io::Result<UnixStream> {
    if number <= libc::STDERR_FILENO {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: called once, first in main, with the one number that the agent passed for this purpose; nothing else
    // in this process has opened a descriptor yet. fcntl below fails if the number is not open.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl(&owned, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(UnixStream::from(owned))
}

/// Closes every descriptor except the three standard ones and `kept`.
///
/// For a process that a container is about to see: until its execve, a container process can take its descriptors
/// (pidfd_getfd(2), `/proc/<pid>/fd`), close-on-exec or not. Values that own a closed descriptor must never be dropped, so
/// this process must end in `_exit` or execve.
///
/// # Errors
/// The kernel lacks close_range(2), which came with Linux 5.9.
pub fn close_all_but(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept = kept.iter().map(|fd| fd.as_raw_fd()).collect::<Vec<_>>();
    kept.sort_unstable();
    close_numbers_but(&kept)
}

fn close_numbers_but(kept: &[RawFd]) -> io::Result<()> {
    for (first, last) in gaps(kept) {
        // SAFETY: close_range takes three numbers and touches no memory; nothing in this process uses a closed number
        // again, as the caller promises.
        Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
    }
    Ok(())
}

/// Closes every descriptor above the three standard ones but sockets and pipes.
///
/// For an init that waits for its start: libcontainer leaves a directory open (pathrs caches a procfs handle), which may lead
/// out of the container. libcontainer still needs its sockets; they were opened early and have low numbers.
///
/// # Errors
/// As [`close_all_but`].
pub fn close_files() -> io::Result<()> {
    let streams = (libc::STDERR_FILENO + 1..LOW_NUMBERS).filter(|&number| is_stream(number));
    close_numbers_but(&streams.collect::<Vec<_>>())
}

/// Every descriptor that libcontainer opens is below this number.
const LOW_NUMBERS: RawFd = 128;

fn is_stream(number: RawFd) -> bool {
    // SAFETY: the number is borrowed for one call, which fails if it is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let kind = fstat(borrowed).map(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT);
    matches!(kind, Ok(SFlag::S_IFSOCK | SFlag::S_IFIFO))
}

/// The ranges of descriptors above the standard ones and between the sorted numbers `kept`, both ends included.
fn gaps(kept: &[RawFd]) -> Vec<(libc::c_uint, libc::c_uint)> {
    let mut first = libc::STDERR_FILENO as libc::c_uint + 1;
    let mut gaps = Vec::new();
    for &number in kept {
        let number = number as libc::c_uint;
        if number > first {
            gaps.push((first, number - 1));
        }
        first = first.max(number + 1);
    }
    gaps.push((first, libc::c_uint::MAX));
    gaps
}

/// The first of the descriptors that arrived with a message.
pub fn received(numbers: &[RawFd]) -> Option<OwnedFd> {
    let (first, rest) = numbers.split_first()?;
    for &number in rest {
        // SAFETY: the kernel has just created these numbers for this process in recvmsg; they have no other owner.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    }
    // SAFETY: as above.
    Some(unsafe { OwnedFd::from_raw_fd(*first) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_numbers_separate_the_closed_ranges() {
        let end = libc::c_uint::MAX;
        assert_eq!(gaps(&[]), [(3, end)]);
        assert_eq!(gaps(&[3]), [(4, end)]);
        assert_eq!(gaps(&[5]), [(3, 4), (6, end)]);
        assert_eq!(gaps(&[0, 2, 3, 7, 7, 8]), [(4, 6), (9, end)]);
    }
}
