//! Accesses of a vCPU that do not match the state of memory: the memory is converted, and the access repeated.

use crate::{
    conversions::{ConversionFailure, Conversions},
    exit_reason::{ExitReason, with_causes},
};
use std::io;

/// Most repetitions of one access without anything else. It faults again if another vCPU undoes the conversion, which two vCPUs of a
/// guest do not keep up, or if the conversion does not help.
const REPEATED_MAX: u32 = 1000;

/// Counts how often one access is repeated.
#[derive(Debug, Default)]
pub struct Faults {
    last: (u64, u64),
    repeated: u32,
}

impl Faults {
    /// The vCPU has done something else.
    pub fn clear(&mut self) {
        self.repeated = 0;
    }

    /// Serves `KVM_EXIT_MEMORY_FAULT` right after `KVM_RUN`; a reason if the guest cannot go on.
    pub fn serve(&mut self, conversions: Option<&Conversions>, flags: u64, start: u64, bytes: u64) -> Option<ExitReason> {
        if io::Error::last_os_error().raw_os_error() == Some(libc::EHWPOISON) {
            return Some(ExitReason::KvmFailed(format!("the host's memory behind {start:#x} has failed")));
        }
        let Some(conversions) = conversions else {
            let why = format!("the host cannot provide the memory at {start:#x} (KVM_EXIT_MEMORY_FAULT)");
            return Some(ExitReason::KvmFailed(why));
        };
        if self.is_stuck(flags, start) {
            let why = format!("the memory at {start:#x} stays out of the guest's reach after {REPEATED_MAX} conversions");
            return Some(ExitReason::KvmFailed(why));
        }
        let failure = conversions.memory_fault(flags, start, bytes).err()?;
        let why = with_causes(&failure);
        Some(match failure {
            ConversionFailure::Refused(_) => ExitReason::GuestFailed(why),
            ConversionFailure::Backing(_) => ExitReason::KvmFailed(why),
        })
    }

    fn is_stuck(&mut self, flags: u64, start: u64) -> bool {
        self.repeated = if self.last == (flags, start) { self.repeated + 1 } else { 0 };
        self.last = (flags, start);
        self.repeated > REPEATED_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_that_never_succeeds_ends_and_others_do_not() {
        let mut faults = Faults::default();
        assert_eq!((0..).position(|_| faults.is_stuck(8, 0x1000)), Some(REPEATED_MAX as usize + 1));
        let mut faults = Faults::default();
        for n in 0..3 * u64::from(REPEATED_MAX) {
            assert!(!faults.is_stuck(8, n % 2 * 0x1000));
        }
        for _ in 0..3 * REPEATED_MAX {
            assert!(!faults.is_stuck(0, 0x1000));
            faults.clear();
        }
    }
}
