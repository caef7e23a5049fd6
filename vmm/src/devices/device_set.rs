//! Creates all devices at their fixed addresses ([`vm_spec::layout`]); an absent device leaves its slot empty.

use super::{
    BusDevice, BusError, Buses, SharedDevice,
    power::{KEYBOARD_PORT, KeyboardReset, Power},
    refusal::RefusalPort,
    serial::{Output, Serial},
    virtio::{
        SharedVirtioDevice,
        block::{Block, Layers, LayersHandle, Registries, RegistriesError, Scratch, ScratchError, Volume, VolumesHandle},
        lock,
        mmio::{EmptySlot, MmioTransport, QUEUE_NOTIFY},
        net::{Net, TapSlot},
        rng::Rng,
        vsock::{Vsock, muxer::Offer},
    },
};
use crate::{
    descriptors::DeviceFiles,
    event_loop::EventLoop,
    exit_reason::ExitEvent,
    kvm::{KvmError, KvmVm},
    memory::Memory,
    watchdog::Watchdog,
};
use boot_manifest::REFUSAL_PORT;
use std::{
    io,
    sync::{Arc, Mutex},
};
use vm_spec::{
    Boot, VmSpec, VolumeSlots,
    layout::{
        POWER_PORTS, SERIAL_GSI, SERIAL_PORT, SERIAL_PORTS, SLEEP_CONTROL_PORT, VIRTIO_SLOT_BYTES, VirtioSlot, slot_base, virtio_slots,
    },
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Why a device could not be created.
#[derive(Debug, thiserror::Error)]
pub enum DeviceSetError {
    /// KVM refused an irqfd or ioeventfd.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// The scratch file.
    #[error("cannot set up the scratch disk")]
    Scratch(#[from] ScratchError),
    /// The file of the registries.
    #[error("cannot set up the disk with the configuration of registries")]
    Registries(#[from] RegistriesError),
    /// An eventfd or epoll call failed.
    #[error("cannot set up a device")]
    Io(#[from] io::Error),
    /// Two devices overlap.
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// What devices need from the rest of the VM.
pub struct DeviceContext<'a> {
    /// Guest memory.
    pub memory: &'a Memory,
    /// For irqfds and ioeventfds.
    pub kvm: &'a KvmVm,
    /// Serves queues and host events.
    pub events: &'a mut EventLoop,
    /// Set by power-off and reset.
    pub exit_event: &'a Arc<ExitEvent>,
    /// Records the devices' progress.
    pub watchdog: &'a Arc<Watchdog>,
    /// What the guest may connect to through its vsock device.
    pub offer: Option<Offer>,
}

/// The network device, which a thread of its own has to serve.
pub struct NetworkDevice {
    /// Where it gets its TAP.
    pub tap: TapSlot,
    /// Its registers, whose handlers no loop has yet.
    pub transport: Arc<Mutex<MmioTransport>>,
}

/// A disk, which a thread of its own has to serve.
pub struct DiskDevice {
    /// For the thread.
    pub name: &'static str,
    /// Its registers, whose handlers no loop has yet.
    pub transport: Arc<Mutex<MmioTransport>>,
}

/// All devices of a VM, on their buses.
pub struct DeviceSet {
    /// For the vCPU threads.
    pub buses: Buses,
    /// Appends to the layer disk, if the VM has one.
    pub layers: Option<LayersHandle>,
    /// Changes what is in the volume slots.
    pub volumes: VolumesHandle,
    /// The network device, if the VM has one.
    pub network: Option<NetworkDevice>,
    /// All disks.
    pub disks: Vec<DiskDevice>,
    /// Whether drivers have to use memory that they share with the devices.
    encrypted: bool,
}

impl DeviceSet {
    /// Creates every device of `spec`.
    pub fn new(spec: &VmSpec, console: Option<Output>, files: DeviceFiles, mut context: DeviceContext<'_>) -> Result<Self, DeviceSetError> {
        let mut devices = Self {
            buses: Buses::default(),
            layers: None,
            volumes: VolumesHandle::default(),
            network: None,
            disks: Vec::new(),
            encrypted: context.kvm.is_encrypted(),
        };
        devices.add_ports(console, &context)?;
        if matches!(spec.boot, Boot::Verified(_)) {
            devices.add_port(REFUSAL_PORT, 1, RefusalPort(context.exit_event.clone()))?;
        }
        if spec.layers {
            let disk = Arc::new(Mutex::new(Block::new(Layers::new())));
            devices.layers = Some(LayersHandle::new(disk.clone()));
            devices.add_disk("layers", VirtioSlot::Layers, disk, &context)?;
        }
        if let Some(file) = files.scratch {
            let disk = Block::new(Scratch::new(file)?);
            devices.add_disk("scratch", VirtioSlot::Scratch, Arc::new(Mutex::new(disk)), &context)?;
        }
        if let Some(file) = files.registries {
            let disk = Block::new(Registries::new(file)?);
            devices.add_disk("registries", VirtioSlot::Registries, Arc::new(Mutex::new(disk)), &context)?;
        }
        devices.add_volumes(spec, &context)?;
        if let Some(listener) = files.vsock {
            let vsock = Vsock::new(listener, context.offer.take())?;
            devices.add_virtio(VirtioSlot::Vsock, Arc::new(Mutex::new(vsock)), &mut context)?;
        }
        if spec.rng {
            devices.add_virtio(VirtioSlot::Rng, Arc::new(Mutex::new(Rng::new())), &mut context)?;
        }
        if let Some(network) = spec.network {
            let device = Net::new(network.mac)?;
            let tap = device.tap_slot();
            let transport = devices.insert_virtio(VirtioSlot::Network, Arc::new(Mutex::new(device)), &context)?;
            devices.network = Some(NetworkDevice { tap, transport });
        }
        devices.fill_empty_slots(context.kvm, virtio_slots(spec.volumes.slots))?;
        Ok(devices)
    }

    /// Serial console, power and keyboard reset.
    fn add_ports(&mut self, console: Option<Output>, context: &DeviceContext<'_>) -> Result<(), DeviceSetError> {
        let irq = irqfd(context.kvm, SERIAL_GSI)?;
        let serial = Serial::new(irq, console, context.watchdog.clone());
        self.add_port(SERIAL_PORT, SERIAL_PORTS, serial)?;
        self.add_port(SLEEP_CONTROL_PORT, POWER_PORTS, Power(context.exit_event.clone()))?;
        self.add_port(KEYBOARD_PORT, 1, KeyboardReset(context.exit_event.clone()))
    }

    fn add_port(&mut self, port: u16, ports: u16, device: impl BusDevice + 'static) -> Result<(), DeviceSetError> {
        Ok(self.buses.pio.insert(port.into(), ports.into(), Arc::new(Mutex::new(device)))?)
    }

    /// Adds the empty slots of volumes: Linux looks for devices once, at boot.
    fn add_volumes(&mut self, spec: &VmSpec, context: &DeviceContext<'_>) -> Result<(), DeviceSetError> {
        const NAMES: [&str; VolumeSlots::MAX as usize] = ["volume0", "volume1", "volume2", "volume3"];
        let places = NAMES.into_iter().zip(VirtioSlot::VOLUMES).enumerate();
        let mut disks = Vec::new();
        for (number, (name, slot)) in places.take(spec.volumes.slots.get().into()) {
            let Some(volume) = Volume::new(number) else { break };
            let disk = Arc::new(Mutex::new(Block::new(volume)));
            disks.push(disk.clone());
            self.add_disk(name, slot, disk, context)?;
        }
        self.volumes = VolumesHandle::new(disks, spec.volumes.file_bytes);
        Ok(())
    }

    /// Adds a device for a thread of its own.
    fn add_disk(
        &mut self,
        name: &'static str,
        slot: VirtioSlot,
        device: SharedVirtioDevice,
        context: &DeviceContext<'_>,
    ) -> Result<(), DeviceSetError> {
        let transport = self.insert_virtio(slot, device, context)?;
        self.disks.push(DiskDevice { name, transport });
        Ok(())
    }

    /// Adds a device that the main thread serves.
    fn add_virtio(&mut self, slot: VirtioSlot, device: SharedVirtioDevice, context: &mut DeviceContext<'_>) -> Result<(), DeviceSetError> {
        let transport = self.insert_virtio(slot, device, context)?;
        lock(&transport).attach(context.events)?;
        Ok(())
    }

    fn insert_virtio(
        &mut self,
        slot: VirtioSlot,
        device: SharedVirtioDevice,
        context: &DeviceContext<'_>,
    ) -> Result<Arc<Mutex<MmioTransport>>, DeviceSetError> {
        let irq = irqfd(context.kvm, slot.gsi())?;
        let mut transport = MmioTransport::new(context.memory.clone(), irq, device, context.watchdog.clone())?;
        if self.encrypted {
            transport = transport.with_access_platform();
        }
        for index in 0..transport.queue_count() {
            context
                .kvm
                .register_ioeventfd(&transport.queue_event(index)?, slot.base() + QUEUE_NOTIFY, index as u32)?;
        }
        let transport = Arc::new(Mutex::new(transport));
        self.buses.mmio.insert(slot.base(), VIRTIO_SLOT_BYTES, transport.clone())?;
        Ok(transport)
    }

    /// Linux probes every slot of the ACPI tables. An empty slot is mapped read-only, which saves three exits.
    fn fill_empty_slots(&mut self, kvm: &KvmVm, slots: u32) -> Result<(), DeviceSetError> {
        let empty: SharedDevice = Arc::new(Mutex::new(EmptySlot));
        let all = (0..slots).map(slot_base);
        let free: Vec<u64> = all.filter(|base| !self.buses.mmio.is_occupied(*base)).collect();
        for base in &free {
            self.buses.mmio.insert(*base, VIRTIO_SLOT_BYTES, empty.clone())?;
        }
        Ok(kvm.map_read_only(&EmptySlot::registers(), &free)?)
    }
}

fn irqfd(kvm: &KvmVm, gsi: u32) -> Result<EventFd, DeviceSetError> {
    let irq = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
    kvm.register_irqfd(&irq, gsi)?;
    Ok(irq)
}
