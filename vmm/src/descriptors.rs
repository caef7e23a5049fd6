//! File descriptors that are known by number: inherited ones that the spec names, and those of `SCM_RIGHTS` messages.
#![expect(unsafe_code, reason = "a number becomes an owned descriptor")]

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::socket::{SockFlag, accept4},
};
use std::{
    collections::BTreeSet,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::net::UnixListener,
    },
};
use vm_spec::{Boot, Fd, VmSpec};

/// 0 to 2 are the standard streams.
const FIRST_INHERITED: RawFd = 3;

/// Why a descriptor named in the spec cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DescriptorError {
    /// A standard stream.
    #[error("`{0}` is descriptor {1}; the spec may name descriptors from 3 on")]
    Standard(&'static str, RawFd),
    /// Two fields name one descriptor.
    #[error("`{0}` is descriptor {1}, which another field of the spec names too")]
    Twice(&'static str, RawFd),
    /// Not inherited.
    #[error("`{0}` is descriptor {1}, which is not open; it must be inherited without close-on-exec")]
    Closed(&'static str, RawFd, #[source] Errno),
    /// `close_range` failed.
    #[error("cannot close the descriptors that the spec does not name; Linux 5.9 or later is needed")]
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
    /// Must be called before any part of the VM opens a descriptor: until then every open descriptor is an inherited one.
    pub fn take(&mut self, field: &'static str, Fd(number): Fd) -> Result<OwnedFd, DescriptorError> {
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
    /// As [`Inherited::take`], must be called before any part of the VM opens a descriptor.
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

/// All files of a spec.
#[derive(Debug)]
pub struct Files {
    /// For boot.
    pub boot: BootFiles,
    /// For devices.
    pub devices: DeviceFiles,
    /// The control socket.
    pub control: OwnedFd,
}

/// Files of `boot`.
#[derive(Debug)]
pub struct BootFiles {
    /// ELF kernel.
    pub kernel: File,
    /// Initramfs.
    pub initrd: Option<File>,
}

/// Files of devices; absent if the spec has no such device.
#[derive(Debug)]
pub struct DeviceFiles {
    /// Output of the serial console.
    pub console: Option<File>,
    /// The scratch disk.
    pub scratch: Option<File>,
    /// The host side of the vsock device.
    pub vsock: Option<UnixListener>,
}

impl DeviceFiles {
    /// Those that the VMM writes.
    pub fn written(&self) -> Vec<BorrowedFd<'_>> {
        self.console.iter().chain(&self.scratch).map(AsFd::as_fd).collect()
    }
}

impl Files {
    /// Takes all files that `spec` names.
    pub fn take(spec: &VmSpec, inherited: &mut Inherited) -> Result<Self, DescriptorError> {
        let mut optional = |field, fd: Option<Fd>| fd.map(|fd| inherited.take(field, fd)).transpose();
        let Boot::Direct { kernel, initrd, .. } = &spec.boot;
        let initrd = optional("boot.direct.initrd", *initrd)?.map(File::from);
        let console = optional("console", spec.console)?.map(File::from);
        let scratch = optional("scratch.file", spec.scratch.as_ref().map(|s| s.file))?.map(File::from);
        let vsock = optional("vsock.listener", spec.vsock.as_ref().map(|v| v.listener))?.map(UnixListener::from);
        let kernel = File::from(inherited.take("boot.direct.kernel", *kernel)?);
        Ok(Self {
            boot: BootFiles { kernel, initrd },
            devices: DeviceFiles { console, scratch, vsock },
            control: inherited.take("control", spec.control)?,
        })
    }
}

/// Accepts a client of a listening socket, in non-blocking mode.
pub fn accept(listener: &impl AsRawFd) -> io::Result<OwnedFd> {
    let client = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
    // SAFETY: accept4 has just returned this new descriptor; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(client) })
}

/// Takes ownership of the descriptors of a received `SCM_RIGHTS` message; each must be passed once.
pub fn received(numbers: Vec<RawFd>) -> Vec<OwnedFd> {
    // SAFETY: the kernel has just installed these for the receiver, which passes each to this function once.
    numbers.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    #[test]
    fn each_descriptor_can_be_taken_once() {
        let mut inherited = Inherited::default();
        let number = tempfile::tempfile().unwrap().into_raw_fd();
        let owned = inherited.take("kernel", Fd(number)).unwrap();
        assert!(matches!(
            inherited.take("initrd", Fd(number)),
            Err(DescriptorError::Twice("initrd", _))
        ));
        assert!(matches!(inherited.take("kernel", Fd(1)), Err(DescriptorError::Standard(..))));
        assert!(matches!(inherited.take("kernel", Fd(-1)), Err(DescriptorError::Standard(..))));
        assert!(matches!(inherited.take("kernel", Fd(i32::MAX)), Err(DescriptorError::Closed(..))));
        drop(owned);
    }
}
