//! Frames on a stream socket: a length (u32, little endian) and a JSON document, with at most one descriptor attached.

#![expect(unsafe_code, reason = "received descriptors arrive as plain numbers")]

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    os::unix::net::UnixStream,
};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Serialize, de::DeserializeOwned};

/// Longest document in bytes; the limits on the host's requests are far below.
pub const FRAME_MAX_BYTES: u32 = 4 << 20;
const LENGTH_BYTES: usize = size_of::<u32>();

/// Why a frame could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The socket failed, or one of its timeouts expired.
    #[error("the launcher's socket failed")]
    Io(#[from] io::Error),
    /// The other end closed the socket.
    #[error("the launcher's socket was closed before a whole frame arrived")]
    Closed,
    /// The document is longer than [`FRAME_MAX_BYTES`].
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
    /// The bytes are not a document of the expected type.
    #[error("a frame is malformed")]
    Document(#[from] serde_json::Error),
}

/// Sends `document`, with a copy of `descriptor` attached.
///
/// # Errors
/// The document is too long, or the other end has closed.
pub fn send<T: Serialize>(socket: &UnixStream, document: &T, descriptor: Option<BorrowedFd<'_>>) -> Result<(), FrameError> {
    let json = serde_json::to_vec(document)?;
    let length = u32::try_from(json.len()).ok().filter(|&length| length <= FRAME_MAX_BYTES);
    let length = length.ok_or(FrameError::TooLong(json.len()))?.to_le_bytes();
    let numbers = descriptor.map(|descriptor| [descriptor.as_raw_fd()]);
    let rights = numbers.as_ref().map(|numbers| ControlMessage::ScmRights(numbers));
    // A few bytes either fit the socket's buffer or wait for room; a stream socket never sends a descriptor in parts.
    let sent = sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(&length)],
        rights.as_slice(),
        MsgFlags::MSG_NOSIGNAL,
        None,
    );
    let sent = sent.map_err(io::Error::from)?;
    let mut socket = socket;
    socket.write_all(&length[sent..])?;
    Ok(socket.write_all(&json)?)
}

/// Receives a document of at most [`FRAME_MAX_BYTES`], and the descriptor attached to it. Further descriptors are closed.
///
/// # Errors
/// The frame is truncated, too long, or not such a document.
pub fn receive<T: DeserializeOwned>(socket: &UnixStream) -> Result<(T, Option<OwnedFd>), FrameError> {
    let mut length = [0; LENGTH_BYTES];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let (count, descriptor) = {
        let mut iov = [IoSliceMut::new(&mut length)];
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).map_err(io::Error::from)?;
        let mut descriptors = Vec::new();
        for control in message.cmsgs().map_err(io::Error::from)? {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                // SAFETY: the kernel has just created these numbers for this process in recvmsg; each is owned once.
                descriptors.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
            }
        }
        (message.bytes, descriptors.into_iter().next())
    };
    if count == 0 {
        return Err(FrameError::Closed);
    }
    let mut socket = socket;
    read_exact(&mut socket, &mut length[count..])?;
    let length = u32::from_le_bytes(length);
    if length > FRAME_MAX_BYTES {
        return Err(FrameError::TooLong(length as usize));
    }
    let mut json = vec![0; length as usize];
    read_exact(&mut socket, &mut json)?;
    Ok((serde_json::from_slice(&json)?, descriptor))
}

fn read_exact(socket: &mut &UnixStream, bytes: &mut [u8]) -> Result<(), FrameError> {
    socket.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => FrameError::Closed,
        _ => FrameError::Io(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Answer, Cause};
    use std::os::fd::AsFd;

    fn received(bytes: &[u8]) -> Result<Answer, FrameError> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(bytes).unwrap();
        drop(theirs);
        receive(&ours).map(|(answer, _)| answer)
    }

    #[test]
    fn a_frame_arrives_as_it_was_sent() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        for answer in [Answer::Started(7), Answer::Failed(Cause::Mount)] {
            send(&ours, &answer, None).unwrap();
            assert!(matches!(receive::<Answer>(&theirs), Ok((received, None)) if received == answer));
        }
    }

    #[test]
    fn a_descriptor_comes_with_its_frame() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        send(&ours, &Answer::Started(7), Some(writer.as_fd())).unwrap();
        drop(writer);
        let (_, descriptor) = receive::<Answer>(&theirs).unwrap();
        std::fs::File::from(descriptor.unwrap()).write_all(b"x").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }

    #[test]
    fn hostile_bytes_are_named_errors() {
        assert!(matches!(received(b""), Err(FrameError::Closed)));
        assert!(matches!(received(b"\x01\0"), Err(FrameError::Closed)));
        assert!(matches!(received(b"\x05\0\0\0{}"), Err(FrameError::Closed)));
        assert!(matches!(received(&[0xff; 8]), Err(FrameError::TooLong(_))));
        assert!(matches!(received(b"\x02\0\0\0{]"), Err(FrameError::Document(_))));
        assert!(matches!(received(b"\x02\0\0\0{}"), Err(FrameError::Document(_))));
    }

    #[test]
    fn the_largest_request_fits_in_a_frame() {
        let long = crate::External {
            args: vec!["x".repeat(FRAME_MAX_BYTES as usize)],
            ..Default::default()
        };
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert!(matches!(send(&ours, &long, None), Err(FrameError::TooLong(_))));
    }
}
