//! The client's end of a control socket: one request and one reply at a time, each within a time limit.

use super::{MESSAGE_MAX_BYTES, Reply, Request};
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, sendmsg, setsockopt, socket, sockopt,
        },
        time::TimeVal,
    },
};
use std::{
    io::{self, IoSlice},
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::Path,
};

/// Seconds within which the VMM must take a request, and then answer it. Pausing may take it five.
const ANSWER_SECONDS: i64 = 10;

/// Why the VMM did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket is gone or silent: the VMM has ended or hangs.
    #[error("cannot reach the VMM's control socket")]
    Socket(#[source] io::Error),
    /// An answer that is not a reply, or a request that cannot be written.
    #[error("the VMM's answer is not valid")]
    Json(#[source] serde_json::Error),
    /// The VMM says why not.
    #[error("the VMM refused: {0}")]
    Refused(String),
}

impl From<Errno> for ClientError {
    fn from(errno: Errno) -> Self {
        Self::Socket(errno.into())
    }
}

/// A connection to one VMM.
#[derive(Debug)]
pub struct Client(OwnedFd);

impl Client {
    /// Connects to the socket at `path`, at most 107 bytes long.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        Self::connect_to(&UnixAddr::new(path)?)
    }

    /// Connects to a socket at any address.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect_to(address: &UnixAddr) -> Result<Self, ClientError> {
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        let limit = TimeVal::new(ANSWER_SECONDS, 0);
        setsockopt(&socket, sockopt::ReceiveTimeout, &limit)?;
        setsockopt(&socket, sockopt::SendTimeout, &limit)?;
        connect(socket.as_raw_fd(), address)?;
        Ok(Self(socket))
    }

    /// Asks one thing; `files` go beside the request. A reply of [`Reply::Error`] becomes [`ClientError::Refused`].
    ///
    /// # Errors
    /// When the VMM refuses, does not answer in time, or has gone.
    pub fn ask(&self, request: &Request, files: &[impl AsRawFd]) -> Result<Reply, ClientError> {
        let message = serde_json::to_vec(request).map_err(ClientError::Json)?;
        let numbers: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let beside = if numbers.is_empty() { &rights[..0] } else { &rights[..] };
        sendmsg::<UnixAddr>(self.0.as_raw_fd(), &[IoSlice::new(&message)], beside, MsgFlags::MSG_NOSIGNAL, None)?;
        let mut answer = vec![0; MESSAGE_MAX_BYTES];
        let length = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        if length == 0 {
            return Err(Errno::ECONNRESET.into());
        }
        match serde_json::from_slice(&answer[..length]).map_err(ClientError::Json)? {
            Reply::Error(reason) => Err(ClientError::Refused(reason)),
            reply => Ok(reply),
        }
    }

    /// As [`Client::ask`], without files.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub fn request(&self, request: &Request) -> Result<Reply, ClientError> {
        self.ask(request, &[] as &[OwnedFd])
    }
}
