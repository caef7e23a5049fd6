//! virtio over MMIO, version 2 (virtio 1.2, 4.2): the register block of one device slot and its state machine.
//!
//! ```text
//!  reset ─ACKNOWLEDGE─► ─DRIVER─► features ─FEATURES_OK─► queues ─DRIVER_OK─► live
//!    ▲                                                                        │
//!    └──────────────── Status := 0, from any state ◄──────────────────────────┘
//! ```
//! A status bit out of order has no effect, and neither has a write that the state does not allow: driver features only
//! before FEATURES_OK, queue registers only between FEATURES_OK and DRIVER_OK.

mod empty_slot;
mod queue_setup;
mod registers;

pub use empty_slot::EmptySlot;
pub use registers::{QUEUE_NOTIFY, SLOT_BYTES};

use super::{Activation, Interrupt, Memory, Ring, RingError, SharedVirtioDevice, lock};
use crate::{
    devices::BusDevice,
    event_loop::{EventLoop, EventSet},
    watchdog::{NOTIFICATION_PAUSE, USELESS_NOTIFICATIONS_MAX, Watchdog},
};
use queue_setup::{QueueSetup, set_high, set_low};
use registers::{
    CONFIG, CONFIG_GENERATION, DEVICE_FEATURES, DEVICE_FEATURES_SEL, DEVICE_ID, DRIVER_FEATURES, DRIVER_FEATURES_SEL, INTERRUPT_ACK,
    INTERRUPT_STATUS, MAGIC, MAGIC_VALUE, QUEUE_DEVICE_HIGH, QUEUE_NUM, QUEUE_NUM_MAX, QUEUE_READY, QUEUE_SEL, SHM_BASE_HIGH, SHM_LEN_LOW,
    STATUS, VENDOR, VENDOR_ID, VERSION, VERSION_REGISTER,
};
use std::{
    io,
    os::fd::AsRawFd,
    sync::{Arc, Mutex, PoisonError},
};
use virtio_bindings::{
    virtio_config::{
        VIRTIO_CONFIG_S_ACKNOWLEDGE as ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER as DRIVER, VIRTIO_CONFIG_S_DRIVER_OK as DRIVER_OK,
        VIRTIO_CONFIG_S_FAILED as FAILED, VIRTIO_CONFIG_S_FEATURES_OK as FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET as NEEDS_RESET,
        VIRTIO_F_ACCESS_PLATFORM, VIRTIO_F_VERSION_1,
    },
    virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC},
};
use virtio_queue::{Queue, QueueT};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// The order in which a driver sets its status bits.
const STEPS: [u32; 4] = [ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK];

/// The registers of a slot with a device.
pub struct MmioTransport {
    memory: Memory,
    device: SharedVirtioDevice,
    /// Held while a chain is in work, so that a reset can wait for it. Taken before the device's mutex or without it.
    in_work: Arc<Mutex<()>>,
    interrupt: Arc<Interrupt>,
    watchdog: Arc<Watchdog>,
    device_type: u32,
    offered: u64,
    kicks: Vec<EventFd>,
    queues: Vec<QueueSetup>,
    status: u32,
    driver_features: u64,
    device_features_sel: u32,
    driver_features_sel: u32,
    queue_sel: u32,
}

impl MmioTransport {
    /// Registers of `device`; `irq` is the slot's irqfd, `watchdog` records whether notifications lead to progress.
    ///
    /// # Errors
    /// When the process may open no more descriptors.
    pub fn new(memory: Memory, irq: EventFd, device: SharedVirtioDevice, watchdog: Arc<Watchdog>) -> io::Result<Self> {
        let (device_type, features, sizes) = {
            let device = lock(&device);
            (device.device_type(), device.features(), device.queue_sizes())
        };
        let kicks = sizes
            .iter()
            .map(|_| EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            memory,
            device,
            in_work: Arc::default(),
            interrupt: Arc::new(Interrupt::new(irq, watchdog.clone())),
            watchdog,
            device_type,
            offered: features | 1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC,
            kicks,
            queues: sizes.iter().map(|max| QueueSetup::new(*max)).collect(),
            status: 0,
            driver_features: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            queue_sel: 0,
        })
    }

    /// Also offers ACCESS_PLATFORM, with which the driver uses bounce buffers in shared memory, as a confidential guest has to.
    pub fn with_access_platform(mut self) -> Self {
        self.offered |= 1 << VIRTIO_F_ACCESS_PLATFORM;
        self
    }

    /// Number of queues, the bound of [`MmioTransport::queue_event`]'s index.
    pub fn queue_count(&self) -> usize {
        self.kicks.len()
    }

    /// The eventfd to signal when the guest writes `index` to [`QUEUE_NOTIFY`] (`KVM_IOEVENTFD`).
    pub fn queue_event(&self, index: usize) -> io::Result<EventFd> {
        self.kicks.get(index).ok_or(io::ErrorKind::NotFound)?.try_clone()
    }

    /// Registers the handlers of the device's queues, and of its host events if it has any.
    pub fn attach(&self, events: &mut EventLoop) -> io::Result<()> {
        for (index, kick) in self.kicks.iter().enumerate() {
            let (kick, queue, interrupt) = (kick.try_clone()?, self.queue(index), self.interrupt.clone());
            let (watchdog, mut useless) = (self.watchdog.clone(), 0);
            let fd = kick.as_raw_fd();
            let serve = move |events: &mut EventLoop, own, _| {
                // Fails if the counter is zero, which does not matter: the queue has its own indices.
                let _ = kick.read();
                let before = watchdog.progress();
                if queue.serve(events).is_err() {
                    interrupt.set_needs_reset();
                }
                useless = if watchdog.progress() == before { useless + 1 } else { 0 };
                if useless >= USELESS_NOTIFICATIONS_MAX {
                    useless = 0;
                    watchdog.record_silenced();
                    // Fails only if the handler was removed.
                    let _ = events.suspend(own, NOTIFICATION_PAUSE);
                }
            };
            events.add_device(fd, EventSet::IN, Box::new(serve))?;
        }
        let host_events = lock(&self.device).host_events();
        if let Some(fd) = host_events {
            let (device, interrupt) = (self.device.clone(), self.interrupt.clone());
            let serve = move |_: &mut EventLoop, _, _| {
                if lock(&device).process_host_events().is_err() {
                    interrupt.set_needs_reset();
                }
            };
            events.add_device(fd, EventSet::IN, Box::new(serve))?;
        }
        Ok(())
    }

    fn queue(&self, index: usize) -> ServedQueue {
        ServedQueue {
            index,
            device: self.device.clone(),
            memory: self.memory.clone(),
            in_work: self.in_work.clone(),
        }
    }

    fn read_register(&self, offset: u64) -> u32 {
        let queue = usize::try_from(self.queue_sel).ok().and_then(|q| self.queues.get(q));
        match offset {
            MAGIC_VALUE => MAGIC,
            VERSION_REGISTER => VERSION,
            DEVICE_ID => self.device_type,
            VENDOR_ID => VENDOR,
            DEVICE_FEATURES => match self.device_features_sel {
                0 => low(self.offered),
                1 => high(self.offered),
                _ => 0,
            },
            QUEUE_NUM_MAX => queue.map_or(0, |q| u32::from(q.max)),
            QUEUE_READY => queue.map_or(0, |q| u32::from(q.ready)),
            INTERRUPT_STATUS => self.interrupt.status(),
            STATUS if self.interrupt.is_reset_needed() => self.status | NEEDS_RESET,
            STATUS => self.status,
            // No shared memory regions: a length of all ones (virtio 1.2, 4.2.2).
            SHM_LEN_LOW..=SHM_BASE_HIGH => u32::MAX,
            CONFIG_GENERATION => lock(&self.device).config_generation(),
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        match offset {
            DEVICE_FEATURES_SEL => self.device_features_sel = value,
            DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            DRIVER_FEATURES if self.is_at(DRIVER) => match self.driver_features_sel {
                0 => set_low(&mut self.driver_features, value),
                1 => set_high(&mut self.driver_features, value),
                _ => (),
            },
            QUEUE_SEL => self.queue_sel = value,
            QUEUE_NOTIFY => self.notify(value),
            INTERRUPT_ACK => self.interrupt.acknowledge(value),
            STATUS => self.set_status(value),
            QUEUE_NUM..=QUEUE_DEVICE_HIGH if self.is_at(FEATURES_OK) => self.write_queue(offset, value),
            _ => (),
        }
    }

    /// Whether `step` is the last status bit that the driver has set.
    fn is_at(&self, step: u32) -> bool {
        self.status & FAILED == 0 && STEPS.into_iter().rev().find(|s| self.status & s != 0) == Some(step)
    }

    fn write_queue(&mut self, offset: u64, value: u32) {
        let Some(queue) = usize::try_from(self.queue_sel).ok().and_then(|q| self.queues.get_mut(q)) else {
            return;
        };
        queue.write(offset, value, &self.memory);
    }

    /// A notification that exits to the VMM; KVM handles those with an `ioeventfd`.
    fn notify(&self, index: u32) {
        if self.status & DRIVER_OK == 0 {
            return;
        }
        if let Some(kick) = usize::try_from(index).ok().and_then(|i| self.kicks.get(i)) {
            // Fails only if the counter is full, and then the event loop serves the queue anyway.
            let _ = kick.write(1);
        }
    }

    fn set_status(&mut self, value: u32) {
        if value == 0 {
            return self.reset();
        }
        // Bits are only ever added; a write that clears one is ignored.
        if value & self.status != self.status {
            return;
        }
        if value & FAILED != 0 {
            self.status |= FAILED;
        }
        let mut previous_done = true;
        for step in STEPS {
            if value & step == 0 || !previous_done || self.status & FAILED != 0 {
                break;
            }
            previous_done = self.status & step != 0 || self.advance(step);
        }
    }

    /// Makes one step; `false` if the device refuses it.
    fn advance(&mut self, step: u32) -> bool {
        let allowed = match step {
            // If refused, the bit reads back as zero (virtio 1.2, 3.1.1).
            FEATURES_OK => self.driver_features & !self.offered == 0 && self.driver_features & 1 << VIRTIO_F_VERSION_1 != 0,
            DRIVER_OK => self.activate(),
            _ => true,
        };
        if allowed {
            self.status |= step;
        }
        allowed
    }

    fn activate(&mut self) -> bool {
        let event_idx = self.driver_features & 1 << VIRTIO_RING_F_EVENT_IDX != 0;
        let mut rings = Vec::with_capacity(self.queues.len());
        for (setup, kick) in self.queues.iter().zip(&self.kicks) {
            let queue = if setup.ready {
                setup.build(&self.memory, event_idx)
            } else {
                Queue::new(setup.max).ok()
            };
            let (Some(queue), Ok(kick)) = (queue, kick.try_clone()) else {
                self.interrupt.set_needs_reset();
                return false;
            };
            rings.push(Ring::new(queue, kick));
        }
        let (memory, interrupt) = (self.memory.clone(), self.interrupt.clone());
        lock(&self.device).activate(Activation {
            memory,
            rings,
            features: self.driver_features,
            interrupt,
        });
        // Serves host events that came before activation.
        self.kicks.iter().for_each(|kick| drop(kick.write(1)));
        true
    }

    fn reset(&mut self) {
        // The device first: then no thread of the VMM writes to the old rings any more, and after the chain in work none to a buffer. The
        // driver frees them once this returns.
        lock(&self.device).reset();
        drop(self.in_work.lock().unwrap_or_else(PoisonError::into_inner));
        self.interrupt.clear();
        self.status = 0;
        self.driver_features = 0;
        self.device_features_sel = 0;
        self.driver_features_sel = 0;
        self.queue_sel = 0;
        self.queues.iter_mut().for_each(|q| *q = QueueSetup::new(q.max));
    }
}

impl BusDevice for MmioTransport {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let Some(config) = offset.checked_sub(CONFIG) {
            lock(&self.device).read_config(config, data);
        } else if let Ok(register) = <&mut [u8; 4]>::try_from(&mut *data) {
            // Registers are 32 bits wide (virtio 1.2, 4.2.2.2).
            *register = self.read_register(offset).to_le_bytes();
        } else {
            data.fill(0);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some(config) = offset.checked_sub(CONFIG) {
            if self.status & DRIVER != 0 {
                lock(&self.device).write_config(config, data);
            }
        } else if let Ok(register) = <[u8; 4]>::try_from(data) {
            self.write_register(offset, u32::from_le_bytes(register));
        }
    }
}

/// A queue as an event loop serves it.
struct ServedQueue {
    index: usize,
    device: SharedVirtioDevice,
    memory: Memory,
    in_work: Arc<Mutex<()>>,
}

impl ServedQueue {
    fn serve(&self, events: &EventLoop) -> Result<(), RingError> {
        lock(&self.device).process_queue(self.index)?;
        loop {
            let _in_work = self.in_work.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(work) = lock(&self.device).begin(self.index, &self.memory)? else {
                return Ok(());
            };
            // The VM is stopped: nobody reads the rings.
            let Some(done) = events.away(work) else { return Ok(()) };
            lock(&self.device).end(self.index, done)?;
        }
    }
}

fn low(value: u64) -> u32 {
    (value & u64::from(u32::MAX)) as u32
}

fn high(value: u64) -> u32 {
    (value >> 32) as u32
}

#[cfg(test)]
mod tests;
