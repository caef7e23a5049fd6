//! The port on which stage0 says why it does not start the kernel. Only a guest that stage0 starts has it.

use super::BusDevice;
use crate::exit_reason::{ExitEvent, ExitReason};
use std::sync::Arc;

/// Ends the VM with the code that the guest writes.
pub struct RefusalPort(pub Arc<ExitEvent>);

impl BusDevice for RefusalPort {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        if let [code] = *data {
            self.0.set(ExitReason::Refused(code));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_ends_the_vm_with_its_code() {
        let exit_event = Arc::new(ExitEvent::new().unwrap());
        let mut port = RefusalPort(exit_event.clone());
        port.write(0, &[1, 2]);
        let mut data = [0xff; 2];
        port.read(0, &mut data);
        assert_eq!((data, exit_event.reason()), ([0, 0], None));
        port.write(0, &[0x20]);
        assert_eq!(exit_event.reason(), Some(&ExitReason::Refused(0x20)));
    }
}
