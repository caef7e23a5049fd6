//! RAM of which each page is private to the guest or shared with the host, and the two ways in which KVM keeps the difference.
//!
//! | attributes ([`Attributes`]) | private pages | shared pages | a conversion gives back |
//! |---|---|---|---|
//! | of the VM (`KVM_SET_MEMORY_ATTRIBUTES`, Linux 6.8) | the guest_memfd | memory of their own | the pages of the view that was left |
//! | of the guest_memfd (`KVM_SET_MEMORY_ATTRIBUTES2`, proposed) | the guest_memfd | the same pages, mapped | nothing: the pages stay |
//!
//! With the first, a device that a guest points to its private pages gets pages of the shared view, which the next conversion gives back:
//! a guest can make the host hold twice its RAM, within what the pod's cgroup has. With the second, an access of the VMM to a page that
//! is private is a SIGBUS, which ends this VM alone.

use crate::{
    kvm::{GuestMemfd, KvmError, KvmVm},
    memory::{self, Memory, MemoryError, Pages},
};
use kvm_bindings::{KVM_CAP_MEMORY_ATTRIBUTES, KVM_MEMORY_ATTRIBUTE_PRIVATE, kvm_memory_attributes};
use kvm_ioctls::VmFd;
use snp_launch::{Backing, Visibility};
use std::{io, sync::Arc};
use vm_spec::{
    MemoryMib,
    layout::{GpaRange, ram_ranges},
};
use vmm_sys_util::errno;

/// KVM answers EAGAIN while somebody uses a page that is to become private, which ends; more often than this, something is wrong.
const TRIES_MAX: u32 = 1000;

/// Why memory could not be made private or shared.
#[derive(Debug, thiserror::Error)]
pub enum PrivateMemoryError {
    /// The guest_memfds or their slots.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The shared view.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// KVM keeps no attributes, in neither way.
    #[error("the host's KVM lacks KVM_CAP_MEMORY_ATTRIBUTES, so no memory can be private to a guest; Linux 6.11 or later is needed")]
    NoAttributes,
    /// KVM refuses the attributes.
    #[error("cannot make the memory from {:#x} to {:#x} {}", .range.start, .range.end(), name(*.to))]
    Attributes {
        /// What should be converted.
        range: GpaRange,
        /// To what.
        to: Visibility,
        /// KVM's errno.
        #[source]
        source: errno::Error,
    },
    /// The hole could not be punched.
    #[error("cannot give the private memory from {:#x} to {:#x} back to the host", .0.start, .0.end())]
    PunchHole(GpaRange, #[source] io::Error),
}

fn name(visibility: Visibility) -> &'static str {
    match visibility {
        Visibility::Private => "private",
        Visibility::Shared => "shared",
    }
}

/// Who keeps the attributes of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attributes {
    /// The VM.
    Vm,
    /// Each guest_memfd, whose pages are the shared ones as well.
    GuestMemfd,
}

/// All RAM of a VM, in both views.
#[derive(Debug)]
pub struct PrivateMemory {
    vm: Arc<VmFd>,
    memory: Memory,
    guest_memfds: Vec<GuestMemfd>,
    attributes: Attributes,
}

impl PrivateMemory {
    /// Gives `vm` its RAM, all of it shared, and `staging_bytes` of memory that can only be shared. Returns the shared view beside the
    /// whole.
    pub fn allocate(vm: &KvmVm, size: MemoryMib, staging_bytes: u64) -> Result<(Memory, Self), PrivateMemoryError> {
        let ranges = ram_ranges(size);
        let in_place = ranges.iter().map(|range| GuestMemfd::in_place(vm, *range));
        let (memory, guest_memfds, attributes) = match in_place.collect::<Result<Option<Vec<_>>, _>>()? {
            Some(guest_memfds) => {
                let files: Vec<_> = guest_memfds.iter().map(|own| (own.range(), own.file())).collect();
                (memory::of_files(size, &files)?, guest_memfds, Attributes::GuestMemfd)
            }
            None => {
                let offered = vm.descriptor().check_extension_raw(KVM_CAP_MEMORY_ATTRIBUTES.into());
                if offered & KVM_MEMORY_ATTRIBUTE_PRIVATE.cast_signed() == 0 {
                    return Err(PrivateMemoryError::NoAttributes);
                }
                let guest_memfds = ranges.iter().map(|range| GuestMemfd::new(vm, *range));
                // Of a guest that shares one small page in each huge one, the host would otherwise hold all of its RAM twice.
                let shared = memory::allocate(size, Pages::Small)?;
                (shared, guest_memfds.collect::<Result<_, _>>()?, Attributes::Vm)
            }
        };
        let memory = memory::with_staging(memory, size, staging_bytes)?;
        vm.map(&memory, &guest_memfds)?;
        let mut this = Self {
            vm: vm.descriptor().clone(),
            memory: memory.clone(),
            guest_memfds,
            attributes,
        };
        if attributes == Attributes::GuestMemfd {
            // New pages of a guest_memfd are private.
            ranges
                .into_iter()
                .try_for_each(|range| this.set_attributes(range, Visibility::Shared))?;
        }
        Ok((memory, this))
    }

    /// Makes all RAM private, before the guest is launched.
    pub fn make_private(&mut self) -> Result<(), PrivateMemoryError> {
        self.ranges()
            .into_iter()
            .try_for_each(|range| self.set_attributes(range, Visibility::Private))
    }

    /// The ranges that can be converted: RAM.
    pub fn ranges(&self) -> Vec<GpaRange> {
        self.guest_memfds.iter().map(GuestMemfd::range).collect()
    }

    /// Who keeps the attributes.
    pub fn attributes(&self) -> Attributes {
        self.attributes
    }

    /// The guest_memfd behind a part of RAM.
    fn behind(&self, range: GpaRange) -> Result<&GuestMemfd, PrivateMemoryError> {
        let behind = self.guest_memfds.iter().find(|guest_memfd| guest_memfd.range().contains(range));
        behind.ok_or(PrivateMemoryError::Memory(MemoryError::OutsideRam(range)))
    }
}

impl Backing for PrivateMemory {
    type Error = PrivateMemoryError;

    fn set_attributes(&mut self, range: GpaRange, to: Visibility) -> Result<(), PrivateMemoryError> {
        let attributes = match to {
            Visibility::Private => u64::from(KVM_MEMORY_ATTRIBUTE_PRIVATE),
            Visibility::Shared => 0,
        };
        let guest_memfd = self.behind(range)?;
        let set = || match self.attributes {
            Attributes::GuestMemfd => guest_memfd.set_attributes(range, attributes),
            Attributes::Vm => self.vm.set_memory_attributes(kvm_memory_attributes {
                address: range.start,
                size: range.length,
                attributes,
                flags: 0,
            }),
        };
        let busy = |done: &Result<(), errno::Error>| done.is_err_and(|errno| matches!(errno.errno(), libc::EAGAIN | libc::EINTR));
        let mut tries = (0..TRIES_MAX).map(|_| set()).skip_while(busy);
        let done = tries.next().unwrap_or(Err(errno::Error::new(libc::EAGAIN)));
        done.map_err(|source| PrivateMemoryError::Attributes { range, to, source })
    }

    fn discard(&mut self, range: GpaRange, unused: Visibility) -> Result<(), PrivateMemoryError> {
        match (self.attributes, unused) {
            (Attributes::GuestMemfd, _) => Ok(()),
            (Attributes::Vm, Visibility::Shared) => Ok(memory::discard(&self.memory, range)?),
            (Attributes::Vm, Visibility::Private) => {
                let guest_memfd = self.behind(range)?;
                guest_memfd.punch_hole(range).map_err(|e| PrivateMemoryError::PunchHole(range, e))
            }
        }
    }
}
