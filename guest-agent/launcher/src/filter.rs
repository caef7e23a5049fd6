//! The seccomp filter of every container: no channel to the host except those that the agent holds.
//!
//! AF_VSOCK is not isolated by network namespaces, so a container could otherwise connect to the VMM. io_uring is
//! blocked too, because it opens sockets without the system call that a filter sees. The filter applies in addition to the profile of
//! a spec, which cannot remove it.

use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall, error::SeccompError};

/// The filter could not be built or loaded.
#[derive(Debug, thiserror::Error)]
#[error("the seccomp filter cannot be set ({0})")]
pub struct FilterError(#[from] SeccompError);

/// Denies AF_VSOCK sockets, io_uring, and system calls of other ABIs (x32, i386) to this process and all its children.
///
/// # Errors
/// The kernel lacks seccomp, or this process lacks CAP_SYS_ADMIN.
pub fn deny_host_channels() -> Result<(), FilterError> {
    let mut filter = ScmpFilterContext::new(ScmpAction::Allow)?;
    filter.set_ctl_nnp(false)?;
    filter.set_act_badarch(ScmpAction::Errno(libc::ENOSYS))?;
    let vsock = ScmpArgCompare::new(0, ScmpCompareOp::MaskedEqual(u64::from(u32::MAX)), libc::AF_VSOCK as u64);
    filter.add_rule_conditional(ScmpAction::Errno(libc::EAFNOSUPPORT), ScmpSyscall::from_name("socket")?, &[vsock])?;
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        filter.add_rule(ScmpAction::Errno(libc::ENOSYS), ScmpSyscall::from_name(call)?)?;
    }
    Ok(filter.load()?)
}

#[cfg(test)]
#[expect(unsafe_code, reason = "the filtered system calls are made directly")]
mod tests {
    use super::*;

    /// Opens a socket of `family` as the C library does; returns only the error.
    fn socket_error(family: i32) -> Option<i32> {
        // SAFETY: socket takes three numbers and touches no memory.
        let fd = unsafe { libc::socket(family, libc::SOCK_STREAM, 0) };
        let error = (fd < 0).then(|| std::io::Error::last_os_error().raw_os_error()).flatten();
        if fd >= 0 {
            // SAFETY: the descriptor was created above and is used by nothing else.
            unsafe { libc::close(fd) };
        }
        error
    }

    #[test]
    fn vsock_and_io_uring_are_denied_and_the_rest_is_allowed() {
        // The filter applies to the thread that loads it, so the test uses a thread of its own.
        std::thread::spawn(|| {
            if nix::unistd::geteuid().is_root() {
                deny_host_channels().unwrap();
                assert_eq!(socket_error(libc::AF_VSOCK), Some(libc::EAFNOSUPPORT));
                assert_eq!(socket_error(libc::AF_UNIX), None);
                // SAFETY: the arguments are deliberately invalid; the kernel reads no memory for them.
                let result = unsafe { libc::syscall(libc::SYS_io_uring_setup, 0, 0) };
                assert_eq!((result, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::ENOSYS)));
            } else {
                assert!(deny_host_channels().is_err());
            }
        })
        .join()
        .unwrap();
    }
}
