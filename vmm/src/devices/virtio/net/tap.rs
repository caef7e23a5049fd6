//! How the network device gets its TAP: the control socket's thread leaves it, the device's thread takes it.

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    sys::stat::makedev,
};
use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::{FileTypeExt, MetadataExt},
    },
    sync::{Arc, Mutex, PoisonError},
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Device number of `/dev/net/tun`: the major one of miscellaneous devices, and `TUN_MINOR`.
const TUN: (u64, u64) = (10, 200);

/// Why a file cannot be the TAP.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// `fstat` failed.
    #[error("cannot stat the TAP: {0}")]
    Metadata(io::Error),
    /// `fcntl` failed.
    #[error("cannot read the flags of the TAP: {0}")]
    Flags(Errno),
    /// Another kind of file.
    #[error("the file is no TAP: it must be /dev/net/tun, opened")]
    NotATap,
    /// A read would block the device's thread.
    #[error("the TAP must be open with O_NONBLOCK")]
    Blocking,
}

/// Where a TAP waits for the device. Clones share it.
#[derive(Clone, Debug)]
pub struct TapSlot(Arc<Slot>);

#[derive(Debug)]
struct Slot {
    waiting: Mutex<Option<File>>,
    given: EventFd,
}

impl TapSlot {
    /// An empty slot.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(Slot {
            waiting: Mutex::default(),
            given: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        })))
    }

    /// Gives the device a TAP; one that it has, or that waits, is closed. Never waits for the device.
    ///
    /// # Errors
    /// When the file is no TAP, as far as can be seen, or would block.
    pub fn attach(&self, tap: File) -> Result<(), TapError> {
        check(&tap)?;
        self.give(tap);
        Ok(())
    }

    /// As [`TapSlot::attach`], for any file with packets: without the check.
    pub fn give(&self, tap: File) {
        let previous = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).replace(tap);
        drop(previous);
        // Fails only if the counter is full, and then the device wakes up anyway.
        let _ = self.0.given.write(1);
    }

    /// The TAP that waits.
    pub(super) fn take(&self) -> Option<File> {
        // Fails if the counter is zero.
        let _ = self.0.given.read();
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Readable when a TAP waits.
    pub(super) fn given(&self) -> RawFd {
        self.0.given.as_raw_fd()
    }
}

fn check(tap: &File) -> Result<(), TapError> {
    let metadata = tap.metadata().map_err(TapError::Metadata)?;
    if !metadata.file_type().is_char_device() || metadata.rdev() != makedev(TUN.0, TUN.1) {
        return Err(TapError::NotATap);
    }
    let flags = fcntl(tap, FcntlArg::F_GETFL).map_err(TapError::Flags)?;
    if !OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK) {
        return Err(TapError::Blocking);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::OpenOptionsExt;

    #[test]
    fn only_a_nonblocking_tap_is_taken() {
        let slot = TapSlot::new().unwrap();
        for other in ["/dev/null", "/proc/self/exe", "/"] {
            assert!(matches!(slot.attach(File::open(other).unwrap()), Err(TapError::NotATap)), "{other}");
        }
        let mut options = File::options();
        options.read(true).write(true);
        let Ok(blocking) = options.open("/dev/net/tun") else {
            eprintln!("SKIPPED: /dev/net/tun cannot be opened here");
            return;
        };
        assert!(matches!(slot.attach(blocking), Err(TapError::Blocking)));
        assert!(slot.take().is_none());
        let tap = options.custom_flags(libc::O_NONBLOCK).open("/dev/net/tun").unwrap();
        slot.attach(tap).unwrap();
        assert!(slot.take().is_some() && slot.take().is_none());
    }
}
