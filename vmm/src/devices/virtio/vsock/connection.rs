//! One stream between a unix socket of the host and a socket of the guest.
//!
//! ```text
//!  requested ─RESPONSE─► established ─RST, or SHUTDOWN of both directions─► gone ─last byte delivered─► removed
//!      └──────────────RST, deadline, client gone────────────────────────────► gone
//! ```
//! Either direction ends by itself. The client's `shutdown(SHUT_WR)` becomes SHUTDOWN with the SEND flag, after all its
//! bytes; the guest's SHUTDOWN with the SEND flag becomes `shutdown(SHUT_WR)`, after all its bytes. In the state *gone*
//! the guest has forgotten the stream, but what it sent before is still delivered.

use super::{
    credit::{RECEIVE_BUFFER_BYTES, ReceiveCredit, SendCredit},
    packet::{
        HOST_CID, Header, MAX_PAYLOAD_BYTES, OP_CREDIT_REQUEST, OP_CREDIT_UPDATE, OP_REQUEST, OP_RESPONSE, OP_RST, OP_RW, OP_SHUTDOWN,
        SHUTDOWN_BOTH, SHUTDOWN_RCV, SHUTDOWN_SEND, TYPE_STREAM,
    },
};
use crate::devices::virtio::Buffers;
use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    mem::take,
    net::Shutdown,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};
use vm_memory::{ReadVolatile, VolatileMemoryError, WriteVolatile};

/// How long the guest may take to answer a request for a connection.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(30);
/// How long the guest may take to confirm that a connection has ended, as in Linux (`VSOCK_CLOSE_TIMEOUT`).
const CLOSE_DEADLINE: Duration = Duration::from_secs(8);
/// Most unread bytes thrown away when a connection is removed; a unix socket holds less.
const MAX_DISCARDED_BYTES: usize = 16 << 20;

/// The two ports of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The host's.
    pub host_port: u32,
    /// The guest's.
    pub guest_port: u32,
}

/// The stream is over: the guest gets an RST, because both directions are closed or because it broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Requested,
    Established,
    Detached,
}

/// A stream. `readable` and friends follow edge-triggered events: they hold until the socket has said otherwise.
pub struct Connection {
    key: Key,
    stream: UnixStream,
    state: State,
    deadline: Option<Instant>,
    /// The first packet of ours: REQUEST, or RESPONSE where the guest asked.
    opening: Option<u16>,

    send: SendCredit,
    readable: bool,
    /// The client will send nothing more, and all it sent has gone to the guest.
    client_send_closed: bool,
    /// The client will take nothing more.
    client_receive_closed: bool,
    /// SHUTDOWN flags the guest has heard.
    sent_shutdown: u32,
    credit_asked: bool,

    receive: ReceiveCredit,
    /// Bytes from the guest that the client's socket had no room for.
    buffer: VecDeque<u8>,
    writable_watched: bool,
    /// SHUTDOWN flags the guest has sent.
    guest_shutdown: u32,
    write_closed: bool,
    update_asked: bool,
}

impl Connection {
    /// A client wants to reach the guest; the guest is asked by the first packet.
    pub fn requested(key: Key, stream: UnixStream, now: Instant) -> Self {
        Self::new(key, stream, State::Requested, OP_REQUEST, Some(now + REQUEST_DEADLINE))
    }

    /// The guest's request was granted; the first packet tells it so.
    pub fn granted(key: Key, stream: UnixStream) -> Self {
        Self::new(key, stream, State::Established, OP_RESPONSE, None)
    }

    fn new(key: Key, stream: UnixStream, state: State, opening: u16, deadline: Option<Instant>) -> Self {
        Self {
            key,
            stream,
            state,
            deadline,
            opening: Some(opening),
            send: SendCredit::default(),
            readable: true,
            client_send_closed: false,
            client_receive_closed: false,
            sent_shutdown: 0,
            credit_asked: false,
            receive: ReceiveCredit::default(),
            buffer: VecDeque::new(),
            writable_watched: false,
            guest_shutdown: 0,
            write_closed: false,
            update_asked: false,
        }
    }

    /// The client's socket.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Whether the guest has not heard of this stream yet.
    pub fn is_request_pending(&self) -> bool {
        self.opening == Some(OP_REQUEST)
    }

    /// Whether bytes wait for room in the client's socket.
    pub fn wants_writable(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Whether [`Connection::wants_writable`] has changed since the last call.
    pub fn take_interest_change(&mut self) -> bool {
        let wanted = self.wants_writable();
        std::mem::replace(&mut self.writable_watched, wanted) != wanted
    }

    /// Takes over the credit in a packet of the guest.
    pub fn update_credit(&mut self, header: &Header) {
        self.send.update(header.buf_alloc, header.fwd_cnt);
        self.credit_asked &= self.send.available() == 0;
    }

    /// Whether nothing is left to do but to remove it.
    pub fn is_finished(&self) -> bool {
        self.state == State::Detached && self.buffer.is_empty()
    }

    /// Whether the guest still knows it.
    pub fn is_live(&self) -> bool {
        self.state != State::Detached
    }

    /// When the guest's time is up, if it is being waited for.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The guest's side is over; what it sent is still delivered, what the client sends is not.
    pub fn detach_guest(&mut self) {
        if self.state == State::Requested {
            self.close_client_receive();
        }
        self.state = State::Detached;
        self.deadline = None;
        self.opening = None;
        self.close_reading();
        self.finish_writing();
    }

    /// The socket may have bytes.
    pub fn on_readable(&mut self) {
        self.readable = true;
    }

    /// The socket has room.
    pub fn on_writable(&mut self) {
        while !self.buffer.is_empty() {
            match self.stream.write(self.buffer.as_slices().0) {
                Ok(0) => return self.close_client_receive(),
                Ok(count) => {
                    self.buffer.drain(..count);
                    self.receive.forward(count as u32);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => (),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.close_client_receive(),
            }
        }
        self.finish_writing();
    }

    /// The client has closed both directions: nothing can be delivered any more, but what it sent can.
    pub fn on_hang_up(&mut self) {
        self.close_client_receive();
        self.readable = true;
        if self.state == State::Requested {
            self.state = State::Detached;
        }
    }

    /// A packet of the guest for this stream.
    pub fn receive(&mut self, header: &Header, payload: Buffers<'_>) -> Result<(), Reset> {
        self.update_credit(header);
        match (self.state, header.op) {
            (State::Detached, _) => Err(Reset),
            (_, OP_RST) => {
                self.detach_guest();
                Ok(())
            }
            (State::Requested, OP_RESPONSE) => self.establish(),
            (State::Established, OP_RW) => self.deliver(header.len, payload),
            (State::Established, OP_SHUTDOWN) => self.shut(header.flags),
            (State::Established, OP_CREDIT_UPDATE) => Ok(()),
            (State::Established, OP_CREDIT_REQUEST) => {
                self.update_asked = true;
                Ok(())
            }
            _ => Err(Reset),
        }
    }

    /// Whether [`Connection::produce`] may have a packet.
    pub fn has_output(&self) -> bool {
        match self.state {
            State::Detached => false,
            State::Requested => self.opening.is_some(),
            State::Established => {
                self.opening.is_some()
                    || self.update_asked
                    || (self.may_read() && (self.send.available() > 0 || !self.credit_asked))
                    || self.shutdown_due() != 0
                    || self.receive.is_update_due()
            }
        }
    }

    /// The next packet for the guest: its header and how many bytes of `data` it fills.
    pub fn produce(&mut self, data: &Buffers<'_>) -> Option<(Header, usize)> {
        let (op, flags, len) = match self.state {
            State::Detached => return None,
            State::Requested => (self.opening.take()?, 0, 0),
            State::Established => self.next_packet(data)?,
        };
        let header = Header {
            src_cid: HOST_CID,
            dst_cid: super::GUEST_CID,
            src_port: self.key.host_port,
            dst_port: self.key.guest_port,
            len: len as u32,
            kind: TYPE_STREAM,
            op,
            flags,
            buf_alloc: RECEIVE_BUFFER_BYTES,
            fwd_cnt: self.receive.announce(),
        };
        Some((header, len))
    }

    /// Ends the socket in a way that lets the client read what it was sent: bytes of its own that nobody has read
    /// would turn its end of stream into a connection reset.
    pub fn close(mut self) {
        // Fails where the client has closed it first.
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

    fn next_packet(&mut self, data: &Buffers<'_>) -> Option<(u16, u32, usize)> {
        if let Some(op) = self.opening.take() {
            return Some((op, 0, 0));
        }
        if take(&mut self.update_asked) {
            return Some((OP_CREDIT_UPDATE, 0, 0));
        }
        let count = self.read_stream(data);
        if count > 0 {
            return Some((OP_RW, 0, count));
        }
        let due = self.shutdown_due();
        if due != 0 {
            self.sent_shutdown |= due;
            if self.sent_shutdown == SHUTDOWN_BOTH {
                self.deadline = Some(Instant::now() + CLOSE_DEADLINE);
            }
            return Some((OP_SHUTDOWN, self.sent_shutdown, 0));
        }
        if self.receive.is_update_due() {
            return Some((OP_CREDIT_UPDATE, 0, 0));
        }
        if self.may_read() && self.send.available() == 0 && !self.credit_asked {
            self.credit_asked = true;
            return Some((OP_CREDIT_REQUEST, 0, 0));
        }
        None
    }

    fn may_read(&self) -> bool {
        self.readable && !self.client_send_closed && self.guest_shutdown & SHUTDOWN_RCV == 0
    }

    /// Moves bytes of the client into `data`, as many as the guest has room for.
    fn read_stream(&mut self, data: &Buffers<'_>) -> usize {
        let limit = data.len().min(MAX_PAYLOAD_BYTES).min(self.send.available() as usize);
        let mut count = 0;
        for slice in data.slices() {
            let Ok(mut part) = slice.subslice(0, slice.len().min(limit - count)) else {
                break;
            };
            if part.is_empty() || !self.may_read() {
                break;
            }
            match (&self.stream).read_volatile(&mut part) {
                Ok(0) => self.client_send_closed = true,
                Ok(n) => {
                    count += n;
                    if n < part.len() {
                        break;
                    }
                }
                Err(VolatileMemoryError::IOError(e)) if e.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(_) => {
                    self.client_send_closed = true;
                    self.close_client_receive();
                }
            }
        }
        self.send.consume(count as u32);
        count
    }

    /// SHUTDOWN flags that the guest has yet to hear.
    fn shutdown_due(&self) -> u32 {
        let deaf = if self.client_receive_closed { SHUTDOWN_RCV } else { 0 };
        let ended = if self.client_send_closed { SHUTDOWN_SEND } else { 0 };
        (deaf | ended) & !self.sent_shutdown
    }

    fn establish(&mut self) -> Result<(), Reset> {
        self.state = State::Established;
        self.deadline = None;
        // The socket is fresh: a line that does not fit means that the client is gone.
        let line = format!("OK {}\n", self.key.host_port);
        match self.stream.write(line.as_bytes()) {
            Ok(count) if count == line.len() => Ok(()),
            _ => Err(Reset),
        }
    }

    fn deliver(&mut self, len: u32, mut payload: Buffers<'_>) -> Result<(), Reset> {
        if self.guest_shutdown & SHUTDOWN_SEND != 0 || len as usize > MAX_PAYLOAD_BYTES || !self.receive.accept(len) {
            return Err(Reset);
        }
        let mut payload = payload.split_to(len as usize).map_err(|_| Reset)?;
        if self.buffer.is_empty() && !self.client_receive_closed {
            let written = self.write_stream(&payload);
            self.receive.forward(written as u32);
            payload.split_to(written).map_err(|_| Reset)?;
        }
        if self.client_receive_closed {
            // Nobody will read it; the guest must not starve for credit all the same.
            self.receive.forward(payload.len() as u32);
            return Ok(());
        }
        let mut rest = vec![0; payload.len()];
        payload.read_exact(&mut rest).map_err(|_| Reset)?;
        self.buffer.extend(rest);
        Ok(())
    }

    /// Writes from the guest's memory what the client's socket has room for.
    fn write_stream(&mut self, payload: &Buffers<'_>) -> usize {
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
                    self.client_receive_closed = true;
                    break;
                }
            }
        }
        written
    }

    fn shut(&mut self, flags: u32) -> Result<(), Reset> {
        self.guest_shutdown |= flags & SHUTDOWN_BOTH;
        if self.guest_shutdown & SHUTDOWN_RCV != 0 {
            self.close_reading();
        }
        self.finish_writing();
        // Both directions closed: the RST that answers is the confirmation (virtio 1.2, 5.10.6.5).
        if self.guest_shutdown == SHUTDOWN_BOTH { Err(Reset) } else { Ok(()) }
    }

    /// The client's writes fail from now on.
    fn close_reading(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Read);
    }

    /// Carries the guest's end of stream over once its last byte has gone.
    fn finish_writing(&mut self) {
        let ended = self.guest_shutdown & SHUTDOWN_SEND != 0 || self.state == State::Detached;
        if ended && self.buffer.is_empty() && !self.write_closed {
            self.write_closed = true;
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }

    fn close_client_receive(&mut self) {
        self.client_receive_closed = true;
        self.receive.forward(self.buffer.len() as u32);
        self.buffer.clear();
    }
}
