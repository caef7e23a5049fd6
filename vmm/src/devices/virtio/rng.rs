//! virtio-rng (virtio 1.2, 5.4): the host's entropy, at most 4 KiB per request.
#![expect(
    unsafe_code,
    reason = "getrandom(2): crates need dlsym or /dev/random, which a static program in an empty root does not have"
)]

use super::{Activation, RingError, VirtioDevice};
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

/// Most bytes per request; Linux requests 64.
const MAX_REQUEST_BYTES: usize = 4096;
const QUEUE_SIZES: [u16; 1] = [64];

/// The entropy device.
#[derive(Default)]
pub struct Rng {
    active: Option<Activation>,
}

impl Rng {
    /// A device that is not active yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl VirtioDevice for Rng {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_RNG
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn activate(&mut self, activation: Activation) {
        self.active = Some(activation);
    }

    fn reset(&mut self) {
        self.active = None;
    }

    fn process_queue(&mut self, index: usize) -> Result<(), RingError> {
        let Some(Activation {
            memory, rings, interrupt, ..
        }) = &mut self.active
        else {
            return Ok(());
        };
        let Some(ring) = rings.get_mut(index) else { return Ok(()) };
        let mut entropy = [0; MAX_REQUEST_BYTES];
        ring.reset_budget();
        loop {
            ring.disable_notification(memory)?;
            while let Some(mut chain) = ring.pop(memory)? {
                let wanted = &mut entropy[..chain.writable.len().min(MAX_REQUEST_BYTES)];
                // Without entropy the request is returned empty, and the driver repeats it.
                let filled = fill(wanted) && chain.writable.write_all(wanted).is_ok();
                let len = if filled { wanted.len() as u32 } else { 0 };
                ring.push_used(memory, chain.head, len)?;
            }
            ring.notify(memory, interrupt)?;
            if !ring.enable_notification(memory)? {
                return Ok(());
            }
        }
    }
}

/// Fills `bytes` from getrandom(2); `false` on failure.
fn fill(bytes: &mut [u8]) -> bool {
    // SAFETY: the kernel writes at most `bytes.len()` bytes to `bytes`.
    let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    // A signal may cut a request of more than 256 bytes short, which counts as a failure.
    usize::try_from(count).is_ok_and(|count| count == bytes.len())
}

#[cfg(test)]
mod tests;
