//! How a VM ends: the first reason counts, whichever thread meets it.

use std::io;
use std::sync::OnceLock;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Why the guest runs no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The guest powered itself off.
    PowerOff,
    /// The control socket asked for it.
    Stopped,
    /// The guest asked for a reset; a VM is never restarted in place.
    Reset,
    /// The guest's first vCPU shut down: a triple fault.
    TripleFault,
    /// KVM cannot run the guest any further, with its reason.
    Unrunnable(String),
    /// The watchdog ended it.
    Storm,
    /// A part of the VMM failed, with its reason.
    Faulty(String),
}

/// Holds the first [`Ending`] and wakes the main thread, which sees [`EndLatch::event`] readable.
#[derive(Debug)]
pub struct EndLatch {
    first: OnceLock<Ending>,
    event: EventFd,
}

impl EndLatch {
    /// Fails where no eventfd is to be had.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            first: OnceLock::new(),
            event: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        })
    }

    /// Ends the VM; later reasons are lost.
    pub fn end(&self, ending: Ending) {
        if self.first.set(ending).is_ok() {
            // A counter of zero takes one.
            let _ = self.event.write(1);
        }
    }

    /// The reason, once there is one.
    pub fn ending(&self) -> Option<&Ending> {
        self.first.get()
    }

    /// Readable from the moment the VM has ended.
    pub fn event(&self) -> &EventFd {
        &self.event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_counts() {
        let latch = EndLatch::new().unwrap();
        assert!(latch.ending().is_none() && latch.event().read().is_err());
        latch.end(Ending::PowerOff);
        latch.end(Ending::TripleFault);
        assert_eq!(latch.ending(), Some(&Ending::PowerOff));
        assert_eq!(latch.event().read().unwrap(), 1);
    }
}
