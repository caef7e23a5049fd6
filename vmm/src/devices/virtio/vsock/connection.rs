//! One stream between a unix socket of the host and a socket of the guest: its protocol state.
//!
//! ```text
//!   offered ─our RESPONSE─┐
//!  requested ─RESPONSE─► established ─RST, or SHUTDOWN of both directions─► detached ─last byte delivered─► removed
//!      └──────────────RST, deadline, client closed──────────────────────────► detached
//! ```
//! Each direction closes by itself. The client's `shutdown(SHUT_WR)` becomes SHUTDOWN with the SEND flag, after all its
//! bytes; the guest's SHUTDOWN with the SEND flag becomes `shutdown(SHUT_WR)`, after all its bytes. In the state *detached*
//! the guest no longer knows the stream, but what it sent before is still delivered.

use super::{
    credit::{RECEIVE_BUFFER_BYTES, ReceiveCredit, SendCredit},
    packet::{
        HOST_CID, Header, MAX_PAYLOAD_BYTES, OP_CREDIT_REQUEST, OP_CREDIT_UPDATE, OP_REQUEST, OP_RESPONSE, OP_RST, OP_RW, OP_SHUTDOWN,
        SHUTDOWN_BOTH, SHUTDOWN_RCV, SHUTDOWN_SEND, TYPE_STREAM,
    },
    socket::ClientSocket,
};
use crate::devices::virtio::Buffers;
use std::{
    mem::take,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

/// How long the guest may take to answer a connection request.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(30);
/// How long the guest may take to confirm that a connection is closed, as in Linux (`VSOCK_CLOSE_TIMEOUT`).
const CLOSE_DEADLINE: Duration = Duration::from_secs(8);

/// The two ports of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The host's.
    pub host_port: u32,
    /// The guest's.
    pub guest_port: u32,
}

/// The guest gets an RST: both directions are closed, or the guest violated the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Requested,
    /// The guest requested it, and has not been answered.
    Offered,
    Established,
    Detached,
}

/// A stream that a client of the host requested, or the guest.
pub struct Connection {
    key: Key,
    socket: ClientSocket,
    state: State,
    deadline: Option<Instant>,
    request_sent: bool,

    send: SendCredit,
    credit_requested: bool,
    /// SHUTDOWN flags sent to the guest.
    sent_shutdown: u32,

    receive: ReceiveCredit,
    update_requested: bool,
    /// SHUTDOWN flags received from the guest.
    guest_shutdown: u32,
}

impl Connection {
    /// The first packet asks the guest for the connection.
    pub fn requested(key: Key, stream: UnixStream, now: Instant) -> Self {
        Self {
            deadline: Some(now + REQUEST_DEADLINE),
            ..Self::new(key, stream, State::Requested)
        }
    }

    /// The first packet answers the guest's `request`.
    pub fn accepted(key: Key, stream: UnixStream, request: &Header) -> Self {
        let mut connection = Self::new(key, stream, State::Offered);
        connection.send.update(request.buf_alloc, request.fwd_cnt);
        connection
    }

    fn new(key: Key, stream: UnixStream, state: State) -> Self {
        Self {
            key,
            socket: ClientSocket::new(stream),
            state,
            deadline: None,
            request_sent: false,
            send: SendCredit::default(),
            credit_requested: false,
            sent_shutdown: 0,
            receive: ReceiveCredit::default(),
            update_requested: false,
            guest_shutdown: 0,
        }
    }

    /// The client's socket.
    pub fn stream(&self) -> &UnixStream {
        self.socket.stream()
    }

    /// Whether the guest does not know this stream yet.
    pub fn is_request_pending(&self) -> bool {
        self.state == State::Requested && !self.request_sent
    }

    /// Whether bytes wait for room in the client's socket.
    pub fn wants_writable(&self) -> bool {
        self.socket.wants_writable()
    }

    /// Whether [`Connection::wants_writable`] has changed since the last call.
    pub fn take_interest_change(&mut self) -> bool {
        self.socket.take_interest_change()
    }

    /// Whether it can be removed.
    pub fn is_finished(&self) -> bool {
        self.state == State::Detached && !self.socket.wants_writable()
    }

    /// Whether packets of the guest belong to it.
    pub fn is_live(&self) -> bool {
        self.state != State::Detached
    }

    /// When the guest's time to answer is over, if it has to answer.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Detaches the guest: what it sent is still delivered, what the client sends is not.
    pub fn detach_guest(&mut self) {
        if self.state == State::Requested {
            self.close_client_receive();
        }
        self.state = State::Detached;
        self.deadline = None;
        self.socket.shutdown_read();
        self.finish_writing();
    }

    /// The socket may have bytes.
    pub fn on_readable(&mut self) {
        self.socket.set_readable();
    }

    /// The socket has room.
    pub fn on_writable(&mut self) {
        let forwarded = self.socket.flush();
        self.receive.forward(forwarded as u32);
        self.finish_writing();
    }

    /// The client has closed both directions: nothing can be delivered any more, but what it sent can still be read.
    pub fn on_hang_up(&mut self) {
        self.close_client_receive();
        self.socket.set_readable();
        if self.state == State::Requested {
            self.state = State::Detached;
        }
    }

    /// A packet of the guest for this stream.
    pub fn receive(&mut self, header: &Header, payload: Buffers<'_>) -> Result<(), Reset> {
        self.send.update(header.buf_alloc, header.fwd_cnt);
        self.credit_requested &= self.send.available() == 0;
        match (self.state, header.op) {
            (State::Detached, _) => Err(Reset),
            (_, OP_RST) => {
                self.detach_guest();
                Ok(())
            }
            (State::Requested, OP_RESPONSE) => self.establish(),
            (State::Established, OP_RW) => self.deliver(header.len, payload),
            (State::Established, OP_SHUTDOWN) => self.close_directions(header.flags),
            (State::Established, OP_CREDIT_UPDATE) => Ok(()),
            (State::Established, OP_CREDIT_REQUEST) => {
                self.update_requested = true;
                Ok(())
            }
            _ => Err(Reset),
        }
    }

    /// Whether [`Connection::produce`] may have a packet.
    pub fn has_output(&self) -> bool {
        match self.state {
            State::Detached => false,
            State::Requested => !self.request_sent,
            State::Offered => true,
            State::Established => {
                self.update_requested
                    || (self.may_read() && (self.send.available() > 0 || !self.credit_requested))
                    || self.shutdown_due() != 0
                    || self.receive.is_update_due()
            }
        }
    }

    /// The next packet for the guest: its header and how many bytes of `data` it fills.
    pub fn produce(&mut self, data: &Buffers<'_>) -> Option<(Header, usize)> {
        let (op, flags, len) = match self.state {
            State::Detached => return None,
            State::Requested if self.request_sent => return None,
            State::Requested => {
                self.request_sent = true;
                (OP_REQUEST, 0, 0)
            }
            State::Offered => {
                self.state = State::Established;
                (OP_RESPONSE, 0, 0)
            }
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

    /// Closes the client's socket after what it was sent.
    pub fn close(self) {
        self.socket.close();
    }

    fn next_packet(&mut self, data: &Buffers<'_>) -> Option<(u16, u32, usize)> {
        if take(&mut self.update_requested) {
            return Some((OP_CREDIT_UPDATE, 0, 0));
        }
        let count = self.read_client(data);
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
        if self.may_read() && self.send.available() == 0 && !self.credit_requested {
            self.credit_requested = true;
            return Some((OP_CREDIT_REQUEST, 0, 0));
        }
        None
    }

    fn may_read(&self) -> bool {
        self.socket.may_read() && self.guest_shutdown & SHUTDOWN_RCV == 0
    }

    /// Moves bytes of the client into `data`, as many as the guest has credit for.
    fn read_client(&mut self, data: &Buffers<'_>) -> usize {
        if !self.may_read() {
            return 0;
        }
        let limit = data.len().min(MAX_PAYLOAD_BYTES).min(self.send.available() as usize);
        let count = self.socket.read_into(data, limit);
        self.receive.forward(self.socket.discard_pending() as u32);
        self.send.consume(count as u32);
        count
    }

    /// SHUTDOWN flags that the guest has not been sent yet.
    fn shutdown_due(&self) -> u32 {
        let receive = if self.socket.is_receive_closed() { SHUTDOWN_RCV } else { 0 };
        let send = if self.socket.is_send_closed() { SHUTDOWN_SEND } else { 0 };
        (receive | send) & !self.sent_shutdown
    }

    fn establish(&mut self) -> Result<(), Reset> {
        self.state = State::Established;
        self.deadline = None;
        // The socket is empty: if the line does not fit, the client has closed it.
        if self.socket.write_line(&format!("OK {}\n", self.key.host_port)) {
            Ok(())
        } else {
            Err(Reset)
        }
    }

    fn deliver(&mut self, len: u32, mut payload: Buffers<'_>) -> Result<(), Reset> {
        if self.guest_shutdown & SHUTDOWN_SEND != 0 || len as usize > MAX_PAYLOAD_BYTES || !self.receive.accept(len) {
            return Err(Reset);
        }
        let payload = payload.split_to(len as usize).map_err(|_| Reset)?;
        let forwarded = self.socket.write_from(payload).map_err(|_| Reset)?;
        self.receive.forward(forwarded as u32);
        Ok(())
    }

    fn close_directions(&mut self, flags: u32) -> Result<(), Reset> {
        self.guest_shutdown |= flags & SHUTDOWN_BOTH;
        if self.guest_shutdown & SHUTDOWN_RCV != 0 {
            self.socket.shutdown_read();
        }
        self.finish_writing();
        // Both directions closed: an RST confirms it (virtio 1.2, 5.10.6.5).
        if self.guest_shutdown == SHUTDOWN_BOTH { Err(Reset) } else { Ok(()) }
    }

    /// Passes the guest's end of stream on after its last byte.
    fn finish_writing(&mut self) {
        if self.guest_shutdown & SHUTDOWN_SEND != 0 || self.state == State::Detached {
            self.socket.shutdown_write_if_flushed();
        }
    }

    fn close_client_receive(&mut self) {
        let discarded = self.socket.close_receive();
        self.receive.forward(discarded as u32);
    }
}
