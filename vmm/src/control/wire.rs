//! Packets of the control socket: accepting, receiving with descriptors, parsing, sending.

use crate::descriptors;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockType, getsockopt, recvmsg, send, sockopt};
use std::{
    io::{self, IoSliceMut},
    os::fd::{AsRawFd, OwnedFd, RawFd},
};
use vm_spec::control::{EXTENTS_PER_MESSAGE, MESSAGE_MAX_BYTES, Reply, Request};

/// Most descriptors that Linux lets a packet carry (`SCM_MAX_FD`). There is room for all of them: those that find none
/// would be lost to us and stay open.
const DESCRIPTORS_MAX: usize = 253;

/// One packet as it came.
pub struct Received {
    bytes: Vec<u8>,
    /// The descriptors beside it.
    pub files: Vec<OwnedFd>,
    /// The kernel dropped a part of it.
    truncated: bool,
}

/// Whether `listen(2)` was called on a sequenced-packet socket.
pub fn is_seqpacket_listener(socket: &OwnedFd) -> bool {
    getsockopt(socket, sockopt::SockType) == Ok(SockType::SeqPacket) && getsockopt(socket, sockopt::AcceptConn) == Ok(true)
}

/// Takes one packet; `None` when the client has gone.
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

/// The request in a packet, or why there is none.
pub fn parse(packet: &Received) -> Result<Request, String> {
    if packet.truncated || packet.files.len() > EXTENTS_PER_MESSAGE {
        return Err(format!(
            "a message has at most {MESSAGE_MAX_BYTES} bytes and {EXTENTS_PER_MESSAGE} file descriptors"
        ));
    }
    serde_json::from_slice(&packet.bytes).map_err(|e| format!("not a request: {e}"))
}

/// Sends a reply without waiting: a client that does not read its replies is not waited for.
pub fn send_reply(client: &OwnedFd, reply: &Reply) -> io::Result<()> {
    let bytes = serde_json::to_vec(reply)?;
    send(client.as_raw_fd(), &bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?;
    Ok(())
}
