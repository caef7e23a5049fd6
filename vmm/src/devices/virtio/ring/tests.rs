//! Index arithmetic of a ring at all 65 536 values of its 16-bit counters.

use super::*;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const SIZE: u16 = 16;
const DRIVER_AREA: GuestAddress = GuestAddress(0x1000);
const DEVICE_AREA: GuestAddress = GuestAddress(0x2000);

fn memory() -> Memory {
    let memory = Memory::from_ranges(&[(GuestAddress(0), 0x4000)]).unwrap();
    for i in 0..SIZE {
        // One writable descriptor of eight bytes each, in order of the ring.
        let descriptor = [0x3000u64, 8 | 2 << 32];
        memory.write_obj(descriptor, GuestAddress(16 * u64::from(i))).unwrap();
        put(&memory, DRIVER_AREA, 4 + 2 * u64::from(i), i);
    }
    memory
}

fn put(memory: &Memory, area: GuestAddress, offset: u64, value: u16) {
    memory.write_obj(value, GuestAddress(area.0 + offset)).unwrap();
}

/// A ring of which `start` chains, modulo 2^16, were taken and returned.
fn ring(start: u16) -> Ring {
    let mut queue = Queue::new(SIZE).unwrap();
    queue.try_set_avail_ring_address(DRIVER_AREA).unwrap();
    queue.try_set_used_ring_address(DEVICE_AREA).unwrap();
    queue.set_event_idx(true);
    queue.set_ready(true);
    queue.set_next_avail(start);
    queue.set_next_used(start);
    Ring::new(queue, EventFd::new(EFD_NONBLOCK).unwrap())
}

#[test]
fn pop_returns_all_available_chains_and_never_more_than_the_ring_holds() {
    let memory = memory();
    let mut ring = ring(0);
    for start in 0..=u16::MAX {
        for ahead in [0, 1, SIZE - 1, SIZE, SIZE + 1, 0x7fff, 0x8000, u16::MAX] {
            ring.queue.set_next_avail(start);
            put(&memory, DRIVER_AREA, 2, start.wrapping_add(ahead));
            ring.reset_budget();
            if ahead > SIZE {
                assert!(ring.pop(&memory).is_err(), "{ahead} ahead of {start}");
                continue;
            }
            for i in 0..ahead {
                let chain = ring.pop(&memory).unwrap().unwrap();
                assert_eq!((chain.head, chain.writable.len()), (start.wrapping_add(i) % SIZE, 8));
            }
            assert!(ring.pop(&memory).unwrap().is_none());
            assert_eq!(ring.queue.next_avail(), start.wrapping_add(ahead));
        }
    }
}

#[test]
fn the_driver_is_interrupted_exactly_when_the_used_index_passes_used_event() {
    let memory = memory();
    let line = EventFd::new(EFD_NONBLOCK).unwrap();
    let interrupt = Interrupt::new(line.try_clone().unwrap(), Arc::default());
    let mut ring = ring(0);
    for start in 0..=u16::MAX {
        for (pushed, event) in [(1, 0), (1, 1), (1, u16::MAX), (3, 0), (3, 2), (3, 3), (3, 0x8000)] {
            ring.queue.set_next_used(start);
            // The last notification was at `start`.
            ring.queue.needs_notification(&memory).unwrap();
            put(&memory, DRIVER_AREA, 4 + 2 * u64::from(SIZE), start.wrapping_add(event));
            for head in 0..pushed {
                ring.push_used(&memory, head, 8).unwrap();
            }
            ring.notify(&memory, &interrupt).unwrap();
            assert_eq!(interrupt.status() != 0, event < pushed, "{pushed} from {start}, event {event}");
            interrupt.clear();
            let _ = line.read();
        }
    }
}
