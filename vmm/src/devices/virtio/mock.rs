//! A virtio driver for tests: registers, and rings in guest memory.
//!
//! Offsets and layouts are those of the specification (virtio 1.2, 2.7 and 4.2.2), independent of the code under test.

use super::{Memory, SharedVirtioDevice, mmio::MmioTransport};
use crate::{devices::BusDevice, event_loop::EventLoop, watchdog::Watchdog};
use std::{
    io,
    sync::{Arc, Mutex},
};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Two adjacent regions, and one after a hole.
const REGIONS: [(u64, usize); 3] = [(0, 0x20_0000), (0x20_0000, 0x20_0000), (0x80_0000, 0x20_0000)];
/// Rings lie below, buffers above.
const FIRST_BUFFER: u64 = 0x4_0000;
const RING_STRIDE: u64 = 0x1_0000;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;
pub const EVENT_IDX: u64 = 1 << 29;
pub const VERSION_1: u64 = 1 << 32;
pub const NEEDS_RESET: u32 = 0x40;

/// A descriptor as it is in memory.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    pub address: u64,
    pub len: u32,
    pub flags: u16,
    pub next: u16,
}

impl Descriptor {
    pub fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// One part of a chain.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    pub address: u64,
    pub len: u32,
    pub writable: bool,
}

pub fn readable(address: u64, len: usize) -> Part {
    Part {
        address,
        len: len as u32,
        writable: false,
    }
}

pub fn writable(address: u64, len: usize) -> Part {
    Part {
        address,
        len: len as u32,
        writable: true,
    }
}

/// The driver's side of one queue.
pub struct DriverQueue {
    pub size: u16,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
    next_available: u16,
    next_used: u16,
    free: Vec<u16>,
    /// Descriptors of each chain, by head.
    chains: Vec<Vec<u16>>,
}

impl DriverQueue {
    /// Whether a chain of two descriptors fits.
    pub fn has_room(&self) -> bool {
        self.free.len() >= 2
    }
}

/// Attaches a device to a loop.
pub type Attach = Box<dyn FnOnce(&mut EventLoop) -> io::Result<()> + Send>;

pub struct Driver {
    pub memory: Memory,
    pub transport: MmioTransport,
    pub interrupts: EventFd,
    pub watchdog: Arc<Watchdog>,
    pub queues: Vec<DriverQueue>,
    pub events: EventLoop,
    next_buffer: u64,
}

impl Driver {
    /// A device in a slot, not yet set up.
    pub fn new(device: SharedVirtioDevice) -> Self {
        let attach = |transport: MmioTransport, events: &mut EventLoop| {
            transport.attach(events).unwrap();
            (transport, ())
        };
        Self::attached(device, attach).0
    }

    /// As [`Driver::new`], of a device that another loop serves: `start` gets what attaches it there.
    pub fn served_by<T>(device: SharedVirtioDevice, start: impl FnOnce(Attach) -> T) -> (Self, T) {
        Self::attached(device, |transport, _| {
            let transport = Arc::new(Mutex::new(transport));
            let shared = transport.clone();
            let served = start(Box::new(move |events| shared.lock().unwrap().attach(events)));
            (Arc::into_inner(transport).unwrap().into_inner().unwrap(), served)
        })
    }

    fn attached<T>(device: SharedVirtioDevice, attach: impl FnOnce(MmioTransport, &mut EventLoop) -> (MmioTransport, T)) -> (Self, T) {
        let memory = Memory::from_ranges(&REGIONS.map(|(a, l)| (GuestAddress(a), l))).unwrap();
        let interrupts = EventFd::new(EFD_NONBLOCK).unwrap();
        let watchdog = Arc::new(Watchdog::default());
        let transport = MmioTransport::new(memory.clone(), interrupts.try_clone().unwrap(), device, watchdog.clone()).unwrap();
        let mut events = EventLoop::new().unwrap();
        let (transport, served) = attach(transport, &mut events);
        let driver = Self {
            memory,
            transport,
            interrupts,
            watchdog,
            queues: Vec::new(),
            events,
            next_buffer: FIRST_BUFFER,
        };
        (driver, served)
    }

    /// A device set up with all features it offers, as Linux does.
    pub fn started(device: SharedVirtioDevice) -> Self {
        let mut driver = Self::new(device);
        let features = driver.offered();
        driver.start(features);
        driver
    }

    pub fn read(&mut self, offset: u64) -> u32 {
        let mut data = [0xee; 4];
        self.transport.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    pub fn write(&mut self, offset: u64, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
    }

    pub fn status(&mut self) -> u32 {
        self.read(0x70)
    }

    pub fn offered(&mut self) -> u64 {
        self.write(0x14, 0);
        let low = self.read(0x10);
        self.write(0x14, 1);
        u64::from(low) | u64::from(self.read(0x10)) << 32
    }

    pub fn accept(&mut self, features: u64) {
        self.write(0x24, 0);
        self.write(0x20, features as u32);
        self.write(0x24, 1);
        self.write(0x20, (features >> 32) as u32);
    }

    /// Initialises the device up to DRIVER_OK.
    pub fn start(&mut self, features: u64) {
        self.negotiate(features);
        self.set_up_queues();
        self.write(0x70, 15);
        assert_eq!(self.status(), 15);
        self.serve_events();
    }

    /// Initialises the device up to FEATURES_OK.
    pub fn negotiate(&mut self, features: u64) {
        for status in [0, 1, 3] {
            self.write(0x70, status);
        }
        self.accept(features);
        self.write(0x70, 11);
    }

    pub fn set_up_queues(&mut self) {
        self.queues.clear();
        for index in 0..self.transport.queue_count() as u32 {
            self.write(0x30, index);
            let size = self.read(0x34) as u16;
            let base = u64::from(index) * RING_STRIDE;
            let queue = DriverQueue {
                size,
                descriptors: base + 0x1000,
                available: base + 0x4000,
                used: base + 0x8000,
                next_available: 0,
                next_used: 0,
                free: (0..size).rev().collect(),
                chains: vec![Vec::new(); size.into()],
            };
            // A device that is started again finds zeroed rings.
            self.memory.write_slice(&[0; RING_STRIDE as usize], GuestAddress(base)).unwrap();
            self.write(0x38, size.into());
            for (offset, address) in [(0x80, queue.descriptors), (0x90, queue.available), (0xa0, queue.used)] {
                self.write(offset, address as u32);
                self.write(offset + 4, (address >> 32) as u32);
            }
            self.write(0x44, 1);
            assert_eq!(self.read(0x44), 1);
            self.queues.push(queue);
        }
    }

    /// Serves all events that are ready.
    pub fn serve_events(&mut self) {
        for _ in 0..8 {
            self.serve_ready_events();
        }
    }

    /// Serves the events that are ready now, but none that they cause.
    pub fn serve_ready_events(&mut self) {
        self.events.run_once(0).unwrap();
    }

    /// Fresh guest memory.
    pub fn allocate(&mut self, len: usize) -> u64 {
        let address = self.next_buffer;
        self.next_buffer += (len as u64).next_multiple_of(64);
        assert!(self.next_buffer <= 0x40_0000, "the test uses too much memory");
        address
    }

    pub fn free_all(&mut self) {
        self.next_buffer = FIRST_BUFFER;
    }

    pub fn place(&mut self, bytes: &[u8]) -> u64 {
        let address = self.allocate(bytes.len());
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
        address
    }

    pub fn fetch(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    /// Makes a chain available, without a notification.
    pub fn offer(&mut self, queue: usize, parts: &[Part]) -> u16 {
        let q = &mut self.queues[queue];
        let chosen = q.free.split_off(q.free.len() - parts.len());
        for (i, part) in parts.iter().enumerate() {
            let next = chosen.get(i + 1).copied();
            let flags = if part.writable { WRITE } else { 0 } | if next.is_some() { NEXT } else { 0 };
            let descriptor = Descriptor {
                address: part.address,
                len: part.len,
                flags,
                next: next.unwrap_or(0),
            };
            self.memory
                .write_slice(&descriptor.bytes(), GuestAddress(q.descriptors + 16 * u64::from(chosen[i])))
                .unwrap();
        }
        let head = chosen[0];
        q.chains[usize::from(head)] = chosen;
        self.offer_head(queue, head);
        head
    }

    /// Makes the chain at descriptor `head` available, whatever it contains.
    pub fn offer_head(&mut self, queue: usize, head: u16) {
        let q = &mut self.queues[queue];
        let slot = q.available + 4 + 2 * u64::from(q.next_available % q.size);
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        q.next_available = q.next_available.wrapping_add(1);
        self.memory.write_obj(q.next_available, GuestAddress(q.available + 2)).unwrap();
    }

    /// Writes descriptors from index 0 on, as they are.
    pub fn write_descriptors(&mut self, queue: usize, descriptors: &[Descriptor]) {
        for (i, descriptor) in descriptors.iter().enumerate() {
            let address = self.queues[queue].descriptors + 16 * i as u64;
            self.memory.write_slice(&descriptor.bytes(), GuestAddress(address)).unwrap();
        }
    }

    /// Notifies the device and lets it run.
    pub fn kick(&mut self, queue: usize) {
        self.write(0x50, queue as u32);
        self.serve_events();
    }

    /// Chains returned since the last call: head and length.
    pub fn completed(&mut self, queue: usize) -> Vec<(u16, u32)> {
        let q = &mut self.queues[queue];
        let index: u16 = self.memory.read_obj(GuestAddress(q.used + 2)).unwrap();
        let mut done = Vec::new();
        while q.next_used != index {
            let slot = q.used + 4 + 8 * u64::from(q.next_used % q.size);
            let head: u32 = self.memory.read_obj(GuestAddress(slot)).unwrap();
            let len: u32 = self.memory.read_obj(GuestAddress(slot + 4)).unwrap();
            q.free.append(&mut q.chains[head as usize]);
            q.next_used = q.next_used.wrapping_add(1);
            done.push((head as u16, len));
        }
        // With EVENT_IDX: interrupt for the next one.
        self.memory
            .write_obj(q.next_used, GuestAddress(q.available + 4 + 2 * u64::from(q.size)))
            .unwrap();
        done
    }

    /// The interrupt status since the last call; acknowledges all of it.
    pub fn interrupted(&mut self) -> u32 {
        let raised = self.interrupts.read().is_ok();
        let status = self.read(0x60);
        assert!(raised || status == 0, "status {status} without an interrupt");
        self.write(0x64, status);
        status
    }

    /// Sends one chain, waits for it, and returns its used length.
    pub fn exchange(&mut self, queue: usize, parts: &[Part]) -> u32 {
        let head = self.offer(queue, parts);
        self.kick(queue);
        let done = self.completed(queue);
        assert_eq!(done.len(), 1, "one chain is returned");
        assert_eq!(done[0].0, head);
        done[0].1
    }
}
