//! vCPUs: create them, set up CPUID and registers, run each on a thread.

mod cpuid;
mod exits;
mod faults;
mod pause;
mod registers;
mod termination;
mod threads;

pub use exits::VcpuContext;
pub use threads::{ThreadError, VcpuThreads};

use crate::kvm::{KvmError, KvmVm};
use boot_manifest::{cpuid_page::Leaf, launch_area::PAGE_BYTES};
use kvm_bindings::CpuId;
use kvm_ioctls::VcpuFd;
use vm_spec::{Registers, Vcpus};
use vmm_sys_util::errno;

/// Why a vCPU could not be created.
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    /// `KVM_CREATE_VCPU` failed.
    #[error("cannot create vCPU {0}")]
    Create(u8, #[source] KvmError),
    /// `KVM_GET_SUPPORTED_CPUID` failed.
    #[error("cannot read the CPUID leaves that KVM supports")]
    Cpuid(#[source] KvmError),
    /// KVM rejected a part of its state.
    #[error("vCPU {id}: KVM rejects its {what}")]
    State {
        /// Index of the vCPU.
        id: u8,
        /// Which part.
        what: &'static str,
        /// KVM's errno.
        #[source]
        source: errno::Error,
    },
}

/// Creates all vCPUs; the first starts with the registers `first`, the others wait for INIT and SIPI.
pub fn create(vm: &KvmVm, count: Vcpus, first: &Registers) -> Result<Vec<VcpuFd>, VcpuError> {
    let supported = vm.supported_cpuid().map_err(VcpuError::Cpuid)?;
    (0..count.get())
        .map(|id| {
            let vcpu = vm.create_vcpu(id).map_err(|e| VcpuError::Create(id, e))?;
            set_up(&vcpu, id, count, &supported)?;
            if id == 0 {
                set_entry(&vcpu, first)?;
            }
            Ok(vcpu)
        })
        .collect()
}

fn state(id: u8, what: &'static str) -> impl Fn(errno::Error) -> VcpuError {
    move |source| VcpuError::State { id, what, source }
}

/// The CPUID page of a VM whose guest reads it: the leaves of the first vCPU.
pub fn cpuid_page(vm: &KvmVm, count: Vcpus) -> Result<[u8; PAGE_BYTES], VcpuError> {
    let supported = vm.supported_cpuid().map_err(VcpuError::Cpuid)?;
    let leaves: Vec<Leaf> = cpuid::for_vcpu(&supported, 0, count.get())
        .iter()
        .map(|entry| Leaf {
            function: entry.function,
            index: entry.index,
            xcr0: 0,
            registers: [entry.eax, entry.ebx, entry.ecx, entry.edx],
        })
        .collect();
    Ok(boot_manifest::cpuid_page::to_bytes(&leaves))
}

/// CPUID first: KVM checks the MSRs against it.
fn set_up(vcpu: &VcpuFd, id: u8, count: Vcpus, supported: &CpuId) -> Result<(), VcpuError> {
    let too_many = |_| state(id, "CPUID leaves")(errno::Error::new(libc::E2BIG));
    let cpuid = CpuId::from_entries(&cpuid::for_vcpu(supported, id, count.get())).map_err(too_many)?;
    vcpu.set_cpuid2(&cpuid).map_err(state(id, "CPUID leaves"))?;
    let msrs = registers::msrs().map_err(too_many)?;
    let written = vcpu.set_msrs(&msrs).map_err(state(id, "model-specific registers"))?;
    if written != msrs.as_slice().len() {
        return Err(state(id, "model-specific registers")(errno::Error::new(libc::EINVAL)));
    }
    Ok(())
}

fn set_entry(vcpu: &VcpuFd, first: &Registers) -> Result<(), VcpuError> {
    let sregs = vcpu.get_sregs().map_err(state(0, "segment registers"))?;
    vcpu.set_sregs(&registers::special(sregs, first))
        .map_err(state(0, "segment registers"))?;
    vcpu.set_regs(&registers::general(first)).map_err(state(0, "general registers"))
}
