//! virtio-vsock (virtio 1.2, 5.10) in user space: streams between the guest's AF_VSOCK and unix sockets of the host.
//!
//! A client of the host connects to the listening socket, writes `CONNECT <port>\n`, and reads `OK <host port>\n` once
//! the guest has accepted; from then on bytes and half-closes pass both ways. A refused connection is closed without
//! an answer. The guest may connect only to ports that [`Vsock::serve`] lists.
//!
//! This file is the virtio side; [`muxer`] owns the connections and the sockets, [`connection`] is one stream,
//! [`credit`] and [`packet`] are pure.

pub mod connection;
pub mod credit;
pub mod handshake;
pub mod muxer;
pub mod packet;

use super::{Activation, RingError, VirtioDevice, read_config_space};
use muxer::{Connector, Muxer};
use packet::HEADER_BYTES;
use std::{
    io,
    os::{fd::RawFd, unix::net::UnixListener},
    time::Instant,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;

/// The guest's address; 2 is the host's.
pub const GUEST_CID: u64 = 3;

const RX: usize = 0;
const TX: usize = 1;
/// Receive, transmit, events. We send no events: the VM is never migrated.
const QUEUE_SIZES: [u16; 3] = [256, 256, 16];

/// The socket device.
pub struct Vsock {
    muxer: Muxer,
    /// Transmit packets wait because too many of our answers do.
    tx_stalled: bool,
    active: Option<Activation>,
}

impl Vsock {
    /// A device whose host side is `listener`. Fails where the process can have no more descriptors.
    pub fn new(listener: UnixListener) -> io::Result<Self> {
        Ok(Self {
            muxer: Muxer::new(listener)?,
            tx_stalled: false,
            active: None,
        })
    }

    /// Lets the guest connect to `port`; each connection is the stream that `connector` returns.
    pub fn serve(mut self, port: u32, connector: Connector) -> Self {
        self.muxer.serve(port, connector);
        self
    }

    /// Takes packets from the guest until there are none or our answers to them pile up.
    fn process_tx(&mut self) -> Result<(), RingError> {
        let Some(Activation {
            memory, rings, interrupt, ..
        }) = &mut self.active
        else {
            return Ok(());
        };
        let Some(ring) = rings.get_mut(TX) else { return Ok(()) };
        self.tx_stalled = false;
        ring.begin_turn();
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
        ring.begin_turn();
        loop {
            ring.disable_notification(memory)?;
            while self.muxer.has_output()
                && let Some(mut chain) = ring.pop(memory)?
            {
                // Without room for one byte of data the stream could never move.
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
            // With nothing to send, fresh buffers are no news: the driver need not notify.
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
