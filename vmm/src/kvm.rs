//! KVM's view of the VM: its type, memory slots, interrupt controllers, irqfds and ioeventfds. All VM ioctls are made here and below.
#![expect(unsafe_code, reason = "KVM_SET_USER_MEMORY_REGION takes host addresses")]

mod guest_memfd;
pub(crate) mod sev;

pub use guest_memfd::GuestMemfd;

use crate::memory::{self, Memory};
use kvm_bindings::{
    CpuId, KVM_API_VERSION, KVM_CAP_EXIT_HYPERCALL, KVM_CAP_VM_TYPES, KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQCHIP_IOAPIC, KVM_MAX_CPUID_ENTRIES,
    KVM_MEM_GUEST_MEMFD, KVM_MEM_READONLY, KVM_X86_DEFAULT_VM, KVM_X86_SNP_VM, KVM_X86_SW_PROTECTED_VM, KvmIrqRouting, kvm_enable_cap,
    kvm_irq_routing_entry, kvm_irq_routing_irqchip, kvm_userspace_memory_region, kvm_userspace_memory_region2,
};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VcpuFd, VmFd};
use snp_launch::MAP_GPA_RANGE;
use std::{cell::OnceCell, os::fd::AsRawFd, sync::Arc};
use vm_memory::{Bytes, GuestAddress};
use vm_spec::layout::{IO_APIC_PINS, KVM_TSS, PAGE_BYTES};
use vmm_sys_util::{errno, eventfd::EventFd};

/// Capabilities that this VMM needs, by their names in Documentation/virt/kvm/api.rst.
const REQUIRED_CAPS: [(Cap, &str); 6] = [
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::Irqfd, "KVM_CAP_IRQFD"),
    (Cap::Ioeventfd, "KVM_CAP_IOEVENTFD"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
    (Cap::TscDeadlineTimer, "KVM_CAP_TSC_DEADLINE_TIMER"),
];

/// What it needs besides for a VM with private memory.
const PRIVATE_MEMORY_CAPS: [(Cap, &str); 3] = [
    (Cap::UserMemory2, "KVM_CAP_USER_MEMORY2"),
    (Cap::GuestMemfd, "KVM_CAP_GUEST_MEMFD"),
    (Cap::MemoryFaultInfo, "KVM_CAP_MEMORY_FAULT_INFO"),
];

/// First memory slot of [`KvmVm::map_read_only`]; RAM and staging use at most slots 0 to 2.
const FIRST_READ_ONLY_SLOT: u32 = 8;

/// Why a KVM call failed.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// `/dev/kvm` cannot be opened.
    #[error("cannot open /dev/kvm; load kvm_amd or kvm_intel, and let this user read and write the device")]
    Open(#[source] errno::Error),
    /// Not the stable KVM API.
    #[error("/dev/kvm has API version {0}, not {KVM_API_VERSION}")]
    Api(i32),
    /// A needed capability is missing.
    #[error("the host's KVM lacks {0}; Linux 5.10 or later is needed")]
    MissingCap(&'static str),
    /// A capability for private memory is missing.
    #[error("the host's KVM lacks {0}, so no memory can be private to a guest; Linux 6.11 or later is needed")]
    NoPrivateMemory(&'static str),
    /// KVM makes no VMs of this type.
    #[error("the host's KVM makes no {}; `casemate host check` says what the host lacks", .0.name())]
    VmType(VmType),
    /// An ioctl failed.
    #[error("KVM: cannot {what}")]
    Ioctl {
        /// What it was for.
        what: &'static str,
        /// Its errno.
        #[source]
        source: errno::Error,
    },
}

fn refused(what: &'static str) -> impl FnOnce(errno::Error) -> KvmError {
    move |source| KvmError::Ioctl { what, source }
}

/// Type of a VM: who can read the memory of its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum VmType {
    /// Guest and host.
    Default = KVM_X86_DEFAULT_VM,
    /// Private pages are the guest's alone as far as KVM keeps the host from them; nothing is encrypted. For tests of conversions.
    SwProtected = KVM_X86_SW_PROTECTED_VM,
    /// Private pages are encrypted: AMD SEV-SNP.
    Snp = KVM_X86_SNP_VM,
}

impl VmType {
    fn name(self) -> &'static str {
        match self {
            Self::Default => "VMs",
            Self::SwProtected => "software-protected VMs",
            Self::Snp => "SEV-SNP VMs",
        }
    }

    /// Whether a page of RAM is either private or shared.
    pub fn has_private_memory(self) -> bool {
        self != Self::Default
    }
}

/// A VM without vCPUs.
#[derive(Debug)]
pub struct KvmVm {
    kvm: Kvm,
    vm: Arc<VmFd>,
    vm_type: VmType,
    /// The page of [`KvmVm::map_read_only`]; dropped after the VM that maps it.
    read_only_page: OnceCell<Memory>,
}

/// Opens /dev/kvm and checks its API version and capabilities.
pub fn open() -> Result<Kvm, KvmError> {
    let kvm = Kvm::new().map_err(KvmError::Open)?;
    let version = kvm.get_api_version();
    if version != KVM_API_VERSION as i32 {
        return Err(KvmError::Api(version));
    }
    match REQUIRED_CAPS.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
        Some((_, name)) => Err(KvmError::MissingCap(name)),
        None => Ok(kvm),
    }
}

impl KvmVm {
    /// Creates a VM without memory. A guest with private memory can ask to convert it: `KVM_HC_MAP_GPA_RANGE` exits to the VMM.
    pub fn create(kvm: Kvm, vm_type: VmType) -> Result<Self, KvmError> {
        let number = vm_type as u32;
        if vm_type.has_private_memory() {
            if kvm.check_extension_raw(KVM_CAP_VM_TYPES.into()) >> number & 1 == 0 {
                return Err(KvmError::VmType(vm_type));
            }
            if let Some((_, name)) = PRIVATE_MEMORY_CAPS.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
                return Err(KvmError::NoPrivateMemory(name));
            }
        }
        let vm = kvm.create_vm_with_type(number.into()).map_err(refused("create a VM"))?;
        if vm_type.has_private_memory() {
            let exits = kvm_enable_cap {
                cap: KVM_CAP_EXIT_HYPERCALL,
                args: [1 << MAP_GPA_RANGE, 0, 0, 0],
                ..Default::default()
            };
            vm.enable_cap(&exits)
                .map_err(refused("let the guest ask for conversions of memory (KVM_CAP_EXIT_HYPERCALL)"))?;
        }
        Ok(Self {
            kvm,
            vm: Arc::new(vm),
            vm_type,
            read_only_page: OnceCell::new(),
        })
    }

    /// The VM's descriptor, for ioctls of running VMs and for those of SEV.
    pub(crate) fn descriptor(&self) -> &Arc<VmFd> {
        &self.vm
    }

    /// Whether the guest's memory and registers are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.vm_type == VmType::Snp
    }

    /// Gives the VM its memory. A range of `private` has two views from now on, and all of it is shared at first, unless the
    /// guest_memfd says otherwise.
    pub fn map(&self, memory: &Memory, private: &[GuestMemfd]) -> Result<(), KvmError> {
        for (slot, (range, host)) in (0..).zip(memory::mappings(memory)) {
            let done = match private.iter().find(|guest_memfd| guest_memfd.range() == range) {
                None => {
                    let region = kvm_userspace_memory_region {
                        slot,
                        flags: 0,
                        guest_phys_addr: range.start,
                        memory_size: range.length,
                        userspace_addr: host,
                    };
                    // SAFETY: the mapping is `range.length` bytes at `host`; it is owned by the `Memory` that the VM keeps until
                    // every vCPU thread is joined, and the slots do not overlap.
                    unsafe { self.vm.set_user_memory_region(region) }
                }
                Some(guest_memfd) => {
                    let region = kvm_userspace_memory_region2 {
                        slot,
                        flags: KVM_MEM_GUEST_MEMFD,
                        guest_phys_addr: range.start,
                        memory_size: range.length,
                        userspace_addr: host,
                        guest_memfd: guest_memfd.as_raw_fd().cast_unsigned(),
                        ..Default::default()
                    };
                    // SAFETY: as above; KVM keeps its own reference to the guest_memfd.
                    unsafe { self.vm.set_user_memory_region2(region) }
                }
            };
            done.map_err(refused("map guest memory"))?;
        }
        Ok(())
    }

    /// Gives the VM its interrupt controllers: local APICs of the vCPUs to come, and an I/O APIC.
    pub fn add_interrupt_controllers(&self) -> Result<(), KvmError> {
        self.vm.set_tss_address(KVM_TSS as usize).map_err(refused("set the TSS address"))?;
        self.vm.create_irq_chip().map_err(refused("create the interrupt controllers"))?;
        self.route_gsis()
    }

    /// Routes GSIs to the I/O APIC only. KVM's default also routes the first 16 to a PIC, which a guest with
    /// hardware-reduced ACPI never initialises and whose output would wake the first vCPU needlessly.
    fn route_gsis(&self) -> Result<(), KvmError> {
        let entries: Vec<_> = (0..IO_APIC_PINS)
            .map(|pin| {
                let mut entry = kvm_irq_routing_entry {
                    gsi: pin,
                    type_: KVM_IRQ_ROUTING_IRQCHIP,
                    ..Default::default()
                };
                entry.u.irqchip = kvm_irq_routing_irqchip {
                    irqchip: KVM_IRQCHIP_IOAPIC,
                    pin,
                };
                entry
            })
            .collect();
        let routing = KvmIrqRouting::from_entries(&entries).map_err(|_| refused("set the GSI routing")(errno::Error::new(libc::E2BIG)))?;
        self.vm.set_gsi_routing(&routing).map_err(refused("set the GSI routing"))
    }

    /// Maps a read-only page that starts with `bytes` at each of `addresses`: reads do not exit to the VMM, writes do. Does
    /// nothing if KVM lacks `KVM_CAP_READONLY_MEM`, and for a guest whose accesses KVM cannot emulate: SNP has no read-only slots.
    /// Only the first call has an effect.
    pub fn map_read_only(&self, bytes: &[u8], addresses: &[u64]) -> Result<(), KvmError> {
        if self.is_encrypted() || !self.kvm.check_extension(Cap::ReadonlyMem) {
            return Ok(());
        }
        let no_memory = |_| refused("map a read-only page")(errno::Error::new(libc::ENOMEM));
        let page = Memory::from_ranges(&[(GuestAddress(0), PAGE_BYTES as usize)]).map_err(no_memory)?;
        page.write_slice(bytes, GuestAddress(0))
            .map_err(|_| refused("map a read-only page")(errno::Error::new(libc::EINVAL)))?;
        if self.read_only_page.set(page).is_err() {
            return Ok(());
        }
        let hosts = self.read_only_page.get().into_iter().flat_map(memory::mappings);
        for (_, host) in hosts {
            for (slot, address) in (FIRST_READ_ONLY_SLOT..).zip(addresses) {
                let region = kvm_userspace_memory_region {
                    slot,
                    flags: KVM_MEM_READONLY,
                    guest_phys_addr: *address,
                    memory_size: PAGE_BYTES,
                    userspace_addr: host,
                };
                // SAFETY: the mapping is a page at `host` that lives until `read_only_page` is dropped, after the VM; slots and
                // addresses are distinct from those of RAM.
                unsafe { self.vm.set_user_memory_region(region) }.map_err(refused("map a read-only page"))?;
            }
        }
        Ok(())
    }

    /// Lets writes to `event` raise the interrupt `gsi` (`KVM_IRQFD`).
    pub fn register_irqfd(&self, event: &EventFd, gsi: u32) -> Result<(), KvmError> {
        self.vm.register_irqfd(event, gsi).map_err(refused("register an irqfd"))
    }

    /// Lets the guest's write of the 32-bit `value` to `address` signal `event` without an exit to the VMM (`KVM_IOEVENTFD`).
    pub fn register_ioeventfd(&self, event: &EventFd, address: u64, value: u32) -> Result<(), KvmError> {
        self.vm
            .register_ioevent(event, &IoEventAddress::Mmio(address), value)
            .map_err(refused("register an ioeventfd"))
    }

    /// CPUID leaves that KVM supports on this host.
    pub fn supported_cpuid(&self) -> Result<CpuId, KvmError> {
        self.kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(refused("get the supported CPUID leaves"))
    }

    /// Creates vCPU `id`; its local APIC has the same id.
    pub fn create_vcpu(&self, id: u8) -> Result<VcpuFd, KvmError> {
        self.vm.create_vcpu(u64::from(id)).map_err(refused("create a vCPU"))
    }
}

/// `KVM_EXIT_SNP_REQ_CERTS` (Linux 6.20).
pub const EXIT_SNP_REQ_CERTS: u32 = 43;

/// `struct kvm_exit_snp_req_certs`: what the guest says of its buffer for certificates, and the answer.
#[repr(C)]
#[derive(Debug)]
pub struct CertificateRequest {
    /// The buffer's address.
    pub gpa: u64,
    /// Its pages; in an answer of `ENOSPC`, those that are needed.
    pub npages: u64,
    /// The answer: 0, or an errno.
    pub ret: u64,
}

/// The request of a vCPU whose last exit was [`EXIT_SNP_REQ_CERTS`].
pub fn certificate_request(vcpu: &mut VcpuFd) -> &mut CertificateRequest {
    let exit = std::ptr::from_mut(&mut vcpu.get_kvm_run().__bindgen_anon_1);
    // SAFETY: every member of the union begins at its start, it is larger than the structure and aligned for its integers, for which
    // all bytes are valid; KVM does not touch it before the vCPU is entered again, which needs the vCPU that is borrowed here.
    unsafe { &mut *exit.cast() }
}

/// Describes a `KVM_EXIT_INTERNAL_ERROR`, with the guest's instruction address.
pub fn internal_error(vcpu: &mut VcpuFd) -> String {
    // SAFETY: every byte pattern is a valid `suberror`; KVM has filled this part of the union for this exit.
    let suberror = unsafe { vcpu.get_kvm_run().__bindgen_anon_1.internal.suberror };
    // KVM does not know the registers of an encrypted guest.
    let rip = vcpu
        .get_regs()
        .map_or_else(|_| "(secret)".to_owned(), |regs| format!("{:#x}", regs.rip));
    format!("internal error {suberror} at instruction address {rip} (1: an instruction that KVM cannot emulate)")
}
