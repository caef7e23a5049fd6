//! A terminal's master on its way from the container in which it was opened to the agent.

use std::{
    io::{self, IoSliceMut},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use oci_spec::runtime::Spec;

use crate::descriptors;

/// Why there is no terminal.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// The socket on which it comes.
    #[error("taking the terminal: {0}")]
    Io(#[from] io::Error),
    /// A message without one came.
    #[error("no terminal came")]
    Missing,
}

/// Whether the process of `spec` is to have one.
pub fn is_wanted(spec: &Spec) -> bool {
    spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false)
}

/// Takes the master out of the message that carries it.
///
/// # Errors
/// The other end closed, or sent something else.
pub fn receive(socket: &UnixStream) -> Result<OwnedFd, TerminalError> {
    let mut name = [0; 64];
    let mut iov = [IoSliceMut::new(&mut name)];
    let mut space = nix::cmsg_space!([libc::c_int; 1]);
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).map_err(io::Error::from)?;
    let mut rights = message.cmsgs().map_err(io::Error::from)?;
    let master = rights.find_map(|one| match one {
        ControlMessageOwned::ScmRights(numbers) => descriptors::received(&numbers),
        _ => None,
    });
    master.ok_or(TerminalError::Missing)
}
