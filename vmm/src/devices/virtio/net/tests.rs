//! Tests of the network device over real rings; one end of a pair of packet sockets stands for the TAP.

use super::*;
use crate::devices::virtio::mock::{Driver, VERSION_1, readable, writable};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send as send_packet, socketpair};
use std::{
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
};
use vm_memory::{Bytes, GuestAddress};

mod hostile;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const MERGES: u64 = 1 << 15;
/// Wants a checksum, and segments of 1448 bytes of TCP over IPv4.
const SEGMENTED: Header = [1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0];

/// The host's end of the wire.
struct Host(OwnedFd);

impl Host {
    fn send(&self, header: Header, frame: &[u8]) {
        let packet = [&header[..], frame].concat();
        assert_eq!(send_packet(self.0.as_raw_fd(), &packet, MsgFlags::MSG_DONTWAIT), Ok(packet.len()));
    }

    /// The next packet, header and frame.
    fn receive(&self) -> Option<(Header, Vec<u8>)> {
        let mut bytes = vec![0; 1 << 17];
        let length = recv(self.0.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT).ok()?;
        let (header, frame) = bytes[..length].split_first_chunk().unwrap();
        Some((*header, frame.to_vec()))
    }
}

/// Plugs a new wire in; the VMM's end is nonblocking.
fn plug(slot: &TapSlot) -> Host {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (ours, tap) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
    slot.give(tap.into());
    Host(ours)
}

/// A started device without a TAP.
fn unplugged() -> (Driver, TapSlot) {
    let net = Net::new(MAC).unwrap();
    let slot = net.tap_slot();
    (Driver::started(Arc::new(Mutex::new(net))), slot)
}

fn plugged() -> (Driver, Host) {
    let (mut driver, slot) = unplugged();
    let host = plug(&slot);
    driver.serve_events();
    driver.interrupted();
    (driver, host)
}

/// Offers `count` buffers of `length` bytes to the device; their addresses by head.
fn offer(driver: &mut Driver, count: usize, length: usize) -> Vec<(u16, u64)> {
    let buffers = (0..count)
        .map(|_| {
            let address = driver.allocate(length);
            (driver.offer(RX, &[writable(address, length)]), address)
        })
        .collect();
    driver.kick(RX);
    buffers
}

/// As [`offer`], enough for the largest frame.
fn offer_enough(driver: &mut Driver) -> Vec<(u16, u64)> {
    offer(driver, 17, 4096)
}

fn frame(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 7 + i / 256) as u8).collect()
}

fn link(driver: &mut Driver) -> u32 {
    driver.read(0x104) >> 16
}

#[test]
fn the_link_is_up_while_there_is_a_tap() {
    let (mut driver, slot) = unplugged();
    let mac = [driver.read(0x100).to_le_bytes(), driver.read(0x104).to_le_bytes()].concat();
    assert_eq!((&mac[..6], link(&mut driver)), (&MAC[..], 0));
    assert_eq!(driver.interrupted(), 0);
    let generation = driver.read(0xfc);
    let first = plug(&slot);
    driver.serve_events();
    assert_eq!((driver.interrupted(), link(&mut driver)), (2, 1));
    assert_ne!(driver.read(0xfc), generation);
    let second = plug(&slot);
    driver.serve_events();
    assert_eq!((driver.interrupted(), link(&mut driver)), (2, 1));
    assert_eq!(
        recv(first.0.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT),
        Ok(0),
        "the first is closed"
    );
    offer_enough(&mut driver);
    second.send([0; HEADER_BYTES], &frame(60));
    driver.serve_events();
    assert_eq!(driver.completed(RX).len(), 1);
    driver.interrupted();
    drop(second);
    driver.serve_events();
    assert_eq!((driver.interrupted(), link(&mut driver)), (2, 0));
}

#[test]
fn a_frame_of_the_guest_reaches_the_host_as_it_is() {
    let (mut driver, host) = plugged();
    for length in [14, 60, 1514, FRAME_MAX_BYTES] {
        driver.free_all();
        let sent = frame(length);
        let header = if length > 1514 { SEGMENTED } else { [0; HEADER_BYTES] };
        let (at, middle) = (driver.place(&[&header[..], &sent].concat()), 12 + length / 3);
        let parts = [
            readable(at, 5),
            readable(at + 5, middle - 5),
            readable(at + middle as u64, 12 + length - middle),
        ];
        assert_eq!(driver.exchange(TX, &parts), 0);
        assert!(host.receive() == Some((header, sent)), "{length}");
    }
}

#[test]
fn what_must_not_pass_is_dropped_and_returned() {
    let (mut driver, host) = plugged();
    let mut send = |header: Header, length: usize| {
        driver.free_all();
        let at = driver.place(&[&header[..], &frame(length)].concat());
        assert_eq!(driver.exchange(TX, &[readable(at, 12 + length)]), 0);
    };
    let mut udp = SEGMENTED;
    udp[1] = 3;
    send(udp, 1000);
    send([0; HEADER_BYTES], 13);
    send([0; HEADER_BYTES], FRAME_MAX_BYTES + 1);
    assert_eq!(host.receive(), None);
    // Bits that no feature names are cleared.
    send([0xfe, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], 60);
    assert_eq!(host.receive(), Some(([0; HEADER_BYTES], frame(60))));
    let at = driver.place(&[0; 4]);
    for part in [readable(at, 4), writable(at, 4)] {
        assert_eq!(driver.exchange(TX, &[part]), 0);
    }
    assert_eq!((host.receive(), driver.status()), (None, 15));
}

#[test]
fn frames_without_a_tap_are_returned() {
    let (mut driver, _slot) = unplugged();
    let at = driver.place(&[0; 72]);
    assert_eq!(driver.exchange(TX, &[readable(at, 72)]), 0);
}

/// The bytes of returned chains, in order.
fn received(driver: &mut Driver, buffers: &[(u16, u64)]) -> (usize, Vec<u8>) {
    let done = driver.completed(RX);
    let mut bytes = Vec::new();
    for (head, length) in &done {
        let (_, address) = buffers.iter().find(|(h, _)| h == head).unwrap();
        bytes.extend(driver.fetch(*address, *length as usize));
    }
    (done.len(), bytes)
}

#[test]
fn a_frame_of_the_host_fills_as_many_buffers_as_it_needs() {
    for length in [20, 1488, 1489, 40_000, FRAME_MAX_BYTES] {
        let (mut driver, host) = plugged();
        let buffers = offer(&mut driver, 60, 1500);
        host.send(SEGMENTED, &frame(length));
        driver.serve_events();
        let (count, bytes) = received(&mut driver, &buffers);
        let mut header = SEGMENTED;
        header[10] = (12 + length).div_ceil(1500) as u8;
        assert_eq!(count, usize::from(header[10]), "{length}");
        assert!(bytes == [&header[..], &frame(length)].concat(), "{length}");
        assert_eq!(driver.interrupted(), 1, "{length}");
    }
}

#[test]
fn frames_wait_until_the_guest_has_room_for_the_largest() {
    let (mut driver, host) = plugged();
    let mut buffers = offer(&mut driver, 16, 4096);
    host.send(SEGMENTED, &frame(60_000));
    host.send([0; HEADER_BYTES], &frame(60));
    driver.serve_events();
    assert_eq!(driver.completed(RX), []);
    // The device asks for a notification of the next buffer: its event index is the driver's.
    let queue = &driver.queues[RX];
    let event: u16 = driver
        .memory
        .read_obj(GuestAddress(queue.used + 4 + 8 * u64::from(queue.size)))
        .unwrap();
    assert_eq!(event, 16);
    buffers.extend(offer(&mut driver, 1, 4096));
    let (count, bytes) = received(&mut driver, &buffers);
    assert_eq!((count, bytes.len()), (15, 60_012));
    buffers = offer(&mut driver, 20, 4096).into_iter().chain(buffers).collect();
    assert_eq!(received(&mut driver, &buffers).1.len(), 72);
}

#[test]
fn a_turn_is_limited_and_the_next_follows() {
    let (mut driver, host) = plugged();
    let sent = 2 * FRAMES_PER_TURN + 5;
    let buffers = offer(&mut driver, 250, 2048);
    for i in 0..sent {
        host.send([0; HEADER_BYTES], &frame(60 + i));
    }
    driver.serve_ready_events();
    assert_eq!(driver.completed(RX).len(), FRAMES_PER_TURN);
    driver.serve_events();
    let (count, bytes) = received(&mut driver, &buffers);
    assert_eq!(count, FRAMES_PER_TURN + 5);
    assert!(bytes.ends_with(&frame(60 + sent - 1)));
}

#[test]
fn without_merged_buffers_each_frame_has_one() {
    let net = Net::new(MAC).unwrap();
    let host = plug(&net.tap_slot());
    let mut driver = Driver::new(Arc::new(Mutex::new(net)));
    let offered = driver.offered();
    driver.start(offered & !MERGES);
    let buffers = offer(&mut driver, 3, 2048);
    host.send([0; HEADER_BYTES], &frame(2036));
    host.send([0; HEADER_BYTES], &frame(2037));
    host.send([0; HEADER_BYTES], &frame(60));
    driver.serve_events();
    let header = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
    let wanted = [&header[..], &frame(2036), &header, &frame(60)].concat();
    let (count, bytes) = received(&mut driver, &buffers);
    assert!(count == 2 && bytes == wanted, "the one that does not fit is dropped");
}

#[test]
fn what_the_driver_has_not_negotiated_does_not_reach_it() {
    let net = Net::new(MAC).unwrap();
    let host = plug(&net.tap_slot());
    let mut driver = Driver::new(Arc::new(Mutex::new(net)));
    driver.start(VERSION_1 | MERGES);
    let buffers = offer_enough(&mut driver);
    host.send(SEGMENTED, &frame(3000));
    host.send([1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0], &frame(100));
    host.send([0; HEADER_BYTES], &frame(60));
    driver.serve_events();
    assert_eq!(received(&mut driver, &buffers).1.len(), 72);
}

#[test]
fn a_reset_device_touches_no_memory_and_starts_again() {
    let (mut driver, host) = plugged();
    offer_enough(&mut driver);
    driver.write(0x70, 0);
    host.send([0; HEADER_BYTES], &frame(60));
    driver.serve_events();
    assert_eq!(driver.completed(RX), []);
    let offered = driver.offered();
    driver.start(offered);
    assert_eq!(link(&mut driver), 1);
    offer_enough(&mut driver);
    assert_eq!(driver.completed(RX).len(), 1, "the frame has waited on the TAP");
}
