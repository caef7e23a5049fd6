//! A client of the control socket: one request and one reply at a time, each with a timeout.

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

/// Timeout in seconds, for sending a request and again for its reply. A pause may take the VMM five.
const ANSWER_SECONDS: i64 = 10;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket is closed or does not respond: the VMM has exited or hangs.
    #[error("cannot reach the VMM's control socket")]
    Socket(#[source] io::Error),
    /// The VMM's packet is not a reply, or the request cannot be serialised.
    #[error("the VMM's answer is not valid")]
    Json(#[source] serde_json::Error),
    /// The VMM refused, with the reason.
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
    /// When no VMM listens there.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        Self::connect_to(&UnixAddr::new(path)?)
    }

    /// Connects to a socket at any address.
    ///
    /// # Errors
    /// When no VMM listens there.
    pub fn connect_to(address: &UnixAddr) -> Result<Self, ClientError> {
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        let limit = TimeVal::new(ANSWER_SECONDS, 0);
        setsockopt(&socket, sockopt::ReceiveTimeout, &limit)?;
        setsockopt(&socket, sockopt::SendTimeout, &limit)?;
        connect(socket.as_raw_fd(), address)?;
        Ok(Self(socket))
    }

    /// Sends a request with `files` and waits for the reply. [`Reply::Error`] becomes [`ClientError::Refused`].
    ///
    /// # Errors
    /// When the VMM refuses, does not reply in time, or has exited.
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
