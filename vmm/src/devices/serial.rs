//! The serial console: the transmit side of a 16550A, as far as Linux's 8250 driver uses it.
//!
//! Register names and bits: TL16C550C data sheet; `include/uapi/linux/serial_reg.h`.

mod output;

pub use output::{Output, OutputError};

use super::BusDevice;
use crate::watchdog::Watchdog;
use std::sync::Arc;
use vmm_sys_util::eventfd::EventFd;

/// Bytes that count as progress: a guest that prints without end becomes an exit storm after these.
const PROGRESS_MAX_BYTES: u64 = 16 << 20;
/// Most bytes that are buffered until a line is complete.
const LINE_BYTES: usize = 256;

const DATA: u64 = 0;
const IER: u64 = 1;
const IIR_FCR: u64 = 2;
const LCR: u64 = 3;
const MCR: u64 = 4;
const LSR: u64 = 5;
const MSR: u64 = 6;
const SCRATCH: u64 = 7;

const IER_TRANSMIT_EMPTY: u8 = 1 << 1;
const IER_BITS: u8 = 0x0f;
const IIR_NONE: u8 = 1;
const IIR_TRANSMIT_EMPTY: u8 = 1 << 1;
const IIR_FIFOS: u8 = 0xc0;
const FCR_FIFOS: u8 = 1;
const LCR_DIVISOR: u8 = 1 << 7;
const MCR_BITS: u8 = 0x1f;
const MCR_LOOP: u8 = 1 << 4;
/// Holding and shift register are empty: a byte is sent as soon as it is written.
const LSR_IDLE: u8 = 1 << 6 | 1 << 5;
/// Carrier, data set ready, clear to send.
const MSR_CONNECTED: u8 = 1 << 7 | 1 << 5 | 1 << 4;

/// The port; the guest's bytes go to an [`Output`], line by line.
pub struct Serial {
    interrupt: EventFd,
    watchdog: Arc<Watchdog>,
    console: Console,
    ier: u8,
    fifos: bool,
    lcr: u8,
    mcr: u8,
    scratch: u8,
    divisor: [u8; 2],
    /// A transmitter-empty interrupt is pending.
    transmit_empty: bool,
}

impl Serial {
    /// `interrupt` is the irqfd of the console; without an `output` everything is discarded. The first 16 MiB count as
    /// progress for `watchdog`.
    ///
    /// If a write would block (a full pipe in non-blocking mode), the line is lost and the guest does not wait.
    pub fn new(interrupt: EventFd, output: Option<Output>, watchdog: Arc<Watchdog>) -> Self {
        Self {
            interrupt,
            watchdog,
            console: Console {
                output,
                line: Vec::with_capacity(LINE_BYTES),
                progress_left: PROGRESS_MAX_BYTES,
            },
            ier: 0,
            fifos: false,
            lcr: 0,
            mcr: 0,
            scratch: 0,
            divisor: [0; 2],
            transmit_empty: false,
        }
    }

    fn is_divisor_selected(&self) -> bool {
        self.lcr & LCR_DIVISOR != 0
    }

    /// Edge-triggered: one interrupt each time the transmitter becomes empty or the driver enables the interrupt.
    fn transmitter_is_empty(&mut self) {
        self.transmit_empty = true;
        if self.ier & IER_TRANSMIT_EMPTY != 0 {
            // Fails only if the counter is full, and then an interrupt is pending already.
            let _ = self.interrupt.write(1);
        }
    }

    fn read_register(&mut self, offset: u64) -> u8 {
        match offset {
            DATA | IER if self.is_divisor_selected() => self.divisor[offset as usize],
            IER => self.ier,
            IIR_FCR => {
                let pending = self.transmit_empty && self.ier & IER_TRANSMIT_EMPTY != 0;
                if pending {
                    self.transmit_empty = false;
                }
                let fifos = if self.fifos { IIR_FIFOS } else { 0 };
                fifos | if pending { IIR_TRANSMIT_EMPTY } else { IIR_NONE }
            }
            LCR => self.lcr,
            MCR => self.mcr,
            LSR => LSR_IDLE,
            // In loop-back mode the outputs RTS, DTR, OUT1, OUT2 appear as CTS, DSR, RI, DCD.
            MSR if self.mcr & MCR_LOOP != 0 => (self.mcr & 1) << 5 | (self.mcr & 2) << 3 | (self.mcr & 0b1100) << 4,
            MSR => MSR_CONNECTED,
            SCRATCH => self.scratch,
            _ => 0,
        }
    }

    fn write_register(&mut self, offset: u64, value: u8) {
        match offset {
            DATA | IER if self.is_divisor_selected() => self.divisor[offset as usize] = value,
            DATA => {
                if self.mcr & MCR_LOOP == 0 && self.console.put(value) {
                    self.watchdog.record_progress(1);
                }
                self.transmitter_is_empty();
            }
            IER => {
                self.ier = value & IER_BITS;
                self.transmitter_is_empty();
            }
            IIR_FCR => self.fifos = value & FCR_FIFOS != 0,
            LCR => self.lcr = value,
            MCR => self.mcr = value & MCR_BITS,
            SCRATCH => self.scratch = value,
            _ => {}
        }
    }
}

impl BusDevice for Serial {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let [value] = data {
            *value = self.read_register(offset);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let [value] = data {
            self.write_register(offset, *value);
        }
    }
}

/// Line-buffered output.
struct Console {
    output: Option<Output>,
    line: Vec<u8>,
    progress_left: u64,
}

impl Console {
    /// Whether the byte is progress; counted even without an output.
    fn put(&mut self, byte: u8) -> bool {
        if self.output.is_some() {
            self.line.push(byte);
            if byte == b'\n' || self.line.len() >= LINE_BYTES {
                self.flush();
            }
        }
        let is_progress = self.progress_left > 0;
        self.progress_left = self.progress_left.saturating_sub(1);
        is_progress
    }

    fn flush(&mut self) {
        if let Some(output) = &mut self.output {
            output.write(&self.line);
        }
        self.line.clear();
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests;
