//! vCPUs: create them, set up CPUID and registers, run each on a thread.

mod cpuid;
mod exits;
mod faults;
mod registers;
mod termination;
mod threads;

pub use exits::VcpuContext;
pub use threads::{ThreadError, VcpuThreads};

use crate::kvm::{KvmError, KvmVm};
use boot_manifest::{cpuid_page::Leaf, launch_area::ENCRYPTION_BIT};
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
    /// Not the C-bit of the measured page tables.
    #[error("SEV-SNP guests need the C-bit at {ENCRYPTION_BIT}; this host has {}", .0.map_or("none".into(), |bit| format!("it at {bit}")))]
    EncryptionBit(Option<u32>),
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

/// Creates all vCPUs; the first starts with the registers `first`, the others wait for INIT and SIPI. Those of an encrypted guest are
/// measured, so the others are given theirs as well, in place of some that depend on the processor's model.
pub fn create(vm: &KvmVm, count: Vcpus, first: &Registers) -> Result<Vec<VcpuFd>, VcpuError> {
    let supported = supported_cpuid(vm)?;
    (0..count.get())
        .map(|id| {
            let vcpu = vm.create_vcpu(id).map_err(|e| VcpuError::Create(id, e))?;
            set_up(&vcpu, id, count, &supported, vm.is_encrypted())?;
            match id {
                0 => set_registers(&vcpu, id, first)?,
                _ if vm.is_encrypted() => set_registers(&vcpu, id, &Registers::reset())?,
                _ => {}
            }
            Ok(vcpu)
        })
        .collect()
}

/// What KVM supports. The page tables of an encrypted guest are measured, with the C-bit where every processor so far has it.
fn supported_cpuid(vm: &KvmVm) -> Result<CpuId, VcpuError> {
    let supported = vm.supported_cpuid().map_err(VcpuError::Cpuid)?;
    match cpuid::encryption_bit(&supported) {
        Some(ENCRYPTION_BIT) => Ok(supported),
        found if vm.is_encrypted() => Err(VcpuError::EncryptionBit(found)),
        _ => Ok(supported),
    }
}

fn state(id: u8, what: &'static str) -> impl Fn(errno::Error) -> VcpuError {
    move |source| VcpuError::State { id, what, source }
}

/// The leaves of the first vCPU, for a guest that reads them from a page.
pub fn cpuid_leaves(vm: &KvmVm, count: Vcpus) -> Result<Vec<Leaf>, VcpuError> {
    let leaves = cpuid::for_vcpu(&supported_cpuid(vm)?, 0, count.get(), vm.is_encrypted());
    let leaves = leaves.iter().map(|entry| Leaf {
        function: entry.function,
        index: entry.index,
        xcr0: 0,
        registers: [entry.eax, entry.ebx, entry.ecx, entry.edx],
    });
    Ok(leaves.collect())
}

/// CPUID first: KVM checks the MSRs against it.
fn set_up(vcpu: &VcpuFd, id: u8, count: Vcpus, supported: &CpuId, encrypted: bool) -> Result<(), VcpuError> {
    let too_many = |_| state(id, "CPUID leaves")(errno::Error::new(libc::E2BIG));
    let cpuid = CpuId::from_entries(&cpuid::for_vcpu(supported, id, count.get(), encrypted)).map_err(too_many)?;
    vcpu.set_cpuid2(&cpuid).map_err(state(id, "CPUID leaves"))?;
    let msrs = registers::msrs().map_err(too_many)?;
    let written = vcpu.set_msrs(&msrs).map_err(state(id, "model-specific registers"))?;
    if written != msrs.as_slice().len() {
        return Err(state(id, "model-specific registers")(errno::Error::new(libc::EINVAL)));
    }
    Ok(())
}

fn set_registers(vcpu: &VcpuFd, id: u8, registers: &Registers) -> Result<(), VcpuError> {
    let sregs = vcpu.get_sregs().map_err(state(id, "segment registers"))?;
    vcpu.set_sregs(&registers::special(sregs, registers))
        .map_err(state(id, "segment registers"))?;
    vcpu.set_regs(&registers::general(registers))
        .map_err(state(id, "general registers"))
}
