//! The conversation with the agent: spec in, pid (and terminal) or error out.

use std::{
    io::{self, IoSlice, Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    os::unix::net::UnixStream,
};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use oci_spec::runtime::Spec;

/// Longest spec in bytes; the agent's own bound is lower.
const SPEC_MAX_BYTES: u32 = 4 << 20;

/// Why the conversation broke.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The agent went away.
    #[error("read or write failed ({0})")]
    Io(#[from] io::Error),
    /// More than [`SPEC_MAX_BYTES`].
    #[error("the spec has {0} bytes")]
    SpecTooLong(u32),
    /// Not an OCI runtime spec.
    #[error("the spec cannot be read ({0})")]
    Spec(#[from] serde_json::Error),
}

/// The launcher's end of the socket.
pub struct Control {
    socket: UnixStream,
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Control {
    /// A conversation over `socket`.
    pub fn new(socket: UnixStream) -> Self {
        Self { socket }
    }

    /// Reads the spec.
    pub fn spec(&mut self) -> Result<Spec, ControlError> {
        let mut length = [0; 4];
        self.socket.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length);
        if length > SPEC_MAX_BYTES {
            return Err(ControlError::SpecTooLong(length));
        }
        let mut json = vec![0; length as usize];
        self.socket.read_exact(&mut json)?;
        Ok(serde_json::from_slice(&json)?)
    }

    /// Reports the new process.
    pub fn started(&mut self, pid: u32, terminal: Option<&OwnedFd>) -> io::Result<()> {
        let mut message = [b'P', 0, 0, 0, 0];
        message[1..].copy_from_slice(&pid.to_le_bytes());
        let descriptors = terminal.map(AsRawFd::as_raw_fd).into_iter().collect::<Vec<_>>();
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let rights = if descriptors.is_empty() { &[][..] } else { &rights[..] };
        // Five bytes either fit the socket's empty buffer or not at all.
        sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(&message)], rights, MsgFlags::empty(), None)?;
        Ok(())
    }

    /// Reports why there is no new process.
    pub fn failed(&mut self, why: &str) -> io::Result<()> {
        self.socket.write_all(b"E")?;
        self.socket.write_all(why.as_bytes())?;
        self.socket.shutdown(std::net::Shutdown::Write)
    }

    /// Returns when the agent has closed its end.
    pub fn wait_for_close(&mut self) {
        let _ = self.socket.read(&mut [0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec_from(bytes: &[u8]) -> Result<Spec, ControlError> {
        let (ours, mut agents) = UnixStream::pair().unwrap();
        agents.write_all(bytes).unwrap();
        drop(agents);
        Control::new(ours).spec()
    }

    #[test]
    fn a_spec_has_its_length_in_front() {
        let json = br#"{"ociVersion":"1.0.2"}"#;
        let mut message = (json.len() as u32).to_le_bytes().to_vec();
        message.extend_from_slice(json);
        assert_eq!(spec_from(&message).unwrap().version(), "1.0.2");
    }

    #[test]
    fn bad_messages_have_names() {
        assert!(matches!(spec_from(b"\x05"), Err(ControlError::Io(_))));
        assert!(matches!(spec_from(&[0xff; 4]), Err(ControlError::SpecTooLong(u32::MAX))));
        assert!(matches!(spec_from(b"\x02\0\0\0{]"), Err(ControlError::Spec(_))));
    }

    #[test]
    fn answers_are_told_apart_by_their_first_byte() {
        let (ours, mut agents) = UnixStream::pair().unwrap();
        Control::new(ours).started(0x0102, None).unwrap();
        let mut answer = Vec::new();
        agents.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, [b'P', 2, 1, 0, 0]);

        let (ours, mut agents) = UnixStream::pair().unwrap();
        Control::new(ours).failed("no such program").unwrap();
        let mut answer = String::new();
        agents.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "Eno such program");
    }
}
