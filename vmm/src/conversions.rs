//! Requests of the running guest to make memory private or shared, from any vCPU: checked, and done one at a time.

use crate::private_memory::PrivateMemory;
use snp_launch::{Backing, Conversion, ConversionError, MAP_GPA_RANGE, convert};
use std::sync::{Mutex, PoisonError};
use vm_spec::layout::GpaRange;

/// `KVM_ENOSYS` and `KVM_EINVAL` of hypercalls (Linux `include/uapi/linux/kvm_para.h`), as the guest gets them in RAX. An SNP guest
/// gets an error of the GHCB protocol for anything but zero.
const UNKNOWN_HYPERCALL: u64 = (-1000i64).cast_unsigned();
const REFUSED: u64 = (-22i64).cast_unsigned();

/// Why a guest whose access did not match the state of memory cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ConversionFailure<E: std::error::Error + 'static> {
    /// There is no such memory.
    #[error("the guest accessed memory that it does not have")]
    Refused(#[from] ConversionError),
    /// The host.
    #[error("cannot convert the memory that the guest accessed")]
    Backing(#[source] E),
}

/// Memory that the guest can ask to convert.
#[derive(Debug)]
pub struct Conversions<B = PrivateMemory> {
    ram: Vec<GpaRange>,
    /// One conversion at a time: the pages of a view are given back after the attributes are set, and a conversion of the same range
    /// in the other direction must not come between.
    backing: Mutex<B>,
}

impl Conversions {
    /// Of all RAM.
    pub fn new(memory: PrivateMemory) -> Self {
        Self::of(memory.ranges(), memory)
    }
}

impl<B: Backing> Conversions<B>
where
    B::Error: std::error::Error + 'static,
{
    /// Of the ranges `ram`.
    pub fn of(ram: Vec<GpaRange>, backing: B) -> Self {
        let backing = Mutex::new(backing);
        Self { ram, backing }
    }

    /// Serves `KVM_EXIT_HYPERCALL`; returns what the guest is told: zero if the memory is what it asked for.
    pub fn hypercall(&self, number: u64, [start, pages, attributes, ..]: [u64; 6]) -> u64 {
        if number != MAP_GPA_RANGE {
            return UNKNOWN_HYPERCALL;
        }
        let done = Conversion::from_hypercall([start, pages, attributes], &self.ram).map(|request| self.convert(request));
        if matches!(done, Ok(Ok(()))) { 0 } else { REFUSED }
    }

    /// Serves `KVM_EXIT_MEMORY_FAULT`, after which the guest repeats its access.
    pub fn memory_fault(&self, flags: u64, start: u64, bytes: u64) -> Result<(), ConversionFailure<B::Error>> {
        let request = Conversion::from_memory_fault(flags, start, bytes, &self.ram)?;
        self.convert(request).map_err(ConversionFailure::Backing)
    }

    /// A failure leaves the pieces before it converted, as KVM itself does.
    fn convert(&self, request: Conversion) -> Result<(), B::Error> {
        request
            .pieces()
            .try_for_each(|piece| convert(piece, &mut *self.backing.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Serves `KVM_EXIT_HYPERCALL` of a guest that may have no memory to convert.
pub fn hypercall(conversions: Option<&Conversions>, number: u64, arguments: [u64; 6]) -> u64 {
    conversions.map_or(UNKNOWN_HYPERCALL, |conversions| conversions.hypercall(number, arguments))
}

#[cfg(test)]
mod tests {
    use super::*;
    use snp_launch::Visibility;
    use std::io;

    const PAGE: u64 = 4096;

    #[derive(Default)]
    struct Recorder {
        calls: Vec<(&'static str, u64, Visibility)>,
        full: bool,
    }

    impl Backing for Recorder {
        type Error = io::Error;
        fn set_attributes(&mut self, range: GpaRange, to: Visibility) -> io::Result<()> {
            self.calls.push(("set", range.start, to));
            if self.full {
                Err(io::ErrorKind::OutOfMemory.into())
            } else {
                Ok(())
            }
        }
        fn discard(&mut self, range: GpaRange, unused: Visibility) -> io::Result<()> {
            self.calls.push(("discard", range.start, unused));
            Ok(())
        }
    }

    fn conversions(full: bool) -> Conversions<Recorder> {
        let ram = GpaRange {
            start: 0,
            length: 64 * PAGE,
        };
        let calls = Vec::new();
        Conversions::of(vec![ram], Recorder { calls, full })
    }

    #[test]
    fn a_guest_is_told_whether_its_memory_is_as_it_asked() {
        let asked = conversions(false);
        assert_eq!(asked.hypercall(12, [PAGE, 1, 16, 7, 7, 7]), 0);
        assert_eq!(asked.hypercall(12, [64 * PAGE, 1, 16, 0, 0, 0]) as i64, -22);
        assert_eq!(asked.hypercall(1, [PAGE, 1, 0, 0, 0, 0]) as i64, -1000);
        let calls = asked.backing.into_inner().unwrap().calls;
        assert_eq!(calls, [("set", PAGE, Visibility::Private), ("discard", PAGE, Visibility::Shared)]);
        assert_eq!(conversions(true).hypercall(12, [PAGE, 1, 0, 0, 0, 0]) as i64, -22);
    }

    #[test]
    fn an_access_converts_ram_only() {
        let asked = conversions(false);
        asked.memory_fault(8, 0, PAGE).unwrap();
        let outside = asked.memory_fault(8, 64 * PAGE, PAGE);
        assert!(matches!(outside, Err(ConversionFailure::Refused(ConversionError::NotRam(_)))));
        assert!(matches!(
            conversions(true).memory_fault(0, 0, PAGE),
            Err(ConversionFailure::Backing(_))
        ));
    }
}
