//! Virtio devices: what a device is, what it gets when the guest's driver activates it, and the devices themselves.
//!
//! A vCPU thread touches a device only through [`mmio::MmioTransport`]: features, configuration, activation, reset.
//! Queues are served by the event loop: the guest's notification is an `ioeventfd`, and [`mmio::MmioTransport::attach`]
//! registers its handler. Both sides meet at the device's mutex; the interrupt status ([`Interrupt`]) is outside it,
//! so that an interrupt handler in the guest never waits for a disk.
//!
//! Everything a driver writes is hostile. A malformed descriptor chain is returned unused, a ring that makes no sense
//! puts the device into the state "needs reset" (virtio 1.2, 2.1.2), and the VM goes on.

pub mod block;
mod buffers;
mod interrupt;
pub mod mmio;
#[cfg(test)]
mod mock;
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

/// What the driver agreed on, given to a device when the driver sets DRIVER_OK.
pub struct Activation {
    /// The guest's memory.
    pub memory: Memory,
    /// One ring per entry of [`VirtioDevice::queue_sizes`]; a queue that the driver left out stays empty for ever.
    pub rings: Vec<Ring>,
    /// The negotiated feature bits, the transport's included.
    pub features: u64,
    /// The way to interrupt the guest.
    pub interrupt: Arc<Interrupt>,
}

/// A virtio device behind a transport.
///
/// All calls come under the device's mutex: [`VirtioDevice::process_queue`] and [`VirtioDevice::process_host_events`]
/// from the event loop, the others from vCPU threads.
pub trait VirtioDevice: Send {
    /// The device ID (virtio 1.2, section 5).
    fn device_type(&self) -> u32;

    /// The largest size of each queue, powers of two.
    fn queue_sizes(&self) -> &'static [u16];

    /// Device-specific feature bits on offer; the transport adds its own.
    fn features(&self) -> u64 {
        0
    }

    /// Changes whenever configuration space has changed.
    fn config_generation(&self) -> u32 {
        0
    }

    /// Fills `data` from configuration space at `offset`; bytes outside it read as zero.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// The driver writes configuration space; devices without writable fields ignore it.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// The driver is ready: from now on queues are served.
    fn activate(&mut self, activation: Activation);

    /// Back to the state before [`VirtioDevice::activate`]; guest memory must not be touched afterwards.
    fn reset(&mut self);

    /// The driver has put buffers into queue `index`. An error means that the rings are unusable.
    fn process_queue(&mut self, index: usize) -> Result<(), RingError>;

    /// A descriptor of the host that is readable when [`VirtioDevice::process_host_events`] has work.
    fn host_events(&self) -> Option<RawFd> {
        None
    }

    /// Serves the host side of a device that has one.
    fn process_host_events(&mut self) -> Result<(), RingError> {
        Ok(())
    }
}

/// A device shared between the vCPU threads and the event loop.
pub type SharedVirtioDevice = Arc<Mutex<dyn VirtioDevice>>;

/// Locks a device; a panic in another thread has ended the VM anyway, so a poisoned lock is no news.
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
