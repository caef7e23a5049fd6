//! The interrupt of one virtio device: status bits that the guest reads and acknowledges, and the irqfd.

use crate::watchdog::Watchdog;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};
use vmm_sys_util::eventfd::EventFd;

/// Interrupt status bit 0: a buffer was used (virtio 1.2, 4.2.2).
const USED_BUFFER: u32 = 1;
/// Interrupt status bit 1: the configuration or the device status has changed.
const CONFIG_CHANGED: u32 = 2;

/// Interrupt state shared by a device and its transport, usable without the device's mutex.
#[derive(Debug)]
pub struct Interrupt {
    line: EventFd,
    watchdog: Arc<Watchdog>,
    status: AtomicU32,
    needs_reset: AtomicBool,
}

impl Interrupt {
    /// `line` is the device's irqfd (`KVM_IRQFD`); `watchdog` records the device's progress.
    pub fn new(line: EventFd, watchdog: Arc<Watchdog>) -> Self {
        Self {
            line,
            watchdog,
            status: AtomicU32::new(0),
            needs_reset: AtomicBool::new(false),
        }
    }

    /// Records `chains` served, well-formed chains.
    pub fn record_progress(&self, chains: u64) {
        self.watchdog.record_progress(chains);
    }

    /// Sends a used buffer notification.
    pub fn notify_used(&self) {
        self.raise(USED_BUFFER);
    }

    /// Sends a configuration change notification.
    pub fn notify_config_change(&self) {
        self.raise(CONFIG_CHANGED);
    }

    /// Sets DEVICE_NEEDS_RESET and notifies the driver once.
    pub fn set_needs_reset(&self) {
        if !self.needs_reset.swap(true, Ordering::SeqCst) {
            self.raise(CONFIG_CHANGED);
        }
    }

    /// Whether DEVICE_NEEDS_RESET is set.
    pub fn is_reset_needed(&self) -> bool {
        self.needs_reset.load(Ordering::SeqCst)
    }

    /// Pending status bits.
    pub fn status(&self) -> u32 {
        self.status.load(Ordering::SeqCst)
    }

    /// The driver acknowledges `bits`.
    pub fn acknowledge(&self, bits: u32) {
        self.status.fetch_and(!bits, Ordering::SeqCst);
    }

    /// As after a device reset.
    pub fn clear(&self) {
        self.status.store(0, Ordering::SeqCst);
        self.needs_reset.store(false, Ordering::SeqCst);
    }

    /// The status is set before the interrupt is raised, because the guest's handler reads it at once.
    fn raise(&self, bits: u32) {
        self.status.fetch_or(bits, Ordering::SeqCst);
        // Fails only if the counter is full, and then an interrupt is pending already.
        let _ = self.line.write(1);
    }
}
