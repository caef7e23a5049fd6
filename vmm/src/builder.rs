//! Builds a paused VM from a spec: console, jail, memory, VM, devices, kernel, boot tables, reports, vCPUs, in this order.

use crate::{
    control::{self, Control, ControlError},
    descriptors::Files,
    devices::{
        device_set::{DeviceContext, DeviceSet, DeviceSetError},
        serial::{Output, OutputError},
    },
    event_loop::EventLoop,
    exit_reason::ExitEvent,
    guest::{Guest, GuestError},
    jail::{self, JailConfig, JailError},
    kvm::{self, KvmError, KvmVm, VmType},
    memory::{self, MemoryError, Pages},
    reports::{self, ReportsError},
    seccomp::Filters,
    vcpu::{self, ThreadError, VcpuContext, VcpuError, VcpuThreads},
    vm::Vm,
    watchdog::Watchdog,
};
use std::{io, os::fd::AsFd, rc::Rc, sync::Arc};
use vm_spec::VmSpec;

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
    jail::enter(&JailConfig {
        identity: spec.identity,
        vcpus: spec.vcpus,
        scratch: files.devices.scratch.as_ref().map(AsFd::as_fd),
    })?;
    let guest = Guest::open(spec, &files.boot)?;
    let kvm = KvmVm::create(kvm, VmType::Default)?;
    let memory = memory::with_staging(memory::allocate(spec.memory, Pages::Huge)?, spec.memory, guest.staging_bytes())?;
    kvm.map(&memory, &[])?;
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
    let guest = guest.load(&memory, || Ok(vcpu::cpuid_page(&kvm, spec.vcpus)?))?;
    if let (Some(signer), Some(measurement)) = (signer, guest.measurement) {
        signer.serve(&mut events, measurement, spec.host_data)?;
    }
    let vcpus = vcpu::create(&kvm, spec.vcpus, &guest.first)?;
    let context = VcpuContext {
        buses: devices.buses,
        conversions: None,
        exit_event: exit_event.clone(),
        watchdog,
        filter: filters.vcpu,
    };
    let vcpus = Rc::new(VcpuThreads::start(vcpus, context)?);
    control::serve(
        &mut events,
        files.control,
        Control::new(vcpus.clone(), devices.layers, exit_event.clone()),
    )?;
    Ok(Vm::new(events, vcpus, exit_event, filters.main, kvm, memory))
}
