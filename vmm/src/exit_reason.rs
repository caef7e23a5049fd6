//! Why a VM exits: the first reason that any thread sets wins.

use std::{io, sync::OnceLock};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Why the guest no longer runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// The guest powered itself off.
    PowerOff,
    /// A client of the control socket stopped the VM.
    Stopped,
    /// The guest requested a reset; a VM is never restarted in place.
    Reset,
    /// A vCPU shut down (`KVM_EXIT_SHUTDOWN`).
    TripleFault,
    /// stage0 did not start the kernel; the code of a [`boot_manifest::Refusal`].
    Refused(u8),
    /// The guest cannot go on, with the cause: it terminated itself, or accessed memory that it does not have.
    GuestFailed(String),
    /// KVM cannot run the guest, with the cause.
    KvmFailed(String),
    /// The VMM failed, with the cause.
    VmmFailed(String),
}

/// Holds the first [`ExitReason`] and wakes the main thread through [`ExitEvent::eventfd`].
#[derive(Debug)]
pub struct ExitEvent {
    reason: OnceLock<ExitReason>,
    eventfd: EventFd,
}

impl ExitEvent {
    /// No reason yet.
    ///
    /// # Errors
    /// When the process may open no more descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            reason: OnceLock::new(),
            eventfd: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
        })
    }

    /// Ends the VM; later reasons are ignored.
    pub fn set(&self, reason: ExitReason) {
        if self.reason.set(reason).is_ok() {
            // Cannot block: the counter is zero.
            let _ = self.eventfd.write(1);
        }
    }

    /// The reason, once one is set.
    pub fn reason(&self) -> Option<&ExitReason> {
        self.reason.get()
    }

    /// Readable once a reason is set.
    pub fn eventfd(&self) -> &EventFd {
        &self.eventfd
    }
}

/// An error and its causes on one line, separated by colons.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_wins() {
        let exit_event = ExitEvent::new().unwrap();
        assert!(exit_event.reason().is_none() && exit_event.eventfd().read().is_err());
        exit_event.set(ExitReason::PowerOff);
        exit_event.set(ExitReason::TripleFault);
        assert_eq!(exit_event.reason(), Some(&ExitReason::PowerOff));
        assert_eq!(exit_event.eventfd().read().unwrap(), 1);
    }
}
