//! File descriptors that are inherited and known by number.
#![expect(unsafe_code, reason = "a number becomes an owned descriptor")]

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, fcntl},
};
use std::{
    collections::BTreeSet,
    os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

/// 0 to 2 are the standard streams.
const FIRST_INHERITED: RawFd = 3;

/// Why a descriptor cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DescriptorError {
    /// A standard stream.
    #[error("`{0}` is descriptor {1}; descriptors from 3 on may be named")]
    Standard(&'static str, RawFd),
    /// Named twice.
    #[error("`{0}` is descriptor {1}, which another field names too")]
    Twice(&'static str, RawFd),
    /// Not inherited.
    #[error("`{0}` is descriptor {1}, which is not open; it must be inherited without close-on-exec")]
    Closed(&'static str, RawFd, #[source] Errno),
    /// `close_range` failed.
    #[error("cannot close the descriptors that no field names; Linux 5.9 or later is needed")]
    Others(#[source] Errno),
}

/// The descriptors this process was started with; each can be taken once.
#[derive(Debug, Default)]
pub struct Inherited {
    taken: BTreeSet<RawFd>,
}

impl Inherited {
    /// Takes the descriptor that `field` names.
    ///
    /// Must be called before any part of the program opens a descriptor: until then every open descriptor is an inherited one.
    ///
    /// # Errors
    /// When it is a standard stream, not open, or taken already.
    pub fn take(&mut self, field: &'static str, number: RawFd) -> Result<OwnedFd, DescriptorError> {
        if number < FIRST_INHERITED {
            return Err(DescriptorError::Standard(field, number));
        }
        if !self.taken.insert(number) {
            return Err(DescriptorError::Twice(field, number));
        }
        // SAFETY: borrowed for one system call that fails on a closed descriptor.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|e| DescriptorError::Closed(field, number, e))?;
        // SAFETY: the descriptor is open, it was inherited and so has no other owner in this process, and `taken` ensures
        // that it is taken once.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    }

    /// Closes every descriptor from 3 on that was not taken, in case the parent process leaked some.
    ///
    /// As [`Inherited::take`], must be called before any part of the program opens a descriptor.
    ///
    /// # Errors
    /// When the kernel is too old.
    pub fn close_others(&self) -> Result<(), DescriptorError> {
        let mut first = FIRST_INHERITED;
        for taken in self.taken.iter().copied().chain([RawFd::MAX]) {
            if first < taken {
                // SAFETY: these have no owner: every descriptor of this process so far was taken or is a standard stream.
                let closed = unsafe { libc::syscall(libc::SYS_close_range, first, taken - 1, 0) };
                Errno::result(closed).map_err(DescriptorError::Others)?;
            }
            first = taken.saturating_add(1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    #[test]
    fn each_descriptor_can_be_taken_once() {
        let mut inherited = Inherited::default();
        let number = tempfile::tempfile().unwrap().into_raw_fd();
        let owned = inherited.take("kernel", number).unwrap();
        assert!(matches!(inherited.take("initrd", number), Err(DescriptorError::Twice("initrd", _))));
        assert!(matches!(inherited.take("kernel", 1), Err(DescriptorError::Standard(..))));
        assert!(matches!(inherited.take("kernel", -1), Err(DescriptorError::Standard(..))));
        assert!(matches!(inherited.take("kernel", i32::MAX), Err(DescriptorError::Closed(..))));
        drop(owned);
    }
}
