//! File descriptors that come by number: those the spec names, taken before anything else is opened, and those that
//! arrive with a control message.
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

/// Standard input, output and error are the process's own.
const FIRST_INHERITED: RawFd = 3;

/// Why a descriptor named in the spec cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DescriptorError {
    /// Below 3.
    #[error("`{0}` is descriptor {1}; the spec may name descriptors from 3 on")]
    Standard(&'static str, RawFd),
    /// Two fields name one descriptor.
    #[error("`{0}` is descriptor {1}, which another field of the spec names too")]
    Twice(&'static str, RawFd),
    /// Not inherited.
    #[error("`{0}` is descriptor {1}, which is not open; it must be inherited without close-on-exec")]
    Closed(&'static str, RawFd, #[source] Errno),
    /// Those the spec does not name.
    #[error("cannot close the descriptors that the spec does not name; Linux 5.9 and later can")]
    Others(#[source] Errno),
}

/// The descriptors this process was started with; each is handed out once.
#[derive(Debug, Default)]
pub struct Inherited {
    taken: BTreeSet<RawFd>,
}

impl Inherited {
    /// Takes the descriptor that `field` names.
    ///
    /// Only `main` may own an `Inherited`, before any part of the VM opens descriptors: what is open now was inherited.
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
        // SAFETY: the descriptor is open, was opened by whoever started this process and not by any part of it, and
        // `taken` makes sure that it is handed out once.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    }

    /// Closes every descriptor from 3 on that was not taken: what whoever started this process forgot to close.
    ///
    /// As [`Inherited::take`], only before any part of the VM opens descriptors.
    pub fn close_others(&self) -> Result<(), DescriptorError> {
        let mut first = FIRST_INHERITED;
        for taken in self.taken.iter().copied().chain([RawFd::MAX]) {
            if first < taken {
                // SAFETY: nobody owns these: whatever this process has opened so far was taken or is one of the first three.
                let closed = unsafe { libc::syscall(libc::SYS_close_range, first, taken - 1, 0) };
                Errno::result(closed).map_err(DescriptorError::Others)?;
            }
            first = taken.saturating_add(1);
        }
        Ok(())
    }
}

/// Every file of a spec.
#[derive(Debug)]
pub struct Files {
    /// What the guest boots from.
    pub boot: BootFiles,
    /// What devices need.
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

/// Files that devices are made of; absent where the spec has none.
#[derive(Debug)]
pub struct DeviceFiles {
    /// Where the serial console is written.
    pub console: Option<File>,
    /// The scratch disk.
    pub scratch: Option<File>,
    /// The host side of the vsock device.
    pub vsock: Option<UnixListener>,
}

impl DeviceFiles {
    /// Those that the VMM writes on behalf of the guest.
    pub fn written(&self) -> Vec<BorrowedFd<'_>> {
        self.console.iter().chain(&self.scratch).map(AsFd::as_fd).collect()
    }
}

impl Files {
    /// Takes all of them.
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

/// Takes one waiting client of a listening socket, in non-blocking mode.
pub fn accept(listener: &impl AsRawFd) -> io::Result<OwnedFd> {
    let client = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(client) })
}

/// Owns the descriptors of a received `SCM_RIGHTS` message.
pub fn received(numbers: Vec<RawFd>) -> Vec<OwnedFd> {
    // SAFETY: the kernel has just installed these for the receiver, which passes each on once, to here.
    numbers.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    #[test]
    fn each_descriptor_is_handed_out_once() {
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
