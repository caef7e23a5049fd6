//! virtio-net (virtio 1.2, 5.1): Ethernet frames between the guest and a TAP of the host, which the control socket brings.
//!
//! The device has a thread of its own ([`crate::device_thread`]). A turn moves a bounded number of frames one way and then asks for
//! the next turn, so neither a guest nor a host that floods the device keeps it from the other direction, or from being paused.
//! A frame that cannot be delivered is dropped, as on any network: the link is down, the header asks for what was not negotiated,
//! the kernel refuses it. Frames wait on the TAP as long as the guest has too little room for the largest of them.

mod frame_io;
mod header;
mod room;
mod tap;

pub use tap::{TapError, TapSlot};

use super::{Activation, Buffers, RingError, VirtioDevice, read_config_space};
use frame_io::SLICES_MAX;
use header::{HEADER_BYTES, Header};
use room::Room;
use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, RawFd},
};
use virtio_bindings::{
    virtio_ids::VIRTIO_ID_NET,
    virtio_net::{
        VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_TSO4,
        VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP,
    },
};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

const RX: usize = 0;
const TX: usize = 1;
const QUEUE_SIZES: [u16; 2] = [256, 256];
const FEATURES: [u32; 9] = [
    VIRTIO_NET_F_CSUM,
    VIRTIO_NET_F_GUEST_CSUM,
    VIRTIO_NET_F_MAC,
    VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_HOST_TSO4,
    VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_STATUS,
];
/// An Ethernet header.
const FRAME_MIN_BYTES: usize = 14;
/// An IP packet of 64 KiB after an Ethernet header with a VLAN tag.
const FRAME_MAX_BYTES: usize = 65535 + 18;
/// Most frames to the guest in a turn.
const FRAMES_PER_TURN: usize = 64;
/// Bytes from the guest after which a turn ends.
const BYTES_PER_TURN: usize = 2 << 20;

/// Events of the device's epoll set.
const GIVEN: u64 = 0;
const TAP: u64 = 1;

/// The network device.
pub struct Net {
    mac: [u8; 6],
    generation: u32,
    slot: TapSlot,
    /// The slot, and the TAP, edge-triggered: it may have frames for which the guest has no room.
    poll: Epoll,
    tap: Option<File>,
    /// The TAP may have frames.
    readable: bool,
    active: Option<Activation>,
}

impl Net {
    /// A device without a TAP: its link is down.
    ///
    /// # Errors
    /// When the process may open no more descriptors.
    pub fn new(mac: [u8; 6]) -> io::Result<Self> {
        let (slot, poll) = (TapSlot::new()?, Epoll::new()?);
        poll.ctl(ControlOperation::Add, slot.given(), EpollEvent::new(EventSet::IN, GIVEN))?;
        Ok(Self {
            mac,
            generation: 0,
            slot,
            poll,
            tap: None,
            readable: false,
            active: None,
        })
    }

    /// Where the device gets its TAP.
    pub fn tap_slot(&self) -> TapSlot {
        self.slot.clone()
    }

    fn take_tap(&mut self) {
        let Some(tap) = self.slot.take() else { return };
        self.remove_tap();
        let wanted = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, TAP);
        // Fails for a file that has no readiness: it is no TAP, and the link stays down.
        if self.poll.ctl(ControlOperation::Add, tap.as_raw_fd(), wanted).is_ok() {
            self.tap = Some(tap);
            self.readable = true;
        }
        self.report_link();
    }

    /// Closes the TAP. The set would keep it, because whoever sent it may have it open.
    fn remove_tap(&mut self) {
        if let Some(tap) = self.tap.take() {
            // Cannot fail: it is in the set.
            let _ = self.poll.ctl(ControlOperation::Delete, tap.as_raw_fd(), EpollEvent::default());
            self.readable = false;
        }
    }

    fn report_link(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        if let Some(active) = &self.active {
            active.interrupt.notify_config_change();
        }
    }

    /// The TAP's interface no longer exists.
    fn lose_link(&mut self) {
        self.remove_tap();
        self.report_link();
    }

    /// Sends frames of the guest until there are none or the turn is over.
    fn process_tx(&mut self) -> Result<(), RingError> {
        let Some(Activation {
            memory,
            rings,
            interrupt,
            features,
        }) = &mut self.active
        else {
            return Ok(());
        };
        let Some(ring) = rings.get_mut(TX) else { return Ok(()) };
        let (mut bytes, mut is_lost) = (0, false);
        ring.reset_budget();
        loop {
            ring.disable_notification(memory)?;
            while let Some(chain) = ring.pop(memory)? {
                bytes += chain.readable.len().min(FRAME_MAX_BYTES);
                let sent = self.tap.as_ref().map_or(Ok(()), |tap| send(tap, chain.readable, *features));
                is_lost |= sent.is_err_and(|e| e.raw_os_error() == Some(libc::EBADFD));
                ring.push_used(memory, chain.head, 0)?;
                if bytes >= BYTES_PER_TURN {
                    ring.exhaust_budget();
                }
            }
            ring.notify(memory, interrupt)?;
            if !ring.enable_notification(memory)? {
                break;
            }
        }
        if is_lost {
            self.lose_link();
        }
        Ok(())
    }

    /// Gives frames to the guest until there are none, the guest has too little room, or the turn is over.
    fn process_rx(&mut self) -> Result<(), RingError> {
        let (Some(tap), Some(active)) = (&self.tap, &mut self.active) else {
            return Ok(());
        };
        let Activation {
            memory,
            rings,
            interrupt,
            features,
        } = active;
        let Some(ring) = rings.get_mut(RX) else { return Ok(()) };
        let merges = *features & 1 << VIRTIO_NET_F_MRG_RXBUF != 0;
        let wanted = merges.then_some(HEADER_BYTES + FRAME_MAX_BYTES);
        let (mut room, mut frames, mut is_lost) = (Room::default(), 0, false);
        ring.reset_budget();
        ring.disable_notification(memory)?;
        while self.readable && frames < FRAMES_PER_TURN {
            if !room.fill(ring, memory, wanted)? {
                // While the chains are taken, the driver is asked to notify of the one after them.
                if ring.enable_notification(memory)? {
                    continue;
                }
                break;
            }
            match frame_io::read(tap, room.slices()) {
                Ok(Some(frame)) => {
                    frames += 1;
                    if let Some(header) = header::for_guest(frame.header, *features).filter(|_| !frame.truncated) {
                        room.deliver(ring, memory, &frame, header)?;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => frames += 1,
                Ok(None) | Err(_) => {
                    is_lost = true;
                    break;
                }
            }
        }
        room.give_back(ring);
        ring.notify(memory, interrupt)?;
        if frames == FRAMES_PER_TURN {
            ring.kick();
        }
        if is_lost {
            self.lose_link();
        }
        Ok(())
    }
}

/// Sends one frame of the guest; one that is too short, too long, or has a header that must not pass is dropped.
fn send(tap: &File, mut frame: Buffers<'_>, features: u64) -> io::Result<()> {
    let lengths = HEADER_BYTES + FRAME_MIN_BYTES..=HEADER_BYTES + FRAME_MAX_BYTES;
    let mut header: Header = [0; HEADER_BYTES];
    if !lengths.contains(&frame.len()) || frame.read_exact(&mut header).is_err() || frame.slices().count() > SLICES_MAX {
        return Ok(());
    }
    match header::from_guest(header, features) {
        Some(header) => frame_io::write(tap, header, frame.slices()),
        None => Ok(()),
    }
}

impl VirtioDevice for Net {
    fn device_type(&self) -> u32 {
        VIRTIO_ID_NET
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        FEATURES.into_iter().fold(0, |features, bit| features | 1 << bit)
    }

    fn config_generation(&self) -> u32 {
        self.generation
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let status = if self.tap.is_some() { VIRTIO_NET_S_LINK_UP as u16 } else { 0 };
        let mut space = [0; 8];
        space[..6].copy_from_slice(&self.mac);
        space[6..].copy_from_slice(&status.to_le_bytes());
        read_config_space(&space, offset, data);
    }

    fn activate(&mut self, activation: Activation) {
        self.active = Some(activation);
    }

    fn reset(&mut self) {
        self.active = None;
    }

    fn process_queue(&mut self, index: usize) -> Result<(), RingError> {
        match index {
            TX => self.process_tx(),
            _ => self.process_rx(),
        }
    }

    fn host_events(&self) -> Option<RawFd> {
        Some(self.poll.as_raw_fd())
    }

    fn process_host_events(&mut self) -> Result<(), RingError> {
        let mut events = [EpollEvent::default(); 2];
        // Fails only if a signal interrupts it, and then the events are reported again.
        let count = self.poll.wait(0, &mut events).unwrap_or_default();
        let events = &events[..count];
        // The TAP first: its events are not those of the one that takes its place.
        for event in events.iter().filter(|event| event.data() == TAP) {
            self.readable = true;
            if event.event_set().intersects(EventSet::ERROR | EventSet::HANG_UP) {
                self.lose_link();
            }
        }
        if events.iter().any(|event| event.data() == GIVEN) {
            self.take_tap();
        }
        self.process_rx()
    }
}

#[cfg(test)]
mod tests;
