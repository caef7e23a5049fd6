//! One split virtqueue: takes validated chains, returns used ones, suppresses notifications in both directions.

use super::{Buffers, Interrupt, Memory};
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::Permissions;
use vmm_sys_util::eventfd::EventFd;

/// The ring is invalid or outside guest memory; the device needs a reset.
#[derive(Debug, thiserror::Error)]
#[error("a virtqueue is invalid")]
pub struct RingError(#[from] virtio_queue::Error);

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
    /// Chains were returned since the last [`Ring::notify`].
    returned: bool,
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
            returned: false,
            served: 0,
        }
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
        self.returned = true;
        Ok(())
    }

    /// Interrupts the driver if chains were returned since the last call and it asked for an interrupt.
    pub fn notify(&mut self, memory: &Memory, interrupt: &Interrupt) -> Result<(), RingError> {
        interrupt.record_progress(std::mem::take(&mut self.served));
        if std::mem::take(&mut self.returned) && self.queue.needs_notification(memory)? {
            interrupt.notify_used();
        }
        Ok(())
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
