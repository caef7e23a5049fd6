//! What /dev/kvm says of itself.
#![expect(unsafe_code, reason = "KVM_GET_DEVICE_ATTR of /dev/kvm takes an address")]

use kvm_bindings::{KVM_CAP_EXIT_HYPERCALL, KVM_CAP_VM_TYPES, KVM_X86_GRP_SEV, KVM_X86_SNP_VM, kvm_device_attr};
use kvm_ioctls::{Cap, Kvm};
use std::os::fd::AsRawFd;
use vmm_sys_util::{errno, ioctl::ioctl_with_ref, ioctl_iow_nr};

ioctl_iow_nr!(KVM_GET_DEVICE_ATTR, kvm_bindings::KVMIO, 0xe2, kvm_device_attr);

/// `KVM_X86_SNP_POLICY_BITS` (Linux 6.19, `arch/x86/include/uapi/asm/kvm.h`).
const SNP_POLICY_BITS: u32 = 1;
/// `KVM_HC_MAP_GPA_RANGE`, as a bit of `KVM_CAP_EXIT_HYPERCALL`.
const MAP_GPA_RANGE: i32 = 1 << 12;

/// Capabilities that `casemate-vmm` needs, by their names in Documentation/virt/kvm/api.rst.
const PLAIN: [(Cap, &str); 6] = [
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::TscDeadlineTimer, "KVM_CAP_TSC_DEADLINE_TIMER"),
];
/// What it needs besides for guests with private memory.
const PRIVATE_MEMORY: [(Cap, &str); 4] = [
    (Cap::UserMemory2, "KVM_CAP_USER_MEMORY2"),
    (Cap::GuestMemfd, "KVM_CAP_GUEST_MEMFD"),
    (Cap::MemoryAttributes, "KVM_CAP_MEMORY_ATTRIBUTES"),
    (Cap::MemoryFaultInfo, "KVM_CAP_MEMORY_FAULT_INFO"),
];

/// What KVM offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KvmFacts {
    /// `KVM_GET_API_VERSION`.
    pub api: i32,
    /// Needed by every guest and absent.
    pub missing: Vec<&'static str>,
    /// For SEV-SNP.
    pub sev: SevFacts,
}

/// What KVM offers for SEV-SNP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SevFacts {
    /// Whether an SNP VM can be created.
    pub snp_vm: bool,
    /// Needed by guests with private memory and absent.
    pub missing: Vec<&'static str>,
    /// Bits of guest policies that KVM takes; Linux before 6.19 does not say.
    pub policy_bits: Option<u64>,
}

/// Asks /dev/kvm.
pub fn facts() -> Result<KvmFacts, errno::Error> {
    let kvm = Kvm::new()?;
    let absent = |caps: &[(Cap, &'static str)]| -> Vec<_> {
        let absent = caps.iter().filter(|(cap, _)| !kvm.check_extension(*cap));
        absent.map(|(_, name)| *name).collect()
    };
    let mut missing = absent(&PRIVATE_MEMORY);
    if kvm.check_extension_raw(KVM_CAP_EXIT_HYPERCALL.into()) & MAP_GPA_RANGE == 0 {
        missing.push("KVM_CAP_EXIT_HYPERCALL with KVM_HC_MAP_GPA_RANGE");
    }
    Ok(KvmFacts {
        api: kvm.get_api_version(),
        missing: absent(&PLAIN),
        sev: SevFacts {
            snp_vm: kvm.check_extension_raw(KVM_CAP_VM_TYPES.into()) & 1 << KVM_X86_SNP_VM != 0,
            missing,
            policy_bits: policy_bits(&kvm),
        },
    })
}

/// `KVM_X86_SNP_POLICY_BITS`; `None` if KVM does not know it.
fn policy_bits(kvm: &Kvm) -> Option<u64> {
    let mut value = 0u64;
    let request = kvm_device_attr {
        group: KVM_X86_GRP_SEV,
        attr: SNP_POLICY_BITS.into(),
        addr: std::ptr::from_mut(&mut value).addr() as u64,
        ..Default::default()
    };
    std::ptr::from_mut(&mut value).expose_provenance();
    // SAFETY: the attribute is 64 bits wide (Linux arch/x86/kvm/svm/sev.c, sev_dev_get_attr), and `value` lives until the call is
    // over; KVM reads `request`.
    let done = unsafe { ioctl_with_ref(&kvm.as_raw_fd(), KVM_GET_DEVICE_ATTR(), &request) };
    (done == 0).then_some(value)
}
