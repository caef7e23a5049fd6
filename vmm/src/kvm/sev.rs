//! The commands of KVM for SEV-SNP (`KVM_MEMORY_ENCRYPT_OP`; Linux `Documentation/virt/kvm/x86/amd-memory-encryption.rst`).
#![expect(unsafe_code, reason = "KVM_GET_DEVICE_ATTR of /dev/kvm takes an address")]

use super::KvmVm;
use kvm_bindings::{
    KVM_X86_GRP_SEV, KVMIO, kvm_device_attr, kvm_sev_cmd, kvm_sev_init, kvm_sev_snp_launch_finish, kvm_sev_snp_launch_start,
    kvm_sev_snp_launch_update, sev_cmd_id_KVM_SEV_INIT2, sev_cmd_id_KVM_SEV_SNP_LAUNCH_FINISH, sev_cmd_id_KVM_SEV_SNP_LAUNCH_START,
    sev_cmd_id_KVM_SEV_SNP_LAUNCH_UPDATE,
};
use kvm_ioctls::{Kvm, VmFd};
use snp_launch::{Failure, IdFiles, Platform, Source, Status};
use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    ptr::{from_mut, from_ref},
    sync::Arc,
};
use vmm_sys_util::{ioctl::ioctl_with_ref, ioctl_iow_nr};

ioctl_iow_nr!(KVM_GET_DEVICE_ATTR, KVMIO, 0xe2, kvm_device_attr);

/// The secure processor's device.
const DEVICE: &str = "/dev/sev";
/// `KVM_X86_SNP_POLICY_BITS` (Linux 6.19, `arch/x86/include/uapi/asm/kvm.h`).
const SNP_POLICY_BITS: u64 = 1;
/// `KVM_X86_SEV_SNP_REQ_CERTS` (Linux 6.20).
const SNP_REQ_CERTS: u64 = 2;
/// `KVM_SEV_SNP_ENABLE_REQ_CERTS` (Linux 6.20).
const ENABLE_REQ_CERTS: u32 = 103;
/// `SEV_RET_NO_FW_CALL` (Linux `include/uapi/linux/psp-sev.h`): the firmware was not asked.
const NO_FIRMWARE_CALL: u32 = u32::MAX;

/// Opens the secure processor's device.
pub fn open() -> io::Result<File> {
    File::options().read(true).write(true).open(DEVICE)
}

/// Bits of guest policies that this host's KVM takes; `None` if it does not say.
pub fn policy_bits(kvm: &Kvm) -> Option<u64> {
    attribute(kvm, SNP_POLICY_BITS)
}

/// Whether this host's KVM can ask for certificates.
pub fn asks_for_certificates(kvm: &Kvm) -> bool {
    attribute(kvm, SNP_REQ_CERTS) == Some(1)
}

fn attribute(kvm: &Kvm, attribute: u64) -> Option<u64> {
    let mut value = 0u64;
    let request = kvm_device_attr {
        group: KVM_X86_GRP_SEV,
        attr: attribute,
        addr: from_mut(&mut value).expose_provenance() as u64,
        ..Default::default()
    };
    // SAFETY: attributes are 64 bits wide (Linux arch/x86/kvm/svm/sev.c, sev_dev_get_attr), and `value` lives until the call is
    // over; KVM reads `request`.
    let done = unsafe { ioctl_with_ref(&kvm.as_raw_fd(), KVM_GET_DEVICE_ATTR(), &request) };
    (done == 0).then_some(value)
}

/// A VM that becomes an SNP guest.
#[derive(Debug)]
pub struct Sev {
    vm: Arc<VmFd>,
    device: File,
}

impl Sev {
    /// `device` is that of [`open`].
    pub fn new(vm: &KvmVm, device: File) -> Self {
        let vm = vm.descriptor().clone();
        Self { vm, device }
    }

    /// `data` is the address of the command's structure.
    fn command(&self, id: u32, data: u64) -> Result<(), Failure> {
        let mut command = kvm_sev_cmd {
            id,
            data,
            sev_fd: self.device.as_raw_fd().cast_unsigned(),
            ..Default::default()
        };
        self.vm.encrypt_op_sev(&mut command).map_err(|errno| Failure {
            errno: errno.errno(),
            firmware: (!matches!(command.error, 0 | NO_FIRMWARE_CALL)).then_some(Status(command.error)),
        })
    }
}

/// Each structure outlives its command, and so do the pages and files that it points to.
impl Platform for Sev {
    fn init(&mut self, init: &mut kvm_sev_init) -> Result<(), Failure> {
        self.command(sev_cmd_id_KVM_SEV_INIT2, from_mut(init).expose_provenance() as u64)
    }

    fn request_certificates(&mut self) -> Result<(), Failure> {
        self.command(ENABLE_REQ_CERTS, 0)
    }

    fn start(&mut self, start: &mut kvm_sev_snp_launch_start) -> Result<(), Failure> {
        self.command(sev_cmd_id_KVM_SEV_SNP_LAUNCH_START, from_mut(start).expose_provenance() as u64)
    }

    fn update(&mut self, update: &mut kvm_sev_snp_launch_update, source: &mut Source) -> Result<(), Failure> {
        update.uaddr = from_mut(source).expose_provenance() as u64;
        self.command(sev_cmd_id_KVM_SEV_SNP_LAUNCH_UPDATE, from_mut(update).expose_provenance() as u64)
    }

    fn finish(&mut self, finish: &mut kvm_sev_snp_launch_finish, id: Option<IdFiles<'_>>) -> Result<(), Failure> {
        if let Some(id) = id {
            finish.id_block_uaddr = from_ref(id.block).expose_provenance() as u64;
            finish.id_auth_uaddr = from_ref(id.authentication).expose_provenance() as u64;
        }
        self.command(sev_cmd_id_KVM_SEV_SNP_LAUNCH_FINISH, from_mut(finish).expose_provenance() as u64)
    }
}
