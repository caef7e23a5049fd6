//! The line with which a client of the host names a port of the guest, in the format of Firecracker's vsock.

use std::{
    io::{self, Read},
    os::unix::net::UnixStream,
    time::Instant,
};

/// Longest line, newline included; `CONNECT 4294967295\n` has 19 bytes.
const MAX_LINE_BYTES: usize = 32;

/// A client that has connected and not yet named a port.
pub struct Handshake {
    /// The client, in non-blocking mode.
    pub stream: UnixStream,
    /// When the client is dropped.
    pub deadline: Instant,
    line: Vec<u8>,
}

/// State of a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The line is not complete.
    Waiting,
    /// The client wants this port of the guest.
    Port(u32),
    /// The client has closed the socket or wrote something else.
    Refused,
}

impl Handshake {
    /// Nothing is read yet.
    pub fn new(stream: UnixStream, deadline: Instant) -> Self {
        Self {
            stream,
            deadline,
            line: Vec::new(),
        }
    }

    /// Reads what is there, but no byte past the newline: those belong to the stream.
    pub fn read(&mut self) -> Progress {
        let mut byte = [0];
        while self.line.len() < MAX_LINE_BYTES {
            match self.stream.read(&mut byte) {
                Ok(0) => return Progress::Refused,
                Ok(_) => self.line.extend(byte),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Progress::Waiting,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Progress::Refused,
            }
            if byte == *b"\n" {
                return parse_connect(&self.line).map_or(Progress::Refused, Progress::Port);
            }
        }
        Progress::Refused
    }
}

/// The port in `CONNECT <port>\n`: decimal digits and nothing else.
pub fn parse_connect(line: &[u8]) -> Option<u32> {
    let digits = line.strip_prefix(b"CONNECT ")?.strip_suffix(b"\n")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    #[test]
    fn only_the_exact_format_is_accepted() {
        assert_eq!(parse_connect(b"CONNECT 1024\n"), Some(1024));
        assert_eq!(parse_connect(b"CONNECT 4294967295\n"), Some(u32::MAX));
        for line in [
            "CONNECT 4294967296\n",
            "CONNECT \n",
            "CONNECT +1\n",
            "CONNECT 1 \n",
            "connect 1\n",
            "CONNECT 1",
            "CONNECT  1\n",
            "\n",
            "",
        ] {
            assert_eq!(parse_connect(line.as_bytes()), None, "{line:?}");
        }
    }

    #[test]
    fn bytes_after_the_newline_stay_in_the_socket() {
        let (mut client, server) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        let mut handshake = Handshake::new(server, Instant::now());
        client.write_all(b"CONN").unwrap();
        assert_eq!(handshake.read(), Progress::Waiting);
        client.write_all(b"ECT 7\nhello").unwrap();
        assert_eq!(handshake.read(), Progress::Port(7));
        let mut rest = [0; 16];
        assert_eq!(handshake.stream.read(&mut rest).unwrap(), 5);
        assert_eq!(&rest[..5], b"hello");
    }

    #[test]
    fn an_endless_line_and_an_early_close_are_refused() {
        let (mut client, server) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        let mut handshake = Handshake::new(server, Instant::now());
        client.write_all(&[b'0'; 100]).unwrap();
        assert_eq!(handshake.read(), Progress::Refused);
        let (client, server) = UnixStream::pair().unwrap();
        drop(client);
        assert_eq!(Handshake::new(server, Instant::now()).read(), Progress::Refused);
    }

    proptest! {
        #[test]
        fn every_port_is_parsed(port: u32) {
            prop_assert_eq!(parse_connect(format!("CONNECT {port}\n").as_bytes()), Some(port));
        }

        #[test]
        fn no_line_panics(line: Vec<u8>) {
            parse_connect(&line);
        }
    }
}
