//! Devices, and the two buses (MMIO and port I/O) that dispatch the guest's accesses to them.

pub mod device_set;
pub mod power;
pub mod refusal;
pub mod serial;
pub mod virtio;

use std::sync::{Arc, Mutex, PoisonError};

/// A device with registers. Offset and data come from the guest and are hostile.
pub trait BusDevice: Send {
    /// The guest reads `data.len()` bytes (1 to 8) at `offset` from the start of the device's range.
    fn read(&mut self, offset: u64, data: &mut [u8]);
    /// The guest writes `data` (1 to 8 bytes) at `offset`.
    fn write(&mut self, offset: u64, data: &[u8]);
}

/// A device that vCPU threads and the event loop share.
pub type SharedDevice = Arc<Mutex<dyn BusDevice>>;

/// Why a bus layout is invalid; a bug of the VMM, not an action of the guest.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// Two devices would have the same address.
    #[error("the device range {base:#x} + {length:#x} overlaps another or wraps around")]
    Overlap {
        /// First address.
        base: u64,
        /// Bytes.
        length: u64,
    },
}

struct Slot {
    base: u64,
    length: u64,
    device: SharedDevice,
}

/// An address space with fixed device ranges.
#[derive(Default)]
pub struct Bus {
    slots: Vec<Slot>,
}

/// The bus of `KVM_EXIT_MMIO`.
pub type MmioBus = Bus;
/// The bus of `KVM_EXIT_IO`.
pub type PioBus = Bus;

/// Both address spaces of devices, shared by all vCPUs.
#[derive(Default)]
pub struct Buses {
    /// Memory-mapped devices.
    pub mmio: MmioBus,
    /// Port devices.
    pub pio: PioBus,
}

impl Bus {
    /// Adds `device` at `base`.
    pub fn insert(&mut self, base: u64, length: u64, device: SharedDevice) -> Result<(), BusError> {
        let overlap = BusError::Overlap { base, length };
        let Some(end) = base.checked_add(length).filter(|_| length > 0) else {
            return Err(overlap);
        };
        if self.slots.iter().any(|s| base < s.base + s.length && s.base < end) {
            return Err(overlap);
        }
        self.slots.push(Slot { base, length, device });
        Ok(())
    }

    /// Whether there is a device at `address`.
    pub fn is_occupied(&self, address: u64) -> bool {
        self.at(address, 1).is_some()
    }

    /// A guest's read; without a device it returns all ones, as on hardware.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((offset, device)) = self.at(address, data.len()) {
            device.lock().unwrap_or_else(PoisonError::into_inner).read(offset, data);
        }
    }

    /// A guest's write; without a device it is ignored, as on hardware.
    pub fn write(&self, address: u64, data: &[u8]) {
        if let Some((offset, device)) = self.at(address, data.len()) {
            device.lock().unwrap_or_else(PoisonError::into_inner).write(offset, data);
        }
    }

    /// An access that crosses the end of a range reaches no device.
    fn at(&self, address: u64, bytes: usize) -> Option<(u64, &SharedDevice)> {
        let slot = self.slots.iter().find(|s| address >= s.base && address - s.base < s.length)?;
        let offset = address - slot.base;
        (bytes as u64 <= slot.length - offset).then_some((offset, &slot.device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Records accesses.
    #[derive(Default)]
    struct Recorder(Vec<(u64, usize)>);

    impl BusDevice for Recorder {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            self.0.push((offset, data.len()));
            data.fill(0x5a);
        }
        fn write(&mut self, offset: u64, data: &[u8]) {
            self.0.push((offset, data.len()));
        }
    }

    #[test]
    fn ranges_may_touch_but_not_overlap() {
        let mut bus = Bus::default();
        let device: SharedDevice = Arc::new(Mutex::new(Recorder::default()));
        bus.insert(0x1000, 0x100, device.clone()).unwrap();
        bus.insert(0x1100, 0x100, device.clone()).unwrap();
        bus.insert(0xf00, 0x100, device.clone()).unwrap();
        for (base, length) in [(0x10ff, 1), (0x1000, 1), (0xfff, 2), (0, 0x2000), (u64::MAX, 2), (0x5000, 0)] {
            assert!(bus.insert(base, length, device.clone()).is_err(), "{base:#x}+{length:#x}");
        }
    }

    proptest! {
        #[test]
        fn a_device_sees_only_its_own_range(address in 0xff0u64..0x1020, bytes in 1usize..=8) {
            let mut bus = Bus::default();
            let device = Arc::new(Mutex::new(Recorder::default()));
            bus.insert(0x1000, 0x10, device.clone()).unwrap();
            let mut data = [0; 8];
            bus.read(address, &mut data[..bytes]);
            let inside = address >= 0x1000 && address + bytes as u64 <= 0x1010;
            let seen = device.lock().unwrap().0.clone();
            prop_assert_eq!(seen, if inside { vec![(address - 0x1000, bytes)] } else { vec![] });
            prop_assert_eq!(data[0], if inside { 0x5a } else { 0xff });
        }
    }
}
