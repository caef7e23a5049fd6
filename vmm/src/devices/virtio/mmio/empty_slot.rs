//! The registers of a slot without a device.

use super::registers::{MAGIC, MAGIC_VALUE, VENDOR, VENDOR_ID, VERSION, VERSION_REGISTER};
use crate::devices::BusDevice;

/// A slot without a device: drivers ignore device ID 0 (virtio 1.2, 4.2.2).
pub struct EmptySlot;

impl EmptySlot {
    /// Its first registers; all others read as zero.
    pub fn registers() -> [u8; 16] {
        let mut bytes = [0; 16];
        for (register, bytes) in (0..).step_by(4).zip(bytes.chunks_exact_mut(4)) {
            Self.read(register, bytes);
        }
        bytes
    }
}

impl BusDevice for EmptySlot {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let value = match offset {
            MAGIC_VALUE => MAGIC,
            VERSION_REGISTER => VERSION,
            VENDOR_ID => VENDOR,
            _ => 0,
        };
        data.fill(0);
        if let Ok(register) = <&mut [u8; 4]>::try_from(data) {
            *register = value.to_le_bytes();
        }
    }

    fn write(&mut self, _offset: u64, _data: &[u8]) {}
}
