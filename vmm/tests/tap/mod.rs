//! A TAP in a network namespace of this process, and the kernel's end of it.
#![expect(unsafe_code, reason = "ioctls of TAPs and packet sockets")]
#![allow(dead_code, reason = "each program uses its part")]

use super::launcher::Outcome;
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};
use std::{
    fs::File,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
};

/// `_IOW('T', 202, int)`.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
/// `_IOW('T', 216, int)`.
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;
/// `_IOW('T', 208, unsigned int)`.
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
/// `TUN_F_CSUM`, `TUN_F_TSO4`, `TUN_F_TSO6`.
const OFFLOADS: libc::c_int = 7;
/// Length of the header before each frame.
const HEADER_BYTES: libc::c_int = 12;
const NAME: &[u8] = b"casemate0";

/// `struct ifreq` with one integer.
#[repr(C)]
struct Interface {
    name: [u8; 16],
    value: i32,
    rest: [u8; 20],
}

/// A TAP, and a packet socket on its interface.
pub struct Tap {
    /// For the VMM.
    pub file: File,
    wire: OwnedFd,
}

impl Tap {
    /// Makes a TAP with an interface that is up, in a new network namespace, where this process stays.
    pub fn new() -> Outcome<Self> {
        // SAFETY: the call has no pointers.
        Errno::result(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
        let mut options = File::options();
        let file = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        request(&file, TUNSETIFF, flags)?;
        // SAFETY: the kernel reads an integer.
        Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETVNETHDRSZ, &HEADER_BYTES) })?;
        // SAFETY: the argument is an integer.
        Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETOFFLOAD, OFFLOADS) })?;
        let wire = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)?;
        request(&wire, libc::SIOCSIFFLAGS, libc::IFF_UP)?;
        let index = request(&wire, libc::SIOCGIFINDEX, 0)?;
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
            sll_ifindex: index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the kernel reads an address of this length.
        let bound = unsafe { libc::bind(wire.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32) };
        Errno::result(bound)?;
        Ok(Self { file, wire })
    }

    /// Sends a frame through the interface.
    pub fn send(&self, frame: &[u8]) -> Outcome<()> {
        send(self.wire.as_raw_fd(), frame, MsgFlags::empty())?;
        Ok(())
    }

    /// Whether a frame came or went.
    pub fn has_seen(&self, frame: &[u8]) -> bool {
        let mut bytes = [0; 2048];
        while let Ok(length) = recv(self.wire.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
            if bytes[..length] == *frame {
                return true;
            }
        }
        false
    }
}

fn request(file: &impl AsRawFd, number: libc::c_ulong, value: i32) -> Outcome<i32> {
    let mut interface = Interface {
        name: [0; 16],
        value,
        rest: [0; 20],
    };
    interface.name[..NAME.len()].copy_from_slice(NAME);
    // SAFETY: the kernel reads and writes a `struct ifreq`, which has 40 bytes.
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), number as _, &mut interface) })?;
    Ok(interface.value)
}
