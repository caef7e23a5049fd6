//! Virtio devices: the device trait, what a device gets on activation, and the devices themselves.
//!
//! A vCPU thread accesses a device only through [`mmio::MmioTransport`]: features, configuration, activation, reset. The
//! event loop, of the main thread or of the device's own, serves the queues: the guest's notification is an `ioeventfd`, whose handler [`mmio::MmioTransport::attach`]
//! registers. Both take the device's mutex. The interrupt status ([`Interrupt`]) is outside it, and so is what a disk asks of the host's
//! storage ([`Work`]): neither a register nor the control socket waits for that, but for a reset.
//!
//! Everything a driver writes is hostile. A malformed descriptor chain is returned unused, an invalid ring sets
//! DEVICE_NEEDS_RESET (virtio 1.2, 2.1.2), and the VM continues.

pub mod block;
mod buffers;
mod interrupt;
pub mod mmio;
#[cfg(test)]
pub(crate) mod mock;
pub mod net;
mod ring;
pub mod rng;
pub mod vsock;

pub use buffers::{Buffers, ShortBuffer};
pub use interrupt::Interrupt;
pub use ring::{Chain, Ring, RingError};

use std::{
    os::fd::RawFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use crate::memory::Memory;

/// What a device gets when the driver sets DRIVER_OK.
pub struct Activation {
    /// The guest's memory.
    pub memory: Memory,
    /// One ring per entry of [`VirtioDevice::queue_sizes`]; a queue that the driver did not set up stays empty.
    pub rings: Vec<Ring>,
    /// The negotiated feature bits, the transport's included.
    pub features: u64,
    /// Interrupts the guest.
    pub interrupt: Arc<Interrupt>,
}

/// A virtio device behind a transport.
///
/// All calls are made under the device's mutex: [`VirtioDevice::process_queue`], [`VirtioDevice::begin`], [`VirtioDevice::end`] and
/// [`VirtioDevice::process_host_events`] from the event loop, the others from vCPU threads.
pub trait VirtioDevice: Send {
    /// The device ID (virtio 1.2, section 5).
    fn device_type(&self) -> u32;

    /// The largest size of each queue, powers of two.
    fn queue_sizes(&self) -> &'static [u16];

    /// Device-specific feature bits offered; the transport adds its own.
    fn features(&self) -> u64 {
        0
    }

    /// Changes whenever configuration space changes.
    fn config_generation(&self) -> u32 {
        0
    }

    /// Fills `data` from configuration space at `offset`; bytes outside it read as zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// The driver writes configuration space; devices without writable fields ignore it.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// The driver is ready: queues are served from now on.
    fn activate(&mut self, activation: Activation);

    /// Back to the state before [`VirtioDevice::activate`]; guest memory must not be touched afterwards.
    fn reset(&mut self);

    /// Serves queue `index`.
    ///
    /// # Errors
    /// When the rings are invalid.
    fn process_queue(&mut self, index: usize) -> Result<(), RingError>;

    /// Takes the next chain of queue `index` whose service waits for the host's storage, after [`VirtioDevice::process_queue`] and until it
    /// returns `None`. The work is done without the device's mutex, and its outcome given to [`VirtioDevice::end`] before the next call.
    ///
    /// # Errors
    /// When the rings are invalid.
    fn begin<'m>(&mut self, _index: usize, _memory: &'m Memory) -> Result<Option<Work<'m>>, RingError> {
        Ok(None)
    }

    /// Returns the chain that was taken, unless the device was reset since.
    ///
    /// # Errors
    /// When the rings are invalid.
    fn end(&mut self, _index: usize, _done: Done) -> Result<(), RingError> {
        Ok(())
    }

    /// A descriptor of the host that is readable when [`VirtioDevice::process_host_events`] has work.
    fn host_events(&self) -> Option<RawFd> {
        None
    }

    /// Serves host events, of a device that has any.
    fn process_host_events(&mut self) -> Result<(), RingError> {
        Ok(())
    }
}

/// The service of one chain, without the device's mutex.
pub type Work<'m> = Box<dyn FnOnce() -> Done + 'm>;

/// A served chain.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// Index of its first descriptor.
    pub head: u16,
    /// Bytes written to it.
    pub written: u32,
    /// Bytes transferred.
    pub bytes: usize,
    /// What it counts as, in bytes, in the share of a turn.
    pub cost: usize,
}

/// A device shared between the vCPU threads and the event loop.
pub type SharedVirtioDevice = Arc<Mutex<dyn VirtioDevice>>;

/// Locks a device. A poisoned lock is taken too: the panic that poisoned it ends the VM anyway.
pub(crate) fn lock<T: ?Sized>(device: &Mutex<T>) -> MutexGuard<'_, T> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Copies the part of `space` that starts at `offset` into `data`, zeros where there is none.
fn read_config_space(space: &[u8], offset: u64, data: &mut [u8]) {
    data.fill(0);
    let Some(rest) = usize::try_from(offset).ok().and_then(|o| space.get(o..)) else {
        return;
    };
    let n = rest.len().min(data.len());
    data[..n].copy_from_slice(&rest[..n]);
}
