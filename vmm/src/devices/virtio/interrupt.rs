//! The interrupt of one virtio device: status bits that the guest reads and acknowledges, and the line to KVM.

use crate::watchdog::Watchdog;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};
use vmm_sys_util::eventfd::EventFd;

/// Interrupt status bit 0: a used buffer is there (virtio 1.2, 4.2.2).
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
    /// `line` is the eventfd that KVM turns into the device's interrupt (`KVM_IRQFD`); `watchdog` hears of the device's work.
    pub fn new(line: EventFd, watchdog: Arc<Watchdog>) -> Self {
        Self {
            line,
            watchdog,
            status: AtomicU32::new(0),
            needs_reset: AtomicBool::new(false),
        }
    }

    /// The device has served `chains` well-formed chains.
    pub fn record_progress(&self, chains: u64) {
        self.watchdog.record_progress(chains);
    }

    /// Tells the driver of used buffers.
    pub fn notify_used(&self) {
        self.raise(USED_BUFFER);
    }

    /// Tells the driver that the configuration has changed.
    pub fn notify_config_change(&self) {
        self.raise(CONFIG_CHANGED);
    }

    /// Tells the driver, once, that the device gave up until the next reset.
    pub fn set_needs_reset(&self) {
        if !self.needs_reset.swap(true, Ordering::SeqCst) {
            self.raise(CONFIG_CHANGED);
        }
    }

    /// Whether DEVICE_NEEDS_RESET is set.
    pub fn is_reset_needed(&self) -> bool {
        self.needs_reset.load(Ordering::SeqCst)
    }

    /// The bits pending.
    pub fn status(&self) -> u32 {
        self.status.load(Ordering::SeqCst)
    }

    /// The driver has seen `bits`.
    pub fn acknowledge(&self, bits: u32) {
        self.status.fetch_and(!bits, Ordering::SeqCst);
    }

    /// As after a device reset.
    pub fn clear(&self) {
        self.status.store(0, Ordering::SeqCst);
        self.needs_reset.store(false, Ordering::SeqCst);
    }

    /// The status is set before the line is pulled: the guest's handler reads it at once.
    fn raise(&self, bits: u32) {
        self.status.fetch_or(bits, Ordering::SeqCst);
        // Fails only where the counter is full, and then the line is pulled already.
        let _ = self.line.write(1);
    }
}
