//! A guest_memfd (Linux `Documentation/virt/kvm/api.rst`, `KVM_CREATE_GUEST_MEMFD`): memory that only a guest can map.
#![expect(unsafe_code, reason = "a number becomes an owned descriptor, and an ioctl takes a structure")]

use super::{KvmError, KvmVm, refused};
use kvm_bindings::{KVMIO, kvm_create_guest_memfd};
use nix::fcntl::{FallocateFlags, fallocate};
use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, RawFd},
};
use vm_spec::layout::{GpaRange, PAGE_BYTES};
use vmm_sys_util::{errno, ioctl::ioctl_with_mut_ref, ioctl_iowr_nr};

/// `GUEST_MEMFD_FLAG_MMAP` (Linux 6.18): shared pages can be mapped.
const FLAG_MMAP: u64 = 1;

/// `struct kvm_memory_attributes2`, of a guest_memfd (proposed for Linux, "guest_memfd: In-place conversion support", version 7).
#[repr(C)]
#[derive(Debug, Default)]
struct Attributes2 {
    offset: u64,
    size: u64,
    attributes: u64,
    flags: u64,
    error_offset: u64,
    reserved: [u64; 11],
}

ioctl_iowr_nr!(KVM_SET_MEMORY_ATTRIBUTES2, KVMIO, 0xd2, Attributes2);

/// The private view of a range of RAM.
#[derive(Debug)]
pub struct GuestMemfd {
    range: GpaRange,
    file: File,
}

impl AsRawFd for GuestMemfd {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl GuestMemfd {
    /// For a range whose shared view is memory of its own.
    pub fn new(vm: &KvmVm, range: GpaRange) -> Result<Self, KvmError> {
        Self::with_flags(vm, range, 0).map_err(refused("make private memory (KVM_CREATE_GUEST_MEMFD)"))
    }

    /// For a range whose shared pages are pages of the guest_memfd as well; `None` if this host's KVM cannot do that. All pages are
    /// private.
    ///
    /// Whether it can is asked of the guest_memfd itself: the number of `KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES` is not settled.
    pub fn in_place(vm: &KvmVm, range: GpaRange) -> Result<Option<Self>, KvmError> {
        let made = match Self::with_flags(vm, range, FLAG_MMAP) {
            Err(errno) if errno.errno() == libc::EINVAL => return Ok(None),
            made => made.map_err(refused("make private memory (KVM_CREATE_GUEST_MEMFD)"))?,
        };
        let first = GpaRange {
            length: PAGE_BYTES,
            ..range
        };
        match made.set_attributes(first, kvm_bindings::KVM_MEMORY_ATTRIBUTE_PRIVATE.into()) {
            Ok(()) => Ok(Some(made)),
            Err(errno) if matches!(errno.errno(), libc::ENOTTY | libc::EOPNOTSUPP) => Ok(None),
            Err(errno) => Err(refused("set the attributes of private memory (KVM_SET_MEMORY_ATTRIBUTES2)")(errno)),
        }
    }

    fn with_flags(vm: &KvmVm, range: GpaRange, flags: u64) -> Result<Self, errno::Error> {
        let request = kvm_create_guest_memfd {
            size: range.length,
            flags,
            ..Default::default()
        };
        let fd = vm.descriptor().create_guest_memfd(request)?;
        // SAFETY: KVM has just returned this new descriptor; nothing else owns it.
        let file = unsafe { File::from_raw_fd(fd) };
        Ok(Self { range, file })
    }

    /// The range of RAM that it backs.
    pub fn range(&self) -> GpaRange {
        self.range
    }

    /// The file, to map its shared pages.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// `KVM_SET_MEMORY_ATTRIBUTES2` for a part of the range.
    pub fn set_attributes(&self, part: GpaRange, attributes: u64) -> Result<(), errno::Error> {
        let mut request = Attributes2 {
            offset: part.start - self.range.start,
            size: part.length,
            attributes,
            ..Default::default()
        };
        // SAFETY: the structure has the size that is part of the request's number, and lives until the call is over.
        let done = unsafe { ioctl_with_mut_ref(self, KVM_SET_MEMORY_ATTRIBUTES2(), &mut request) };
        if done == 0 { Ok(()) } else { Err(errno::Error::last()) }
    }

    /// Gives the pages of a part of the range back to the host.
    pub fn punch_hole(&self, part: GpaRange) -> io::Result<()> {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let offset = (part.start - self.range.start).cast_signed();
        Ok(fallocate(&self.file, flags, offset, part.length.cast_signed())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kvm::{self, VmType},
        memory,
    };

    /// `_IOWR(KVMIO, 0xd2, …)` of a structure of 128 bytes.
    #[test]
    fn the_structure_has_the_size_of_the_abi() {
        assert_eq!(KVM_SET_MEMORY_ATTRIBUTES2(), 0xc080_aed2);
        assert_eq!(std::mem::offset_of!(Attributes2, error_offset), 32);
    }

    /// On the host's KVM, in a VM of the default type, which can have a guest_memfd behind its slots but nothing private in it.
    #[test]
    fn a_slot_has_both_views_and_a_hole_is_punched() {
        let Ok(kvm) = kvm::open() else {
            return eprintln!("SKIPPED: /dev/kvm cannot be used here");
        };
        let vm = KvmVm::create(kvm, VmType::Default).unwrap();
        let size = 64.try_into().unwrap();
        let memory = memory::allocate(size, memory::Pages::Huge).unwrap();
        let (range, _) = memory::mappings(&memory).next().unwrap();
        let Ok(guest_memfd) = GuestMemfd::new(&vm, range) else {
            return eprintln!("SKIPPED: this host's KVM has no guest_memfd");
        };
        vm.map(&memory, std::slice::from_ref(&guest_memfd)).unwrap();
        assert_eq!(guest_memfd.file().metadata().unwrap().len(), 64 << 20);
        let page = GpaRange {
            start: range.start + PAGE_BYTES,
            length: PAGE_BYTES,
        };
        guest_memfd.punch_hole(page).unwrap();
        assert!(
            GuestMemfd::in_place(&vm, range).unwrap().is_none(),
            "no released kernel has attributes there"
        );
    }
}
