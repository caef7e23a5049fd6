//! Packets of the control socket: receive with descriptors, parse, send.

use crate::descriptors;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockType, getsockopt, recvmsg, send, sockopt};
use std::{
    io::{self, IoSliceMut},
    os::fd::{AsRawFd, OwnedFd, RawFd},
};
use vm_spec::control::{EXTENTS_PER_MESSAGE, MESSAGE_MAX_BYTES, Reply, Request};

/// Most descriptors per packet in Linux (`SCM_MAX_FD`). The buffer has room for all, because descriptors beyond it would stay
/// open without an owner.
const DESCRIPTORS_MAX: usize = 253;

/// One received packet.
pub struct Received {
    bytes: Vec<u8>,
    /// Its descriptors.
    pub files: Vec<OwnedFd>,
    /// The kernel has dropped a part of it.
    truncated: bool,
}

/// Whether `listen(2)` was called on a sequenced-packet socket.
pub fn is_seqpacket_listener(socket: &OwnedFd) -> bool {
    getsockopt(socket, sockopt::SockType) == Ok(SockType::SeqPacket) && getsockopt(socket, sockopt::AcceptConn) == Ok(true)
}

/// Receives one packet; `None` when the client has closed its end.
pub fn receive(client: &OwnedFd) -> io::Result<Option<Received>> {
    let mut bytes = vec![0; MESSAGE_MAX_BYTES];
    let mut space = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let message = recvmsg::<()>(client.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut files = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = part {
            files.extend(descriptors::received(numbers));
        }
    }
    let truncated = message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
    let length = message.bytes;
    bytes.truncate(length);
    Ok((length > 0).then_some(Received { bytes, files, truncated }))
}

/// Parses the request in a packet.
pub fn parse(packet: &Received) -> Result<Request, String> {
    if packet.truncated || packet.files.len() > EXTENTS_PER_MESSAGE {
        return Err(format!(
            "a message has at most {MESSAGE_MAX_BYTES} bytes and {EXTENTS_PER_MESSAGE} file descriptors"
        ));
    }
    serde_json::from_slice(&packet.bytes).map_err(|e| format!("not a request: {e}"))
}

/// Sends a reply without blocking: a client that does not read its replies must not block the VMM.
pub fn send_reply(client: &OwnedFd, reply: &Reply) -> io::Result<()> {
    let bytes = serde_json::to_vec(reply)?;
    send(client.as_raw_fd(), &bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?;
    Ok(())
}
