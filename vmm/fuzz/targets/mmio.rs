//! Accesses of any width at any address to the ports and registers of all devices.
#![no_main]

use casemate_vmm::{
    devices::{
        Bus, SharedDevice,
        power::{KeyboardReset, Power},
        serial::Serial,
        virtio::{
            Memory, SharedVirtioDevice,
            block::{Block, Layers},
            mmio::{EmptySlot, MmioTransport, SLOT_BYTES},
            rng::Rng,
        },
    },
    event_loop::EventLoop,
    exit_reason::ExitEvent,
};
use casemate_vmm_fuzz::steps;
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, Mutex};
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

fn event() -> EventFd {
    EventFd::new(EFD_NONBLOCK).expect("an eventfd")
}

fuzz_target!(|bytes: &[u8]| {
    let memory = Memory::from_ranges(&[(GuestAddress(0), 0x1_0000)]).expect("memory");
    let (mut bus, mut events) = (Bus::default(), EventLoop::new().expect("an event loop"));
    let exit_event = Arc::new(ExitEvent::new().expect("an exit event"));
    let devices: [SharedVirtioDevice; 2] = [Arc::new(Mutex::new(Rng::new())), Arc::new(Mutex::new(Block::new(Layers::new())))];
    for (base, device) in (0u64..).step_by(SLOT_BYTES as usize).zip(devices) {
        let transport = MmioTransport::new(memory.clone(), event(), device, Arc::default()).expect("a transport");
        transport.attach(&mut events).expect("handlers");
        bus.insert(base, SLOT_BYTES, Arc::new(Mutex::new(transport))).expect("a place");
    }
    let others: [SharedDevice; 4] = [
        Arc::new(Mutex::new(EmptySlot)),
        Arc::new(Mutex::new(Serial::new(event(), None, Arc::default()))),
        Arc::new(Mutex::new(Power(exit_event.clone()))),
        Arc::new(Mutex::new(KeyboardReset(exit_event))),
    ];
    for (base, device) in (0x400u64..).step_by(8).zip(others) {
        bus.insert(base, 8, device).expect("a place");
    }
    steps(bytes, |input| {
        let (address, width) = (input.int_in_range(0..=0x420u64)?, input.int_in_range(1..=8usize)?);
        let mut data: [u8; 8] = [0; 8];
        if input.arbitrary()? {
            bus.read(address, &mut data[..width]);
        } else {
            let length = width.min(input.len());
            data[..length].copy_from_slice(input.bytes(length)?);
            bus.write(address, &data[..width]);
        }
        events.run_once(0).expect("epoll works");
        Ok(())
    });
});
