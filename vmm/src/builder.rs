//! Builds a paused VM from a spec: console, jail, VM, memory, devices, kernel, boot tables, reports, vCPUs, launch, in this order.

use crate::{
    certificates::Certificates,
    control::{self, Control, ControlError},
    conversions::Conversions,
    descriptors::Files,
    device_thread::DeviceThreadError,
    devices::{
        device_set::{DeviceContext, DeviceSet, DeviceSetError},
        serial::{Output, OutputError},
    },
    event_loop::EventLoop,
    exit_reason::ExitEvent,
    guest::{Guest, GuestError},
    jail::{self, JailConfig, JailError},
    kvm::{self, KvmError, KvmVm, VmType},
    memory::{self, Memory, MemoryError, Pages},
    private_memory::{PrivateMemory, PrivateMemoryError},
    reports::{self, ReportsError},
    seccomp::Filters,
    snp::{self, Snp, SnpError},
    threads::{self, NetworkThread, Threads},
    vcpu::{self, ThreadError, VcpuContext, VcpuError, VcpuThreads},
    vm::{Kept, Vm},
    watchdog::Watchdog,
};
use snp_launch::Correction;
use std::{
    io::{self, Write},
    os::fd::AsFd,
    rc::Rc,
    sync::Arc,
};
use vm_spec::{MemoryMib, Tee, VmSpec, layout::ram_ranges};

/// Why the VM could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The jail.
    #[error("cannot drop privileges")]
    Jail(#[from] JailError),
    /// The console's file.
    #[error(transparent)]
    Console(#[from] OutputError),
    /// Guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Private memory.
    #[error(transparent)]
    PrivateMemory(#[from] PrivateMemoryError),
    /// The launch of an SNP guest.
    #[error(transparent)]
    Snp(#[from] SnpError),
    /// The VM in KVM.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// A device.
    #[error(transparent)]
    Devices(#[from] DeviceSetError),
    /// Kernel, initrd or stage0.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// Simulated reports.
    #[error(transparent)]
    Reports(#[from] ReportsError),
    /// vCPU state.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// vCPU threads.
    #[error(transparent)]
    Threads(#[from] ThreadError),
    /// The thread of the network device or of a disk.
    #[error(transparent)]
    DeviceThread(#[from] DeviceThreadError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The event loop or the exit event.
    #[error("cannot set up the event loop")]
    Events(#[source] io::Error),
}

/// Enters the jail and builds the VM that `spec` describes. No vCPU runs yet.
pub fn build(spec: &VmSpec, files: Files, filters: Filters) -> Result<Vm, BuildError> {
    let kvm = kvm::open()?;
    let console = files.console.map(Output::open).transpose()?;
    let vm_type = vm_type(spec.tee);
    let given = || snp::Parameters::read(&spec.snp.unwrap_or_default(), files.snp, &kvm);
    let given = (vm_type == VmType::Snp).then(given).transpose()?;
    jail::enter(&JailConfig {
        identity: spec.identity,
        vcpus: spec.vcpus,
        scratch: files.devices.scratch.as_ref().map(AsFd::as_fd),
        volume_bytes: spec.volumes.file_bytes,
    })?;
    let guest = Guest::open(spec, &files.boot)?;
    let kvm = KvmVm::create(kvm, vm_type)?;
    let (snp, certificates) = given.map(|given| Snp::begin(&kvm, given)).transpose()?.unzip();
    let (memory, mut private) = give_memory(&kvm, vm_type, spec.memory, guest.staging_bytes())?;
    kvm.add_interrupt_controllers()?;
    let watchdog = Arc::new(Watchdog::default());
    let exit_event = Arc::new(ExitEvent::new().map_err(BuildError::Events)?);
    let mut events = EventLoop::new().map_err(BuildError::Events)?;
    let (offer, signer) = reports::open(spec, files.certificates)?.unzip();
    let context = DeviceContext {
        memory: &memory,
        kvm: &kvm,
        events: &mut events,
        exit_event: &exit_event,
        watchdog: &watchdog,
        offer,
    };
    let devices = DeviceSet::new(spec, console, files.devices, context)?;
    let leaves = || vcpu::cpuid_leaves(&kvm, spec.vcpus);
    let guest = guest.load(&memory, leaves)?;
    if let (Some(signer), Some(measurement)) = (signer, guest.measurement) {
        signer.serve(&mut events, measurement, spec.host_data)?;
    }
    let vcpus = vcpu::create(&kvm, spec.vcpus, &guest.first)?;
    let mut launched = None;
    if let (Some(snp), Some(private)) = (snp, &mut private) {
        let snp = snp.launch(&guest.to_launch, &leaves()?, spec.host_data, private)?;
        report(snp.corrections());
        launched = Some(snp);
    }
    let ram = ram_ranges(spec.memory);
    let certificates = certificates.flatten().map(|table| Certificates::new(table, memory.clone(), ram));
    let filter = if private.is_some() {
        filters.vcpu_conversions
    } else {
        filters.vcpu
    };
    let context = VcpuContext {
        buses: devices.buses,
        conversions: private.map(Conversions::new),
        certificates,
        exit_event: exit_event.clone(),
        watchdog,
        filter,
    };
    let vcpus = VcpuThreads::start(vcpus, context)?;
    let network = devices
        .network
        .map(|device| NetworkThread::start(device, filters.net, exit_event.clone()))
        .transpose()?;
    let disks = devices.disks.into_iter();
    let disks = disks.map(|device| threads::start_disk(device, filters.disk.clone(), exit_event.clone()));
    let disks = disks.collect::<Result<_, _>>()?;
    let threads = Rc::new(Threads::new(vcpus, network, disks));
    control::serve(
        &mut events,
        files.control,
        Control::new(threads.clone(), devices.layers, devices.volumes, exit_event.clone()),
    )?;
    let kept = Kept {
        _launched: launched,
        _kvm: kvm,
        _memory: memory,
    };
    Ok(Vm::new(events, threads, exit_event, filters.main, kept))
}

fn vm_type(tee: Tee) -> VmType {
    match tee {
        Tee::Plain | Tee::Simulated => VmType::Default,
        Tee::Snp => VmType::Snp,
    }
}

/// Allocates and maps the guest's memory; both views of it if it can be private.
fn give_memory(kvm: &KvmVm, vm_type: VmType, size: MemoryMib, staging: u64) -> Result<(Memory, Option<PrivateMemory>), BuildError> {
    if vm_type.has_private_memory() {
        let (memory, private) = PrivateMemory::allocate(kvm, size, staging)?;
        return Ok((memory, Some(private)));
    }
    let memory = memory::with_staging(memory::allocate(size, Pages::Huge)?, size, staging)?;
    kvm.map(&memory, &[])?;
    Ok((memory, None))
}

/// Says what the firmware changed: the guest has the features of its CPUID page, not those that this VMM would offer.
fn report(corrections: &[Correction]) {
    if corrections.is_empty() {
        return;
    }
    let leaves: Vec<_> = corrections.iter().map(ToString::to_string).collect();
    // Whoever reads it may have ended.
    let _ = writeln!(
        io::stderr(),
        "casemate-vmm: the firmware corrected CPUID leaves: {}",
        leaves.join("; ")
    );
}
