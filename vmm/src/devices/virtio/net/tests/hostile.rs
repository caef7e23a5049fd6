//! Guests that misuse the rings of the network device.

use super::*;
use crate::{
    devices::virtio::mock::{Descriptor, NEEDS_RESET, NEXT, WRITE},
    watchdog::USELESS_NOTIFICATIONS_MAX,
};

fn descriptor(address: u64, len: u32, flags: u16, next: u16) -> Descriptor {
    Descriptor { address, len, flags, next }
}

#[test]
fn chains_that_loop_or_leave_memory_are_returned_unused() {
    let (mut driver, host) = plugged();
    let at = driver.place(&[0; 4096]);
    for queue in [RX, TX] {
        let flags = if queue == RX { WRITE } else { 0 };
        driver.write_descriptors(
            queue,
            &[
                descriptor(at, 64, flags | NEXT, 1),
                descriptor(at, 64, flags | NEXT, 0),
                descriptor(u64::MAX - 8, 64, flags, 0),
                descriptor(at, u32::MAX, flags, 0),
                descriptor(at, 64, flags | NEXT, 999),
            ],
        );
        host.send([0; HEADER_BYTES], &frame(60));
        for head in [0, 2, 3, 4] {
            driver.offer_head(queue, head);
        }
        driver.kick(queue);
        let queue = &driver.queues[queue];
        assert_eq!(driver.memory.read_obj::<u16>(GuestAddress(queue.used + 2)).unwrap(), 4);
    }
    assert_eq!((host.receive(), driver.status()), (None, 15));
}

#[test]
fn a_queue_full_of_small_buffers_drops_what_does_not_fit() {
    let (mut driver, host) = plugged();
    let buffers = offer(&mut driver, 256, 16);
    host.send([0; HEADER_BYTES], &frame(5000));
    host.send([0; HEADER_BYTES], &frame(60));
    driver.serve_events();
    let (count, bytes) = received(&mut driver, &buffers);
    assert_eq!((count, bytes.len()), (5, 72));
    assert_eq!(driver.status(), 15);
}

#[test]
fn buffers_without_room_for_a_header_are_returned_empty() {
    let (mut driver, host) = plugged();
    let at = driver.place(&[0; 64]);
    for length in [0, 11] {
        driver.offer(RX, &[writable(at, length)]);
    }
    driver.offer(RX, &[readable(at, 64)]);
    driver.kick(RX);
    host.send([0; HEADER_BYTES], &frame(60));
    driver.serve_events();
    let lengths: Vec<_> = driver.completed(RX).into_iter().map(|(_, length)| length).collect();
    assert_eq!(lengths, [0, 0, 0]);
}

#[test]
fn a_frame_in_many_pieces_passes() {
    let (mut driver, host) = plugged();
    let at = driver.allocate(2 * 128 * 512);
    // Descending addresses, so that the order of the chain is not that of memory.
    for first in [128, 0] {
        let pieces: Vec<_> = (first..first + 128).rev().map(|i| writable(at + 512 * i, 512)).collect();
        driver.offer(RX, &pieces);
    }
    driver.kick(RX);
    host.send(SEGMENTED, &frame(65_536));
    driver.serve_events();
    let lengths: Vec<_> = driver.completed(RX).into_iter().map(|(_, length)| length).collect();
    assert_eq!(lengths, [65_536, 12]);
    let last: Vec<u8> = (0..128).rev().flat_map(|i| driver.fetch(at + 512 * i, 512)).take(12).collect();
    assert_eq!(last, frame(65_536)[65_524..]);
}

#[test]
fn an_index_that_runs_ahead_asks_for_a_reset() {
    let (mut driver, host) = plugged();
    host.send([0; HEADER_BYTES], &frame(60));
    let available = driver.queues[RX].available;
    driver.memory.write_obj(1000u16, GuestAddress(available + 2)).unwrap();
    driver.kick(RX);
    assert_eq!(driver.status(), 15 | NEEDS_RESET);
    let offered = driver.offered();
    driver.start(offered);
    offer_enough(&mut driver);
    assert_eq!(driver.completed(RX).len(), 1);
}

#[test]
fn notifications_without_frames_are_silenced() {
    let (mut driver, _host) = plugged();
    for _ in 0..2 * USELESS_NOTIFICATIONS_MAX {
        driver.write(0x50, TX as u32);
        driver.serve_ready_events();
    }
    assert!(driver.watchdog.stats().silenced > 0);
}

#[test]
fn a_guest_cannot_make_a_turn_longer_than_its_bytes() {
    let (mut driver, _host) = plugged();
    let (header, at) = (driver.place(&[0; 12]), driver.allocate(FRAME_MAX_BYTES));
    let frames = 2 * BYTES_PER_TURN / FRAME_MAX_BYTES;
    for _ in 0..frames {
        driver.offer(TX, &[readable(header, 12), readable(at, FRAME_MAX_BYTES)]);
    }
    driver.write(0x50, TX as u32);
    driver.serve_ready_events();
    let first = driver.completed(TX).len();
    assert!(first <= BYTES_PER_TURN / FRAME_MAX_BYTES + 1, "{first}");
    driver.serve_events();
    assert_eq!(first + driver.completed(TX).len(), frames);
}
