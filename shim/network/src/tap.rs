//! The TAP of a VM: a network device of the pod's namespace whose other end is a descriptor of the VMM.

use crate::NetworkError;
use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
};

/// Its name in the namespace.
pub const NAME: &str = "casemate0";
/// Bytes of `struct virtio_net_hdr_mrg_rxbuf` before each frame.
static HEADER_BYTES: libc::c_int = 12;

// linux/if_tun.h
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::Ioctl = 0x4004_54d8;
const TUN_F_CSUM: libc::c_ulong = 1;
const TUN_F_TSO4: libc::c_ulong = 2;
const TUN_F_TSO6: libc::c_ulong = 4;

/// An open TAP; the device goes with its last descriptor.
#[derive(Debug)]
pub struct Tap(File);

impl Tap {
    /// Makes the device in the calling thread's namespace: nonblocking, with headers of virtio 1 and the offloads of a
    /// guest that has them all.
    pub fn make() -> Result<Self, NetworkError> {
        let failed = |e| NetworkError::Step("make the VM's TAP", e);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .map_err(failed)?;
        // SAFETY: an all-zero ifreq is a valid one: it has integers and arrays of them.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(NAME.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
        // SAFETY: the kernel reads and writes one ifreq, which lives through the call.
        checked(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) }).map_err(failed)?;
        // SAFETY: the kernel reads one int, which lives through the call.
        checked(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETVNETHDRSZ, &raw const HEADER_BYTES) }).map_err(failed)?;
        let offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
        // SAFETY: the argument is a number.
        checked(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETOFFLOAD, offloads) }).map_err(failed)?;
        Ok(Self(file))
    }

    /// Its descriptor, for the VMM.
    pub fn into_file(self) -> File {
        self.0
    }
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
