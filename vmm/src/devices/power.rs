//! Power-off and reset: the ACPI sleep and reset registers, and the i8042 reset command.

use super::BusDevice;
use crate::exit_reason::{ExitEvent, ExitReason};
use std::sync::Arc;
use vm_spec::layout::{RESET_PORT, RESET_VALUE, SLEEP_CONTROL_PORT, SLEEP_TYPE_S5};

/// `SLP_EN` of the sleep control register (ACPI 6.5, 4.8.3.7).
const SLEEP_ENABLE: u8 = 1 << 5;
/// `SLP_TYP` in the same register.
const SLEEP_TYPE_SHIFT: u32 = 2;
/// Command/status port of the 8042 keyboard controller.
pub const KEYBOARD_PORT: u16 = 0x64;
/// Pulses the processor's reset line.
const KEYBOARD_RESET: u8 = 0xfe;

/// The three ACPI registers at [`SLEEP_CONTROL_PORT`].
pub struct Power(pub Arc<ExitEvent>);

impl BusDevice for Power {
    /// `WAK_STS` is never set: the VM never wakes from a sleep state.
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let [value] = *data else { return };
        const SLEEP: u64 = 0;
        const RESET: u64 = (RESET_PORT - SLEEP_CONTROL_PORT) as u64;
        match offset {
            SLEEP if value == SLEEP_TYPE_S5 << SLEEP_TYPE_SHIFT | SLEEP_ENABLE => self.0.set(ExitReason::PowerOff),
            RESET if value == RESET_VALUE => self.0.set(ExitReason::Reset),
            // The only bit of the status register is cleared by writing, and it is never set.
            _ => {}
        }
    }
}

/// The part of an i8042 that Linux needs for `reboot=k`: never busy, and the reset command.
pub struct KeyboardReset(pub Arc<ExitEvent>);

impl BusDevice for KeyboardReset {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        if data == [KEYBOARD_RESET] {
            self.0.set(ExitReason::Reset);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(write: impl Fn(&mut Power, &mut KeyboardReset)) -> Option<ExitReason> {
        let exit_event = Arc::new(ExitEvent::new().unwrap());
        write(&mut Power(exit_event.clone()), &mut KeyboardReset(exit_event.clone()));
        exit_event.reason().cloned()
    }

    #[test]
    fn only_the_exact_values_end_the_vm() {
        assert_eq!(after(|p, _| p.write(0, &[0x34])), Some(ExitReason::PowerOff));
        assert_eq!(after(|p, _| p.write(2, &[1])), Some(ExitReason::Reset));
        assert_eq!(after(|_, k| k.write(0, &[0xfe])), Some(ExitReason::Reset));
        for offset in 0..3 {
            for value in (0..=255u8).filter(|v| (offset, *v) != (0, 0x34) && (offset, *v) != (2, 1)) {
                assert_eq!(after(|p, _| p.write(offset, &[value])), None, "{value:#x} at {offset}");
            }
        }
        assert_eq!(
            after(|p, k| {
                p.write(0, &[0x34, 0]);
                p.write(2, &[1, 0, 0, 0]);
                k.write(0, &[0xfe, 0])
            }),
            None
        );
    }

    #[test]
    fn registers_read_as_zero() {
        let exit_event = Arc::new(ExitEvent::new().unwrap());
        let mut data = [0xff; 4];
        Power(exit_event.clone()).read(0, &mut data);
        assert_eq!(data, [0; 4]);
        KeyboardReset(exit_event).read(0, &mut data[..1]);
    }
}
