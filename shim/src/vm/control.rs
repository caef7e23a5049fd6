//! The shim's end of the VMM's control socket: one message per packet, files beside it.

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, sendmsg, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use std::{
    fs::File,
    io::{self, IoSlice},
    os::fd::{AsRawFd, RawFd},
    path::{Path, PathBuf},
};
use vm_spec::control::{EXTENTS_PER_MESSAGE, Extent, MESSAGE_MAX_BYTES, Reply, Request};

/// Seconds within which the VMM must answer.
const ANSWER_SECONDS: i64 = 10;

/// Why the VMM did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket is gone or silent: the VMM has ended or hangs.
    #[error("cannot reach the VMM's control socket")]
    Socket(#[source] io::Error),
    /// An answer that is not a reply.
    #[error("the VMM's answer is not valid")]
    Json(#[source] serde_json::Error),
    /// The VMM says why not.
    #[error("the VMM refused: {0}")]
    Refused(String),
    /// A reply to some other request.
    #[error("the VMM's answer does not belong to the request")]
    Unexpected,
}

/// Where one VMM takes requests.
#[derive(Clone)]
pub struct Control(PathBuf);

impl Control {
    /// The control socket at `path`.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Appends extent `i`, which lies in file `i`; gives their first sectors.
    pub async fn append(&self, files: Vec<File>, extents: Vec<Extent>) -> Result<Vec<u64>, ControlError> {
        let path = self.0.clone();
        let work = move || {
            let mut sectors = Vec::with_capacity(extents.len());
            for (files, extents) in files.chunks(EXTENTS_PER_MESSAGE).zip(extents.chunks(EXTENTS_PER_MESSAGE)) {
                match request(&path, &Request::AppendExtents(extents.to_vec()), files)? {
                    Reply::Appended { first_sectors, .. } if first_sectors.len() == extents.len() => sectors.extend(first_sectors),
                    _ => return Err(ControlError::Unexpected),
                }
            }
            Ok(sectors)
        };
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(ControlError::Unexpected))
    }
}

/// One request on a connection of its own.
fn request(path: &Path, request: &Request, files: &[File]) -> Result<Reply, ControlError> {
    let bytes = serde_json::to_vec(request).map_err(ControlError::Json)?;
    let answer = exchange(path, &bytes, files).map_err(|e| ControlError::Socket(e.into()))?;
    match serde_json::from_slice(&answer).map_err(ControlError::Json)? {
        Reply::Error(reason) => Err(ControlError::Refused(reason)),
        reply => Ok(reply),
    }
}

fn exchange(path: &Path, message: &[u8], files: &[File]) -> nix::Result<Vec<u8>> {
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(ANSWER_SECONDS, 0))?;
    setsockopt(&socket, sockopt::SendTimeout, &TimeVal::new(ANSWER_SECONDS, 0))?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    let fds: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let ancillary = if fds.is_empty() { &[][..] } else { &rights[..] };
    sendmsg::<UnixAddr>(
        socket.as_raw_fd(),
        &[IoSlice::new(message)],
        ancillary,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    let mut answer = vec![0; MESSAGE_MAX_BYTES];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    if length == 0 {
        return Err(nix::errno::Errno::ECONNRESET);
    }
    answer.truncate(length);
    Ok(answer)
}
