//! The host client's unix socket: non-blocking reads into and writes from guest memory, and the bytes that wait for room.

use crate::devices::virtio::{Buffers, ShortBuffer};
use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
};
use vm_memory::{ReadVolatile, VolatileMemoryError, WriteVolatile};

/// Most unread bytes that are discarded when a socket is closed; a unix socket holds less.
const MAX_DISCARDED_BYTES: usize = 16 << 20;

/// A client's end of a stream. It follows edge-triggered events: a state holds until the socket reports another.
pub struct ClientSocket {
    stream: UnixStream,
    readable: bool,
    /// The client sends nothing more, and all it sent has been read.
    send_closed: bool,
    /// The client receives nothing more.
    receive_closed: bool,
    /// Bytes from the guest that the socket had no room for.
    pending: VecDeque<u8>,
    writable_watched: bool,
    write_shut: bool,
}

impl ClientSocket {
    /// Takes a socket in non-blocking mode.
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            readable: true,
            send_closed: false,
            receive_closed: false,
            pending: VecDeque::new(),
            writable_watched: false,
            write_shut: false,
        }
    }

    /// The socket, for epoll.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Whether bytes wait for room in the socket.
    pub fn wants_writable(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether [`ClientSocket::wants_writable`] has changed since the last call.
    pub fn take_interest_change(&mut self) -> bool {
        let wanted = self.wants_writable();
        std::mem::replace(&mut self.writable_watched, wanted) != wanted
    }

    /// The socket may have bytes.
    pub fn set_readable(&mut self) {
        self.readable = true;
    }

    /// Whether a read may return bytes or the end of the stream.
    pub fn may_read(&self) -> bool {
        self.readable && !self.send_closed
    }

    /// Whether the client sends nothing more.
    pub fn is_send_closed(&self) -> bool {
        self.send_closed
    }

    /// Whether the client receives nothing more.
    pub fn is_receive_closed(&self) -> bool {
        self.receive_closed
    }

    /// Reads at most `limit` bytes into guest memory and returns how many. Afterwards [`ClientSocket::discard_pending`] is
    /// due if the socket failed.
    pub fn read_into(&mut self, data: &Buffers<'_>, limit: usize) -> usize {
        let mut count = 0;
        for slice in data.slices() {
            let Ok(mut part) = slice.subslice(0, slice.len().min(limit - count)) else {
                break;
            };
            if part.is_empty() || !self.may_read() {
                break;
            }
            match (&self.stream).read_volatile(&mut part) {
                Ok(0) => self.send_closed = true,
                Ok(n) => {
                    count += n;
                    if n < part.len() {
                        break;
                    }
                }
                Err(VolatileMemoryError::IOError(e)) if e.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(_) => {
                    self.send_closed = true;
                    self.receive_closed = true;
                }
            }
        }
        count
    }

    /// Writes a whole line; `false` if the socket does not take it at once.
    pub fn write_line(&mut self, line: &str) -> bool {
        self.stream.write(line.as_bytes()).is_ok_and(|count| count == line.len())
    }

    /// Takes bytes from guest memory: writes what the socket has room for and keeps the rest. Returns how many bytes have
    /// left our buffer, which is all of them if the client receives nothing more.
    pub fn write_from(&mut self, mut payload: Buffers<'_>) -> Result<usize, ShortBuffer> {
        let mut forwarded = 0;
        if self.pending.is_empty() && !self.receive_closed {
            forwarded = self.write_volatile(&payload);
            payload.split_to(forwarded)?;
        }
        if self.receive_closed {
            return Ok(forwarded + payload.len());
        }
        let mut rest = vec![0; payload.len()];
        payload.read_exact(&mut rest)?;
        self.pending.extend(rest);
        Ok(forwarded)
    }

    fn write_volatile(&mut self, payload: &Buffers<'_>) -> usize {
        let mut written = 0;
        for slice in payload.slices() {
            match (&self.stream).write_volatile(slice) {
                Ok(n) => {
                    written += n;
                    if n < slice.len() {
                        break;
                    }
                }
                Err(VolatileMemoryError::IOError(e)) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.receive_closed = true;
                    break;
                }
            }
        }
        written
    }

    /// Writes pending bytes as far as there is room; returns how many have left our buffer.
    pub fn flush(&mut self) -> usize {
        let mut forwarded = 0;
        while !self.pending.is_empty() {
            match self.stream.write(self.pending.as_slices().0) {
                Ok(count @ 1..) => {
                    self.pending.drain(..count);
                    forwarded += count;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Ok(0) | Err(_) => {
                    forwarded += self.close_receive();
                }
            }
        }
        forwarded
    }

    /// The client receives nothing more; returns how many pending bytes are discarded.
    pub fn close_receive(&mut self) -> usize {
        self.receive_closed = true;
        self.discard_pending()
    }

    /// Discards pending bytes if the client receives nothing more; returns how many.
    pub fn discard_pending(&mut self) -> usize {
        let count = if self.receive_closed { self.pending.len() } else { 0 };
        self.pending.drain(..count);
        count
    }

    /// Makes the client's writes fail.
    pub fn shutdown_read(&self) {
        let _ = self.stream.shutdown(Shutdown::Read);
    }

    /// Gives the client the end of the stream, unless bytes are still pending.
    pub fn shutdown_write_if_flushed(&mut self) {
        if self.pending.is_empty() && !self.write_shut {
            self.write_shut = true;
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }

    /// Closes the socket so that the client can still read what it was sent. Unread bytes of the client have to be
    /// discarded first: they would turn its end of stream into a connection reset.
    pub fn close(mut self) {
        // Fails if the client has closed it first.
        let _ = self.stream.shutdown(Shutdown::Both);
        let mut unread = [0; 4096];
        let mut discarded = 0;
        while discarded < MAX_DISCARDED_BYTES {
            match self.stream.read(&mut unread) {
                Ok(0) | Err(_) => break,
                Ok(count) => discarded += count,
            }
        }
    }
}
