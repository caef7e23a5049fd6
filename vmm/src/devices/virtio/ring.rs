//! One split virtqueue: takes validated chains, returns used ones, suppresses notifications in both directions.

use super::{Buffers, Interrupt, Memory};
use std::sync::atomic::{Ordering, fence};
use virtio_queue::{DescriptorChain, Error, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, Permissions};
use vmm_sys_util::eventfd::EventFd;

/// Flags and index, before the elements.
const USED_RING_HEADER_BYTES: u64 = 4;
/// Flags and index, before the elements.
const AVAILABLE_RING_HEADER_BYTES: u64 = 4;

/// The ring is invalid or outside guest memory; the device needs a reset.
#[derive(Debug, thiserror::Error)]
#[error("a virtqueue is invalid")]
pub struct RingError(#[from] Error);

/// A well-formed descriptor chain: all in guest memory, readable parts before writable ones.
#[derive(Debug)]
pub struct Chain<'m> {
    /// Index of its first descriptor, as the used ring needs it.
    pub head: u16,
    /// What the device reads.
    pub readable: Buffers<'m>,
    /// What the device writes.
    pub writable: Buffers<'m>,
}

/// A queue that the driver has set up, or an empty one if it did not.
///
/// To serve it: [`Ring::reset_budget`]; then [`Ring::disable_notification`], [`Ring::pop`] until `None`, [`Ring::notify`], and again from
/// `disable_notification` as long as [`Ring::enable_notification`] returns `true`.
pub struct Ring {
    queue: Queue,
    kick: EventFd,
    /// Chains that may still be taken before the event loop serves other descriptors.
    budget: u16,
    /// Chains returned since the last [`Ring::notify`], modulo 2^16.
    returned: u16,
    /// Well-formed chains returned since progress was last recorded.
    served: u64,
}

impl Ring {
    /// `kick` is the eventfd that makes the event loop serve this queue.
    pub(super) fn new(queue: Queue, kick: EventFd) -> Self {
        Self {
            queue,
            kick,
            budget: 0,
            returned: 0,
            served: 0,
        }
    }

    /// Chains that it can hold.
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// Lets [`Ring::pop`] take as many chains as the queue is long before the event loop serves other descriptors.
    pub fn reset_budget(&mut self) {
        self.budget = self.queue.size();
    }

    /// Asks the driver not to notify while the queue is being served.
    pub fn disable_notification(&mut self, memory: &Memory) -> Result<(), RingError> {
        if self.queue.ready() {
            self.queue.disable_notification(memory)?;
        }
        Ok(())
    }

    /// Takes the next chain. A malformed one is returned to the driver with length 0 and skipped.
    pub fn pop<'m>(&mut self, memory: &'m Memory) -> Result<Option<Chain<'m>>, RingError> {
        while self.queue.ready() && self.budget > 0 {
            let Some(chain) = self.queue.iter(memory)?.next() else {
                return Ok(None);
            };
            self.budget -= 1;
            let head = chain.head_index();
            match collect_chain(memory, chain, self.queue.size()) {
                Some((readable, writable)) => return Ok(Some(Chain { head, readable, writable })),
                None => self.add_used(memory, head, 0)?,
            }
        }
        Ok(None)
    }

    /// Makes [`Ring::pop`] return `None`; the event loop serves the rest later.
    pub fn exhaust_budget(&mut self) {
        self.budget = 0;
    }

    /// Undoes the last [`Ring::pop`].
    pub fn undo_pop(&mut self) {
        self.queue.go_to_previous_position();
        self.budget += 1;
    }

    /// Returns a chain with `len` bytes written.
    pub fn push_used(&mut self, memory: &Memory, head: u16, len: u32) -> Result<(), RingError> {
        self.served += 1;
        self.add_used(memory, head, len)
    }

    fn add_used(&mut self, memory: &Memory, head: u16, len: u32) -> Result<(), RingError> {
        self.queue.add_used(memory, head, len)?;
        self.returned = self.returned.wrapping_add(1);
        Ok(())
    }

    /// As [`Ring::push_used`], for several chains that the driver sees at once: it takes all chains of a frame when it sees the first.
    pub fn push_used_together(&mut self, memory: &Memory, chains: &[(u16, u32)]) -> Result<(), RingError> {
        let Some(((last, len), before)) = chains.split_last() else {
            return Ok(());
        };
        for (head, len) in before {
            let index = self.queue.next_used();
            let slot = self.queue.used_ring() + USED_RING_HEADER_BYTES + 8 * u64::from(index % self.queue.size());
            let element = [u32::from(*head).to_le(), len.to_le()];
            memory.write_obj(element, GuestAddress(slot)).map_err(Error::GuestMemory)?;
            // The ring's own index, which the driver reads, follows with the last chain.
            self.queue.set_next_used(index.wrapping_add(1));
            self.returned = self.returned.wrapping_add(1);
            self.served += 1;
        }
        self.push_used(memory, *last, *len)
    }

    /// Interrupts the driver if chains were returned since the last call and it asked for an interrupt.
    pub fn notify(&mut self, memory: &Memory, interrupt: &Interrupt) -> Result<(), RingError> {
        interrupt.record_progress(std::mem::take(&mut self.served));
        let returned = std::mem::take(&mut self.returned);
        if returned > 0 && self.is_awaited(memory, returned)? {
            interrupt.notify_used();
        }
        Ok(())
    }

    /// Whether the driver wants an interrupt for one of the last `returned` chains (virtio 1.2, 2.7.7.2). The queue's own check knows only
    /// of chains that it has returned one by one.
    fn is_awaited(&self, memory: &Memory, returned: u16) -> Result<bool, RingError> {
        if !self.queue.event_idx_enabled() {
            return Ok(true);
        }
        // The used ring is written before the driver's event index is read.
        fence(Ordering::SeqCst);
        let address = self.queue.avail_ring() + AVAILABLE_RING_HEADER_BYTES + 2 * u64::from(self.queue.size());
        let event: u16 = memory.load(GuestAddress(address), Ordering::Relaxed).map_err(Error::GuestMemory)?;
        Ok(self.queue.next_used().wrapping_sub(u16::from_le(event)).wrapping_sub(1) < returned)
    }

    /// Lets the driver notify again; `true` if more chains have arrived meanwhile and must be served.
    pub fn enable_notification(&mut self, memory: &Memory) -> Result<bool, RingError> {
        if !self.queue.ready() {
            return Ok(false);
        }
        if self.budget == 0 {
            self.kick();
            return Ok(false);
        }
        Ok(self.queue.enable_notification(memory)?)
    }

    /// Makes the event loop serve this queue again.
    pub fn kick(&self) {
        // Fails only if the counter is full, and then the event loop serves the queue anyway.
        let _ = self.kick.write(1);
    }
}

/// Collects a chain; `None` if it loops, leaves guest memory, ends early, has a readable part after a writable one, or is
/// longer than the queue (virtio 1.2, 2.7.4, 2.7.5).
fn collect_chain<'m>(memory: &'m Memory, chain: DescriptorChain<&'m Memory>, limit: u16) -> Option<(Buffers<'m>, Buffers<'m>)> {
    let (mut readable, mut writable) = (Buffers::default(), Buffers::default());
    let (mut complete, mut in_writable) = (false, false);
    for (count, descriptor) in chain.enumerate() {
        if count >= usize::from(limit) {
            return None;
        }
        // The iterator stops silently at an invalid descriptor; then the one before has the NEXT flag.
        complete = !descriptor.has_next();
        let len = usize::try_from(descriptor.len()).ok()?;
        if descriptor.is_write_only() {
            in_writable = true;
            writable.push(memory, descriptor.addr(), len, Permissions::Write)?;
        } else if in_writable {
            return None;
        } else {
            readable.push(memory, descriptor.addr(), len, Permissions::Read)?;
        }
    }
    complete.then_some((readable, writable))
}

#[cfg(test)]
mod tests;
