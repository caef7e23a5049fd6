//! The registers of one queue, before it is in use.

use super::registers::{
    QUEUE_DESC_HIGH, QUEUE_DESC_LOW, QUEUE_DEVICE_HIGH, QUEUE_DEVICE_LOW, QUEUE_DRIVER_HIGH, QUEUE_DRIVER_LOW, QUEUE_NUM, QUEUE_READY,
};
use crate::memory::Memory;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

/// What the driver wrote about one queue.
pub struct QueueSetup {
    pub max: u16,
    pub(super) size: u32,
    pub(super) descriptors: u64,
    driver_area: u64,
    device_area: u64,
    pub ready: bool,
}

impl QueueSetup {
    pub fn new(max: u16) -> Self {
        Self {
            max,
            size: u32::from(max),
            descriptors: 0,
            driver_area: 0,
            device_area: 0,
            ready: false,
        }
    }

    /// The queue as the driver described it; `None` if size, alignment or an address is invalid.
    pub fn build(&self, memory: &Memory, event_idx: bool) -> Option<Queue> {
        let mut queue = Queue::new(self.max).ok()?;
        queue.try_set_size(u16::try_from(self.size).ok()?).ok()?;
        queue.try_set_desc_table_address(GuestAddress(self.descriptors)).ok()?;
        queue.try_set_avail_ring_address(GuestAddress(self.driver_area)).ok()?;
        queue.try_set_used_ring_address(GuestAddress(self.device_area)).ok()?;
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        queue.is_valid(memory).then_some(queue)
    }

    /// A write to one of the queue registers. A queue that is ready cannot be changed.
    pub fn write(&mut self, offset: u64, value: u32, memory: &Memory) {
        match (offset, self.ready) {
            (QUEUE_READY, _) => self.ready = value == 1 && self.build(memory, false).is_some(),
            (_, true) => (),
            (QUEUE_NUM, _) => self.size = value,
            (QUEUE_DESC_LOW, _) => set_low(&mut self.descriptors, value),
            (QUEUE_DESC_HIGH, _) => set_high(&mut self.descriptors, value),
            (QUEUE_DRIVER_LOW, _) => set_low(&mut self.driver_area, value),
            (QUEUE_DRIVER_HIGH, _) => set_high(&mut self.driver_area, value),
            (QUEUE_DEVICE_LOW, _) => set_low(&mut self.device_area, value),
            (QUEUE_DEVICE_HIGH, _) => set_high(&mut self.device_area, value),
            _ => (),
        }
    }
}

/// Replaces the low half.
pub fn set_low(target: &mut u64, value: u32) {
    *target = *target & !u64::from(u32::MAX) | u64::from(value);
}

/// Replaces the high half.
pub fn set_high(target: &mut u64, value: u32) {
    *target = *target & u64::from(u32::MAX) | u64::from(value) << 32;
}
