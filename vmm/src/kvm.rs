//! KVM's view of the VM: memory slots, interrupt controllers, irqfds and ioeventfds. All VM ioctls are made here.
#![expect(unsafe_code, reason = "KVM_SET_USER_MEMORY_REGION takes host addresses")]

use crate::memory::{self, Memory};
use kvm_bindings::{
    CpuId, KVM_API_VERSION, KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQCHIP_IOAPIC, KVM_MAX_CPUID_ENTRIES, KVM_MEM_READONLY, KvmIrqRouting,
    kvm_irq_routing_entry, kvm_irq_routing_irqchip, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, VcpuFd, VmFd};
use std::cell::OnceCell;
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

/// A VM without vCPUs.
#[derive(Debug)]
pub struct KvmVm {
    kvm: Kvm,
    vm: VmFd,
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
    /// Creates the VM with its memory, local APICs and an I/O APIC.
    pub fn new(kvm: Kvm, memory: &Memory) -> Result<Self, KvmError> {
        let vm = kvm.create_vm().map_err(refused("create a VM"))?;
        for (slot, (range, host)) in (0..).zip(memory::mappings(memory)) {
            let region = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: range.start,
                memory_size: range.length,
                userspace_addr: host,
            };
            // SAFETY: the mapping is `range.length` bytes at `host`; it is owned by the `Memory` that the VM keeps until
            // every vCPU thread is joined, and the slots do not overlap.
            unsafe { vm.set_user_memory_region(region) }.map_err(refused("map guest memory"))?;
        }
        vm.set_tss_address(KVM_TSS as usize).map_err(refused("set the TSS address"))?;
        vm.create_irq_chip().map_err(refused("create the interrupt controllers"))?;
        let this = Self {
            kvm,
            vm,
            read_only_page: OnceCell::new(),
        };
        this.route_gsis()?;
        Ok(this)
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
    /// nothing if KVM lacks `KVM_CAP_READONLY_MEM`. Only the first call has an effect.
    pub fn map_read_only(&self, bytes: &[u8], addresses: &[u64]) -> Result<(), KvmError> {
        if !self.kvm.check_extension(Cap::ReadonlyMem) {
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

/// Describes a `KVM_EXIT_INTERNAL_ERROR`, with the guest's instruction address.
pub fn internal_error(vcpu: &mut VcpuFd) -> String {
    // SAFETY: every byte pattern is a valid `suberror`; KVM has filled this part of the union for this exit.
    let suberror = unsafe { vcpu.get_kvm_run().__bindgen_anon_1.internal.suberror };
    let rip = vcpu.get_regs().map_or(0, |regs| regs.rip);
    format!("internal error {suberror} at instruction address {rip:#x} (1: an instruction that KVM cannot emulate)")
}
