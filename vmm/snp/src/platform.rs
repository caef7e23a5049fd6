//! The commands of a launch (Linux `Documentation/virt/kvm/x86/amd-memory-encryption.rst`), as a trait.

use crate::status::Status;
use kvm_bindings::{kvm_sev_init, kvm_sev_snp_launch_finish, kvm_sev_snp_launch_start, kvm_sev_snp_launch_update};
use std::{error::Error, fmt, io};
use vm_spec::layout::PAGE_BYTES;

/// A page's contents at an address that is a multiple of a page, as `KVM_SEV_SNP_LAUNCH_UPDATE` takes them. KVM writes to it if the
/// firmware corrects a page of CPUID leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C, align(4096))]
pub struct Source(pub [u8; PAGE_BYTES as usize]);

/// An ID block and its authentication structure (SNP firmware ABI, 8.18).
#[derive(Clone, Copy, Debug)]
pub struct IdFiles<'a> {
    /// The ID block.
    pub block: &'a [u8; 96],
    /// Keys and signatures.
    pub authentication: &'a [u8; 4096],
    /// Whether there is an author key.
    pub has_author_key: bool,
}

/// KVM's VM file descriptor, or a model of it. A method fills the addresses in its structure itself, from its other arguments, so
/// that no address comes from elsewhere.
pub trait Platform {
    /// `KVM_SEV_INIT2`.
    fn init(&mut self, init: &mut kvm_sev_init) -> Result<(), Failure>;
    /// `KVM_SEV_SNP_ENABLE_REQ_CERTS` (Linux 6.20): a request of the guest for a report exits to the VMM.
    fn request_certificates(&mut self) -> Result<(), Failure>;
    /// `KVM_SEV_SNP_LAUNCH_START`.
    fn start(&mut self, start: &mut kvm_sev_snp_launch_start) -> Result<(), Failure>;
    /// `KVM_SEV_SNP_LAUNCH_UPDATE`; sets `uaddr` to `source`.
    fn update(&mut self, update: &mut kvm_sev_snp_launch_update, source: &mut Source) -> Result<(), Failure>;
    /// `KVM_SEV_SNP_LAUNCH_FINISH`; sets the addresses of the files of `id`.
    fn finish(&mut self, finish: &mut kvm_sev_snp_launch_finish, id: Option<IdFiles<'_>>) -> Result<(), Failure>;
}

impl<P: Platform> Platform for &mut P {
    fn init(&mut self, init: &mut kvm_sev_init) -> Result<(), Failure> {
        (**self).init(init)
    }
    fn request_certificates(&mut self) -> Result<(), Failure> {
        (**self).request_certificates()
    }
    fn start(&mut self, start: &mut kvm_sev_snp_launch_start) -> Result<(), Failure> {
        (**self).start(start)
    }
    fn update(&mut self, update: &mut kvm_sev_snp_launch_update, source: &mut Source) -> Result<(), Failure> {
        (**self).update(update, source)
    }
    fn finish(&mut self, finish: &mut kvm_sev_snp_launch_finish, id: Option<IdFiles<'_>>) -> Result<(), Failure> {
        (**self).finish(finish, id)
    }
}

/// Why a command failed: KVM's errno, and the firmware's status if it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Errno.
    pub errno: i32,
    /// Of the secure processor.
    pub firmware: Option<Status>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let advice = match (self.firmware, self.errno) {
            (Some(status), _) => return write!(f, "the secure processor says {status}"),
            (None, libc::EBUSY) => "no ASID is free: stop other SNP guests, or give SNP more ASIDs in the firmware setup",
            (None, libc::EPERM) => "KVM does not allow the command in this stage, or the VM is no SNP VM",
            (None, libc::EINVAL) => "KVM does not know the command or one of its bits: a newer host kernel may",
            (None, libc::ENOTTY) => "KVM has no memory encryption: load kvm_amd with SNP enabled",
            (None, libc::ENODEV) => "the secure processor is absent: load ccp, and enable SNP in the firmware setup",
            (None, _) => return io::Error::from_raw_os_error(self.errno).fmt(f),
        };
        write!(f, "{}: {advice}", io::Error::from_raw_os_error(self.errno))
    }
}

impl Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_lies_at_a_page() {
        let sources = vec![Source([0; PAGE_BYTES as usize]); 2];
        assert!(
            sources
                .iter()
                .all(|source| source.0.as_ptr().addr().is_multiple_of(PAGE_BYTES as usize))
        );
        assert_eq!(size_of::<Source>(), PAGE_BYTES as usize);
    }

    #[test]
    fn the_firmware_is_quoted_before_kvm() {
        let failure = Failure {
            errno: libc::EIO,
            firmware: Some(Status(7)),
        };
        assert!(
            failure
                .to_string()
                .starts_with("the secure processor says POLICY_FAILURE (0x7): this host")
        );
        let full = Failure {
            errno: libc::EBUSY,
            firmware: None,
        };
        assert!(full.to_string().contains("no ASID is free"), "{full}");
    }
}
