//! A VM of type `KVM_X86_SW_PROTECTED_VM`, made of the parts of the VMM as it makes one of SEV-SNP: all RAM is private but what the guest
//! starts from, which stands for the launched pages.

use crate::launcher::Outcome;
use casemate_vmm::{
    conversions::Conversions,
    descriptors::BootFiles,
    devices::{BusDevice, Buses, power::Power},
    exit_reason::{ExitEvent, ExitReason},
    guest::Guest,
    kvm::{self, KvmVm, VmType},
    memory::Memory,
    private_memory::PrivateMemory,
    seccomp::Filter,
    vcpu::{self, VcpuContext, VcpuThreads},
};
use kvm_bindings::{KVM_MP_STATE_RUNNABLE, kvm_mp_state, kvm_regs, kvm_sregs};
use snp_launch::{Backing, Visibility};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    thread::sleep,
    time::{Duration, Instant},
};
use vm_spec::{
    VmSpec,
    layout::{GpaRange, POWER_PORTS, SERIAL_PORT, SERIAL_PORTS, SLEEP_CONTROL_PORT},
};

/// Limit for a guest.
const TIMEOUT: Duration = Duration::from_secs(100);

/// What a VM is made of.
pub struct Setup {
    /// Memory, boot.
    pub spec: VmSpec,
    /// Files of `boot`.
    pub files: BootFiles,
    /// What is shared when the guest starts.
    pub shared: GpaRange,
    /// RDI of each vCPU beyond the first; all start where the first does.
    pub more_vcpus: Vec<u64>,
}

/// A guest that has ended.
pub struct Ended {
    /// Why.
    pub reason: ExitReason,
    /// Exits that reached the VMM, by the names of its statistics.
    pub exits: BTreeMap<String, u64>,
    /// What it wrote to the serial port.
    pub output: Vec<u8>,
    /// The host's view of its memory.
    pub memory: Memory,
}

/// Keeps what is written to a serial port.
#[derive(Default)]
struct Output(Vec<u8>);

impl BusDevice for Output {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }
    fn write(&mut self, offset: u64, data: &[u8]) {
        if offset == 0 {
            self.0.extend_from_slice(data);
        }
    }
}

/// Runs a guest until it ends; `fill` writes to its memory after its kernel is there, before it is private.
pub fn run(mut setup: Setup, filter: Filter, fill: impl FnOnce(&Memory) -> Outcome<()>) -> Outcome<Ended> {
    setup.spec.vcpus = u8::try_from(1 + setup.more_vcpus.len())?.try_into()?;
    let guest = Guest::open(&setup.spec, &setup.files)?;
    let vm = KvmVm::create(kvm::open()?, VmType::SwProtected)?;
    let (memory, mut private) = PrivateMemory::allocate(&vm, setup.spec.memory, guest.staging_bytes())?;
    vm.add_interrupt_controllers()?;
    let first = guest.load(&memory, || vcpu::cpuid_leaves(&vm, setup.spec.vcpus))?.first;
    fill(&memory)?;
    private.make_private()?;
    private.set_attributes(setup.shared, Visibility::Shared)?;

    let vcpus = vcpu::create(&vm, setup.spec.vcpus, &first)?;
    let (sregs, regs) = (vcpus[0].get_sregs()?, vcpus[0].get_regs()?);
    for (vcpu, rdi) in vcpus[1..].iter().zip(setup.more_vcpus) {
        let apic_base = vcpu.get_sregs()?.apic_base;
        vcpu.set_sregs(&kvm_sregs { apic_base, ..sregs })?;
        vcpu.set_regs(&kvm_regs { rdi, ..regs })?;
        vcpu.set_mp_state(kvm_mp_state {
            mp_state: KVM_MP_STATE_RUNNABLE,
        })?;
    }
    let exit_event = Arc::new(ExitEvent::new()?);
    let output = Arc::new(Mutex::new(Output::default()));
    let mut buses = Buses::default();
    let power = Arc::new(Mutex::new(Power(exit_event.clone())));
    buses.pio.insert(SLEEP_CONTROL_PORT.into(), POWER_PORTS.into(), power)?;
    buses.pio.insert(SERIAL_PORT.into(), SERIAL_PORTS.into(), output.clone())?;
    let context = VcpuContext {
        buses,
        conversions: Some(Conversions::new(private)),
        certificates: None,
        exit_event: exit_event.clone(),
        watchdog: Arc::default(),
        filter,
    };
    let threads = VcpuThreads::start(vcpus, context)?;
    threads.resume();
    let started = Instant::now();
    let reason = loop {
        match exit_event.reason() {
            Some(reason) => break reason.clone(),
            None if started.elapsed() > TIMEOUT => return Err(format!("the guest takes more than {TIMEOUT:?}").into()),
            None => sleep(Duration::from_millis(1)),
        }
    };
    let exits = threads.stats()?.to_vmm;
    threads.stop()?;
    let output = std::mem::take(&mut output.lock().map_err(|_| "the serial port's thread panicked")?.0);
    Ok(Ended {
        reason,
        exits,
        output,
        memory,
    })
}
