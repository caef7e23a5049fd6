//! Receives a terminal's master from the container in which it was opened.

use std::{
    io::{self, IoSliceMut},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::descriptors;

/// Takes the master from the message that carries it.
///
/// # Errors
/// The other end closed the socket, or sent something else.
pub fn receive(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut name = [0; 64];
    let mut iov = [IoSliceMut::new(&mut name)];
    let mut space = nix::cmsg_space!([libc::c_int; 1]);
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let master = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmRights(numbers) => descriptors::received(&numbers),
        _ => None,
    });
    master.ok_or_else(|| io::ErrorKind::InvalidData.into())
}
