//! Frames of the guest and of the host, and rings that change in use by the network device.
#![no_main]

use casemate_vmm::devices::virtio::net::Net;
use casemate_vmm_fuzz::{Machine, Part, parts, steps};
use libfuzzer_sys::fuzz_target;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use std::{
    os::fd::{AsRawFd, OwnedFd},
    sync::{Arc, Mutex},
};

const RX: usize = 0;
const TX: usize = 1;
const HEADER_BYTES: usize = 12;
/// Longest frame of the guest: its buffers reach over this much memory.
const FRAME_MAX_BYTES: usize = 0x1000;

/// Both ends of a wire: the host's, and what stands for the TAP.
fn wire() -> (OwnedFd, OwnedFd) {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).expect("a pair of sockets")
}

fuzz_target!(init: casemate_vmm_fuzz::ignore_broken_pipes(), |bytes: &[u8]| {
    let device = Net::new([2, 0, 0, 0, 0, 1]).expect("a device");
    let slot = device.tap_slot();
    let mut machine = Machine::new(Arc::new(Mutex::new(device)));
    machine.set_up(0);
    let (mut host, tap) = wire();
    slot.give(tap.into());
    steps(bytes, |input| {
        match input.int_in_range(0..=9u8)? {
            0 => machine.anything(input)?,
            1 => {
                for _ in 0..input.int_in_range(0..=16u8)? {
                    machine.submit(RX, &[Part::In(input.int_in_range(0..=0x2000)?)]);
                }
            }
            2 => machine.submit(RX, &parts(input, 4)?),
            3 => machine.submit(TX, &parts(input, 4)?),
            4 | 5 => {
                // A frame of the guest, its header mostly a valid one.
                let mut frame = input.bytes(HEADER_BYTES.min(input.len()))?.to_vec();
                if input.ratio(3, 4)? && frame.len() == HEADER_BYTES {
                    frame[..2].copy_from_slice(if input.arbitrary()? { &[1, 1] } else { &[0, 0] });
                }
                frame.resize(frame.len() + input.int_in_range(0..=FRAME_MAX_BYTES)?, 7);
                let body = frame.split_off(frame.len().min(HEADER_BYTES));
                machine.submit(TX, &[Part::Out(frame), Part::Out(body)]);
            }
            6 | 7 => {
                let mut packet = input.bytes(HEADER_BYTES.min(input.len()))?.to_vec();
                packet.resize(packet.len() + input.int_in_range(0..=70_000usize)?, 8);
                let _ = send(host.as_raw_fd(), &packet, MsgFlags::MSG_DONTWAIT);
            }
            8 => {
                let mut packet = vec![0; 1 << 17];
                while let Ok(length) = recv(host.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT)
                    && length > 0
                {
                    // Only kinds of segments that the device offers, no count of buffers.
                    assert!(length >= HEADER_BYTES && packet[0] <= 1 && [0, 1, 4].contains(&packet[1]) && packet[10..12] == [0, 0]);
                }
            }
            _ => {
                let (other, tap) = wire();
                slot.give(tap.into());
                host = other;
            }
        }
        machine.serve_events();
        Ok(())
    });
});
