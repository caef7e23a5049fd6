//! Shared by the fuzz targets: a VM with one virtio device, and input bytes interpreted as steps of a hostile driver.

use casemate_vmm::{
    devices::{
        BusDevice,
        virtio::{Memory, SharedVirtioDevice, mmio::MmioTransport},
    },
    event_loop::EventLoop,
};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use nix::sys::signal::{SigHandler, Signal, signal};
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Two adjacent regions, and one after a hole.
const REGIONS: [(GuestAddress, usize); 3] = [
    (GuestAddress(0), 0x1_0000),
    (GuestAddress(0x1_0000), 0x1_0000),
    (GuestAddress(0x8_0000), 0x1_0000),
];
/// Rings of queue `n` begin at `n * 0x3000`: descriptors, driver area, device area, a page each.
const RING_STRIDE: u64 = 0x3000;
const PAGE: u64 = 0x1000;
/// Buffers that [`Machine::submit`] hands out; they reach into the second region.
const FIRST_BUFFER: u64 = 0xa000;
const LAST_BUFFER: u64 = 0x1_c000;
/// Small, so that indices wrap.
pub const QUEUE_SIZE: u16 = 16;
/// Most steps of one input.
const STEPS_MAX: usize = 200;

/// A buffer of a chain.
pub enum Part {
    /// The device reads these bytes.
    Out(Vec<u8>),
    /// The device may write this many bytes.
    In(u32),
}

/// A device, its registers, and the driver's state.
pub struct Machine {
    pub memory: Memory,
    pub events: EventLoop,
    transport: MmioTransport,
    next_descriptor: u16,
    next_buffer: u64,
    submitted: [u16; 3],
}

impl Machine {
    pub fn new(device: SharedVirtioDevice) -> Self {
        let memory = Memory::from_ranges(&REGIONS).expect("memory");
        let irq = EventFd::new(EFD_NONBLOCK).expect("an eventfd");
        let transport = MmioTransport::new(memory.clone(), irq, device, Arc::default()).expect("a transport");
        let mut events = EventLoop::new().expect("an event loop");
        transport.attach(&mut events).expect("handlers");
        Self {
            memory,
            events,
            transport,
            next_descriptor: 0,
            next_buffer: FIRST_BUFFER,
            submitted: [0; 3],
        }
    }

    pub fn write(&mut self, register: u64, value: u32) {
        self.transport.write(register, &value.to_le_bytes());
    }

    pub fn read(&mut self, register: u64) -> u32 {
        let mut bytes = [0; 4];
        self.transport.read(register, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Initialises the device as a correct driver does, with all offered features except `without`.
    pub fn set_up(&mut self, without: u32) {
        self.write(0x70, 0);
        self.write(0x70, 1);
        self.write(0x70, 3);
        for half in 0..2 {
            self.write(0x14, half);
            let offered = self.read(0x10);
            self.write(0x24, half);
            self.write(0x20, if half == 0 { offered & !without } else { offered });
        }
        self.write(0x70, 11);
        for queue in 0..self.transport.queue_count() as u32 {
            let base = u64::from(queue) * RING_STRIDE;
            self.write(0x30, queue);
            self.write(0x38, QUEUE_SIZE.into());
            for (register, address) in [(0x80, base), (0x90, base + PAGE), (0xa0, base + 2 * PAGE)] {
                self.write(register, address as u32);
                self.write(register + 4, 0);
            }
            self.write(0x44, 1);
        }
        self.write(0x70, 15);
        self.submitted = [0; 3];
        self.serve_events();
    }

    /// Makes a well-formed chain available, reusing descriptors, and notifies the device.
    pub fn submit(&mut self, queue: usize, parts: &[Part]) {
        let base = queue as u64 * RING_STRIDE;
        let head = self.next_descriptor;
        for (i, part) in parts.iter().enumerate() {
            let (length, write) = match part {
                Part::Out(bytes) => (bytes.len() as u32, 0),
                Part::In(length) => (*length, 2u16),
            };
            if self.next_buffer + u64::from(length) > LAST_BUFFER {
                self.next_buffer = FIRST_BUFFER;
            }
            let address = self.next_buffer;
            self.next_buffer += u64::from(length).min(0x400);
            if let Part::Out(bytes) = part {
                self.poke(address, bytes);
            }
            let index = self.next_descriptor;
            self.next_descriptor = (index + 1) % QUEUE_SIZE;
            let next = u16::from(i + 1 < parts.len());
            let descriptor = [
                &address.to_le_bytes()[..],
                &length.to_le_bytes(),
                &(write | next).to_le_bytes(),
                &self.next_descriptor.to_le_bytes(),
            ];
            self.poke(base + 16 * u64::from(index), &descriptor.concat());
        }
        let available = &mut self.submitted[queue];
        let slot = u64::from(*available % QUEUE_SIZE);
        *available = available.wrapping_add(1);
        let available = *available;
        self.poke(base + PAGE + 4 + 2 * slot, &head.to_le_bytes());
        self.poke(base + PAGE + 2, &available.to_le_bytes());
        self.write(0x50, queue as u32);
        self.serve_events();
    }

    /// Writes guest memory; ignored outside it.
    pub fn poke(&mut self, address: u64, bytes: &[u8]) {
        let _ = self.memory.write_slice(bytes, GuestAddress(address));
    }

    /// Runs the event loop once.
    pub fn serve_events(&mut self) {
        self.events.run_once(0).expect("epoll works");
    }

    /// One arbitrary step of a hostile driver.
    pub fn anything(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.int_in_range(0..=5u8)? {
            0 => {
                let address = input.int_in_range(0..=0x8_ffffu64)?;
                let bytes = self.some_bytes(input)?;
                self.poke(address, bytes);
            }
            1 => {
                // Within the rings.
                let address = input.int_in_range(0..=3 * RING_STRIDE)?;
                let bytes = self.some_bytes(input)?;
                self.poke(address, bytes);
            }
            2 => {
                let (register, value) = (input.int_in_range(0..=0x80u64)? * 4, input.arbitrary()?);
                self.write(register, value);
            }
            3 => {
                let (offset, width) = (input.int_in_range(0..=0x1ffu64)?, input.int_in_range(1..=8usize)?);
                let mut data = [0; 8];
                if input.arbitrary()? {
                    self.transport.read(offset, &mut data[..width]);
                } else {
                    data = input.arbitrary()?;
                    self.transport.write(offset, &data[..width]);
                }
            }
            4 => {
                let queue = input.int_in_range(0..=3u32)?;
                self.write(0x50, queue);
                self.serve_events();
            }
            _ => self.set_up(input.arbitrary()?),
        }
        Ok(())
    }

    fn some_bytes<'a>(&self, input: &mut Unstructured<'a>) -> Result<&'a [u8]> {
        let length = input.int_in_range(0..=64usize)?.min(input.len());
        input.bytes(length)
    }
}

/// Ignores SIGPIPE, as Rust's runtime does, which libFuzzer's `main` bypasses.
pub fn ignore_broken_pipes() {
    // SAFETY: ignoring a signal installs no handler.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) }.expect("SIGPIPE can be ignored");
}

/// Takes steps until the input is consumed.
pub fn steps(bytes: &[u8], mut step: impl FnMut(&mut Unstructured<'_>) -> Result<()>) {
    let mut input = Unstructured::new(bytes);
    for _ in 0..STEPS_MAX {
        if input.is_empty() || step(&mut input).is_err() {
            break;
        }
    }
}

/// Parts of a chain: up to `most`, sizes up to a page.
pub fn parts(input: &mut Unstructured<'_>, most: usize) -> Result<Vec<Part>> {
    (0..input.int_in_range(1..=most)?)
        .map(|_| {
            let length = input.int_in_range(0..=0x1000u32)?;
            Ok(if input.arbitrary()? {
                let bytes = input.bytes((length as usize).min(input.len()).min(600))?;
                Part::Out(bytes.to_vec())
            } else {
                Part::In(length)
            })
        })
        .collect()
}
