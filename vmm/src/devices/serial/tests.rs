//! What Linux's 8250 driver expects of the port, and what a hostile guest cannot do.

use super::*;
use proptest::prelude::*;
use std::{
    fs::File,
    io::{Read, Seek},
};
use vmm_sys_util::eventfd::EFD_NONBLOCK;

fn serial() -> (Serial, File) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    let output = Output::open(file.try_clone().unwrap()).unwrap();
    (Serial::new(EventFd::new(EFD_NONBLOCK).unwrap(), Some(output), Arc::default()), file)
}

fn written(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes.retain(|byte| *byte != 0);
    bytes
}

fn get(serial: &mut Serial, offset: u64) -> u8 {
    let mut data = [0xff];
    serial.read(offset, &mut data);
    data[0]
}

#[test]
fn bytes_are_written_in_order_and_an_incomplete_line_on_drop() {
    let (mut serial, file) = serial();
    for byte in b"one\ntwo" {
        assert_eq!(get(&mut serial, LSR) & 0x20, 0x20);
        serial.write(DATA, &[*byte]);
    }
    assert_eq!(written(file.try_clone().unwrap()), b"one\n");
    drop(serial);
    assert_eq!(written(file), b"one\ntwo");
}

/// `autoconfig()` and `autoconfig_16550a()` of drivers/tty/serial/8250/8250_port.c.
#[test]
fn the_driver_detects_a_16550a() {
    let (mut serial, file) = serial();
    serial.write(IER, &[0]);
    assert_eq!(get(&mut serial, IER), 0);
    serial.write(IER, &[0x0f]);
    assert_eq!(get(&mut serial, IER) & 0x0f, 0x0f);
    serial.write(IER, &[0]);
    serial.write(MCR, &[0x10 | 0x0a]);
    assert_eq!(get(&mut serial, MSR) & 0xf0, 0x90, "loop-back");
    serial.write(DATA, b"x");
    serial.write(MCR, &[0]);
    serial.write(LCR, &[0xbf]);
    assert_ne!(get(&mut serial, IIR_FCR), 0, "no enhanced feature register");
    serial.write(LCR, &[0]);
    assert_eq!(get(&mut serial, IIR_FCR) >> 6, 0);
    serial.write(IIR_FCR, &[1]);
    assert_eq!(get(&mut serial, IIR_FCR) >> 6, 3);
    serial.write(LCR, &[0x80]);
    serial.write(DATA, &[12]);
    serial.write(IER, &[34]);
    assert_eq!((get(&mut serial, DATA), get(&mut serial, IER)), (12, 34));
    serial.write(LCR, &[3]);
    assert_eq!((get(&mut serial, DATA), get(&mut serial, IER)), (0, 0));
    drop(serial);
    assert_eq!(written(file), b"", "loop-back and divisor bytes are not sent");
}

#[test]
fn an_empty_transmitter_interrupts_once_per_enable_or_byte() {
    let (mut serial, _file) = serial();
    let line = serial.interrupt.try_clone().unwrap();
    serial.write(DATA, b"a");
    assert!(line.read().is_err(), "not enabled");
    serial.write(IER, &[IER_TRANSMIT_EMPTY]);
    assert_eq!(line.read().unwrap(), 1);
    assert_eq!(get(&mut serial, IIR_FCR) & 0x0f, IIR_TRANSMIT_EMPTY);
    assert_eq!(get(&mut serial, IIR_FCR) & 0x0f, IIR_NONE);
    serial.write(DATA, b"b");
    assert_eq!(line.read().unwrap(), 1);
}

/// The newest output is kept, but only a bounded part of it is progress.
#[test]
fn endless_output_is_no_endless_progress() {
    let (mut serial, file) = serial();
    serial.console.progress_left = 10;
    for byte in [b'y'; 50].into_iter().chain(*b"the end") {
        serial.write(DATA, &[byte]);
    }
    assert_eq!(serial.watchdog.progress(), 10);
    drop(serial);
    assert!(written(file).ends_with(b"the end"));
}

proptest! {
    #[test]
    fn no_access_panics(accesses: Vec<(bool, u64, Vec<u8>)>) {
        let mut serial = Serial::new(EventFd::new(EFD_NONBLOCK).unwrap(), None, Arc::default());
        for (write, offset, mut data) in accesses {
            let offset = offset % 16;
            if write { serial.write(offset, &data) } else { serial.read(offset, &mut data) }
        }
    }
}
