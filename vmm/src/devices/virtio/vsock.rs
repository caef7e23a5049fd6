//! virtio-vsock (virtio 1.2, 5.10) in user space: streams between the guest's AF_VSOCK and unix sockets of the host.
//!
//! A client of the host connects to the listening socket, writes `CONNECT <port>\n`, and reads `OK <host port>\n` once
//! the guest has accepted, as with Firecracker; from then on bytes and half-closes pass both ways. A refused connection is
//! closed without an answer. A connection that the guest requests is refused with an RST, unless the VM offers that port
//! ([`muxer::Offer`]).
//!
//! This file is the virtio side. [`muxer`] owns the streams, `clients` the handshakes before them; [`connection`] is one
//! stream and `socket` its end on the host; [`credit`] and [`packet`] are pure.

mod clients;
pub mod connection;
pub mod credit;
pub mod handshake;
pub mod muxer;
pub mod packet;
mod socket;

use super::{Activation, RingError, VirtioDevice, read_config_space};
use muxer::{Muxer, Offer};
use packet::HEADER_BYTES;
use std::{
    io,
    os::{fd::RawFd, unix::net::UnixListener},
    time::Instant,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;

/// The guest's address.
pub const GUEST_CID: u64 = 3;

const RX: usize = 0;
const TX: usize = 1;
/// Receive, transmit, events. No event is ever sent: the VM is never migrated.
const QUEUE_SIZES: [u16; 3] = [256, 256, 16];

/// The socket device.
pub struct Vsock {
    muxer: Muxer,
    /// The transmit queue waits until the guest has taken replies.
    tx_stalled: bool,
    active: Option<Activation>,
}

impl Vsock {
    /// A device whose host side is `listener`, and `offer` for connections of the guest.
    ///
    /// # Errors
    /// When the process may open no more descriptors.
    pub fn new(listener: UnixListener, offer: Option<Offer>) -> io::Result<Self> {
        Ok(Self {
            muxer: Muxer::new(listener, offer)?,
            tx_stalled: false,
            active: None,
        })
    }

    /// Takes packets from the guest until there are none or too many replies wait for the guest.
    fn process_tx(&mut self) -> Result<(), RingError> {
        let Some(Activation {
            memory, rings, interrupt, ..
        }) = &mut self.active
        else {
            return Ok(());
        };
        let Some(ring) = rings.get_mut(TX) else { return Ok(()) };
        self.tx_stalled = false;
        ring.reset_budget();
        loop {
            ring.disable_notification(memory)?;
            while !self.muxer.is_congested()
                && let Some(chain) = ring.pop(memory)?
            {
                self.muxer.receive(chain.readable);
                ring.push_used(memory, chain.head, 0)?;
            }
            ring.notify(memory, interrupt)?;
            self.tx_stalled = self.muxer.is_congested();
            if self.tx_stalled || !ring.enable_notification(memory)? {
                return Ok(());
            }
        }
    }

    /// Gives packets to the guest as long as it has buffers for them.
    fn process_rx(&mut self) -> Result<(), RingError> {
        let Some(Activation {
            memory, rings, interrupt, ..
        }) = &mut self.active
        else {
            return Ok(());
        };
        let Some(ring) = rings.get_mut(RX) else { return Ok(()) };
        ring.reset_budget();
        loop {
            ring.disable_notification(memory)?;
            while self.muxer.has_output()
                && let Some(mut chain) = ring.pop(memory)?
            {
                // A buffer without room for one byte of data would stall the stream.
                let header = if chain.writable.len() > HEADER_BYTES {
                    chain.writable.split_to(HEADER_BYTES).ok()
                } else {
                    None
                };
                let Some(mut header) = header else {
                    ring.push_used(memory, chain.head, 0)?;
                    continue;
                };
                let Some((packet, data)) = self.muxer.produce(&chain.writable) else {
                    ring.undo_pop();
                    break;
                };
                let written = header.write_all(&packet.to_bytes()).map_or(0, |()| HEADER_BYTES + data);
                ring.push_used(memory, chain.head, written as u32)?;
            }
            ring.notify(memory, interrupt)?;
            // With nothing to send, the driver need not notify of new buffers.
            if !self.muxer.has_output() || !ring.enable_notification(memory)? {
                break;
            }
        }
        if self.tx_stalled && !self.muxer.is_congested() {
            rings.get(TX).inspect(|ring| ring.kick());
        }
        Ok(())
    }
}

impl VirtioDevice for Vsock {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_space(&GUEST_CID.to_le_bytes(), offset, data);
    }

    fn activate(&mut self, activation: Activation) {
        self.active = Some(activation);
    }

    fn reset(&mut self) {
        self.active = None;
        self.tx_stalled = false;
        self.muxer.guest_reset();
    }

    fn process_queue(&mut self, index: usize) -> Result<(), RingError> {
        if index == TX {
            self.process_tx()?;
        }
        self.process_rx()
    }

    fn host_events(&self) -> Option<RawFd> {
        Some(self.muxer.events())
    }

    fn process_host_events(&mut self) -> Result<(), RingError> {
        self.muxer.process_host_events(Instant::now());
        self.process_rx()
    }
}

#[cfg(test)]
mod tests;
