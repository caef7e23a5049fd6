//! All streams of the vsock device: which packet belongs to which, and which stream sends the next packet to the guest.
//!
//! The muxer has an epoll set of its own, so that the event loop polls one descriptor however many streams there are.

use super::{
    GUEST_CID,
    clients::{Clients, FIRST_HANDSHAKE, LISTENER},
    connection::{Connection, Key},
    packet::{HEADER_BYTES, HOST_CID, Header, OP_REQUEST, OP_RST, TYPE_STREAM},
};
use crate::devices::virtio::Buffers;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    io,
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::{UnixListener, UnixStream},
    },
    time::{Duration, Instant},
};
use vmm_sys_util::{
    epoll::{ControlOperation, Epoll, EpollEvent, EventSet},
    timerfd::TimerFd,
};

/// Most streams and handshakes, together.
pub const MAX_CONNECTIONS: usize = 1024;
/// Resets queued for the guest at which no more packets are taken from it.
const MAX_REPLIES: usize = 256;
const EVENTS_PER_WAIT: usize = 64;
/// How often deadlines are checked while there are any.
const TICK: Duration = Duration::from_secs(1);
/// Host ports of streams.
const FIRST_HOST_PORT: u32 = 1 << 30;
const LAST_HOST_PORT: u32 = (1 << 31) - 1;

/// Epoll token of the timer. A stream's token is its two ports, below [`FIRST_HANDSHAKE`]: no host port is `u32::MAX`.
const TIMER: u64 = u64::MAX - 1;

/// A port of the host to which the guest may connect.
#[derive(Debug)]
pub struct Offer {
    /// The port, below those of the host's clients.
    pub port: u32,
    /// One for each stream that the guest may open during its life, in non-blocking mode: they are made beforehand, so that the VMM
    /// makes no sockets while the guest runs.
    pub streams: Vec<UnixStream>,
}

/// The streams of one guest.
pub struct Muxer {
    epoll: Epoll,
    clients: Clients,
    offer: Option<Offer>,
    timer: TimerFd,
    timer_armed: bool,
    connections: HashMap<Key, Connection>,
    next_port: u32,
    /// Streams that may have a packet for the guest, each once, served in turn.
    ready: VecDeque<Key>,
    queued: HashSet<Key>,
    /// Answers to packets that belong to no stream.
    replies: VecDeque<Header>,
}

impl Muxer {
    /// Accepts clients from `listener`, and the guest on the port of `offer`.
    pub fn new(listener: UnixListener, offer: Option<Offer>) -> io::Result<Self> {
        let (epoll, timer) = (Epoll::new()?, TimerFd::new()?);
        let clients = Clients::new(listener, &epoll)?;
        epoll.ctl(ControlOperation::Add, timer.as_raw_fd(), EpollEvent::new(EventSet::IN, TIMER))?;
        Ok(Self {
            epoll,
            clients,
            offer,
            timer,
            timer_armed: false,
            connections: HashMap::new(),
            next_port: FIRST_HOST_PORT,
            ready: VecDeque::new(),
            queued: HashSet::new(),
            replies: VecDeque::new(),
        })
    }

    /// The descriptor that is readable when [`Muxer::process_host_events`] has work.
    pub fn events(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// Number of streams.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Whether the guest must take answers before more of its packets are taken.
    pub fn is_congested(&self) -> bool {
        self.replies.len() >= MAX_REPLIES
    }

    /// Whether [`Muxer::produce`] may have a packet.
    pub fn has_output(&self) -> bool {
        !self.replies.is_empty() || !self.ready.is_empty()
    }

    /// The guest's driver resets the device: streams it knew end, requests it has not seen yet wait for the next driver.
    pub fn guest_reset(&mut self) {
        self.replies.clear();
        let known: Vec<Key> = self
            .connections
            .iter()
            .filter(|(_, c)| !c.is_request_pending())
            .map(|(key, _)| *key)
            .collect();
        for key in known {
            if let Some(connection) = self.connections.get_mut(&key) {
                connection.detach_guest();
            }
            self.update_stream(key);
        }
    }

    /// Takes one packet of the guest. One that belongs to no stream is answered with an RST; so is a REQUEST to a port that the host
    /// does not offer.
    pub fn receive(&mut self, mut packet: Buffers<'_>) {
        let mut bytes = [0; HEADER_BYTES];
        if packet.read_exact(&mut bytes).is_err() {
            return;
        }
        let header = Header::parse(&bytes);
        // Not from this guest to this host: dropped, because there is nowhere to send an answer.
        if header.src_cid != GUEST_CID || header.dst_cid != HOST_CID {
            return;
        }
        let key = Key {
            host_port: header.dst_port,
            guest_port: header.src_port,
        };
        let known = self.connections.get_mut(&key).filter(|c| c.is_live());
        let accepted = match known {
            Some(connection) if header.kind == TYPE_STREAM => {
                let result = connection.receive(&header, packet);
                if result.is_err() {
                    connection.detach_guest();
                }
                result.is_ok()
            }
            None if header.kind == TYPE_STREAM && header.op == OP_REQUEST => self.accept(key, &header),
            _ => false,
        };
        if !accepted && header.op != OP_RST {
            self.replies.push_back(header.reset());
        }
        self.update_stream(key);
    }

    /// The next packet for the guest: its header and how many bytes of `data` it fills.
    pub fn produce(&mut self, data: &Buffers<'_>) -> Option<(Header, usize)> {
        if let Some(reply) = self.replies.pop_front() {
            return Some((reply, 0));
        }
        while let Some(key) = self.ready.pop_front() {
            self.queued.remove(&key);
            let packet = self.connections.get_mut(&key).and_then(|c| c.produce(data));
            // To the end of the queue, if it has more.
            self.update_stream(key);
            if packet.is_some() {
                return packet;
            }
        }
        None
    }

    /// Serves the listener, clients and streams that are ready, and deadlines that have passed.
    pub fn process_host_events(&mut self, now: Instant) {
        let mut events = [EpollEvent::default(); EVENTS_PER_WAIT];
        let count = self.epoll.wait(0, &mut events).unwrap_or(0);
        for event in &events[..count] {
            match event.data() {
                LISTENER => {
                    let limit = MAX_CONNECTIONS.saturating_sub(self.connections.len());
                    self.clients.accept(&self.epoll, limit, now);
                    self.arm_timer();
                }
                TIMER => {
                    // Cannot block: the timer is armed again only after this event.
                    let _ = self.timer.wait();
                    self.timer_armed = false;
                    self.expire(now);
                }
                token if token >= FIRST_HANDSHAKE => {
                    if let Some((stream, guest_port)) = self.clients.read(token) {
                        self.connect(stream, guest_port, now);
                    }
                }
                token => self.stream_event(token, event.event_set()),
            }
        }
    }

    /// Ends handshakes and streams whose deadline has passed at `now`.
    pub fn expire(&mut self, now: Instant) {
        self.clients.expire(&self.epoll, now);
        let expired = |c: &Connection| c.deadline().is_some_and(|d| d <= now);
        let late: Vec<Key> = self.connections.iter().filter(|(_, c)| expired(c)).map(|(key, _)| *key).collect();
        for key in late {
            self.reset_stream(key);
        }
        self.arm_timer();
    }

    fn connect(&mut self, stream: UnixStream, guest_port: u32, now: Instant) {
        let key = Key {
            host_port: self.allocate_port(guest_port),
            guest_port,
        };
        let connection = Connection::requested(key, stream, now);
        if self.poll(key, &connection).is_ok() {
            self.connections.insert(key, connection);
            self.update_stream(key);
        }
    }

    /// Gives the guest a stream to the port that it requests, if that is offered and there is one left.
    fn accept(&mut self, key: Key, request: &Header) -> bool {
        if self.connections.contains_key(&key) {
            return false;
        }
        let Some(stream) = self
            .offer
            .as_mut()
            .filter(|offer| offer.port == key.host_port)
            .and_then(|offer| offer.streams.pop())
        else {
            return false;
        };
        let connection = Connection::accepted(key, stream, request);
        let event = EpollEvent::new(interest(&connection), token_of(key));
        let polled = self
            .epoll
            .ctl(ControlOperation::Add, connection.stream().as_raw_fd(), event)
            .is_ok();
        if polled {
            self.connections.insert(key, connection);
        }
        polled
    }

    /// A port that no stream to `guest_port` uses; there are far more ports than streams.
    fn allocate_port(&mut self, guest_port: u32) -> u32 {
        loop {
            let host_port = self.next_port;
            self.next_port = if host_port == LAST_HOST_PORT {
                FIRST_HOST_PORT
            } else {
                host_port + 1
            };
            if !self.connections.contains_key(&Key { host_port, guest_port }) {
                return host_port;
            }
        }
    }

    fn stream_event(&mut self, token: u64, events: EventSet) {
        let key = Key {
            host_port: (token >> 32) as u32,
            guest_port: (token & u64::from(u32::MAX)) as u32,
        };
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if events.intersects(EventSet::HANG_UP | EventSet::ERROR) {
            connection.on_hang_up();
        }
        if events.intersects(EventSet::IN | EventSet::READ_HANG_UP) {
            connection.on_readable();
        }
        if events.contains(EventSet::OUT) {
            connection.on_writable();
        }
        self.update_stream(key);
    }

    /// Ends a stream, with an RST if the guest knows it.
    fn reset_stream(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if !connection.is_request_pending() {
            let from_guest = Header {
                src_cid: GUEST_CID,
                dst_cid: HOST_CID,
                src_port: key.guest_port,
                dst_port: key.host_port,
                kind: TYPE_STREAM,
                ..Header::default()
            };
            self.replies.push_back(from_guest.reset());
        }
        connection.detach_guest();
        self.update_stream(key);
    }

    /// After any change of a stream: removes it, queues it for sending, updates what epoll waits for.
    fn update_stream(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if connection.is_finished() {
            if let Some(connection) = self.connections.remove(&key) {
                connection.close();
            }
            // Otherwise a guest that opens and resets streams would fill the queue with keys of streams that are gone.
            if self.queued.remove(&key) {
                self.ready.retain(|queued| *queued != key);
            }
            return;
        }
        if connection.has_output() && self.queued.insert(key) {
            self.ready.push_back(key);
        }
        let (changed, has_deadline) = (connection.take_interest_change(), connection.deadline().is_some());
        if changed && let Some(connection) = self.connections.get(&key) {
            // Cannot fail: the socket is in the set, and changing an entry needs no memory.
            let _ = self.poll(key, connection);
        }
        if has_deadline {
            self.arm_timer();
        }
    }

    /// Sets what epoll waits for on a client's socket, which is in the set since its handshake.
    fn poll(&self, key: Key, connection: &Connection) -> io::Result<()> {
        let event = EpollEvent::new(interest(connection), token_of(key));
        self.epoll.ctl(ControlOperation::Modify, connection.stream().as_raw_fd(), event)
    }

    fn arm_timer(&mut self) {
        if self.timer_armed {
            return;
        }
        if self.clients.needs_timer() || self.connections.values().any(|c| c.deadline().is_some()) {
            self.timer_armed = self.timer.reset(TICK, None).is_ok();
        }
    }
}

/// Edge-triggered, so that a client that hung up does not wake the loop again and again until the guest has read all;
/// OUT only while bytes wait for room.
fn interest(connection: &Connection) -> EventSet {
    let always = EventSet::IN | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
    if connection.wants_writable() {
        always | EventSet::OUT
    } else {
        always
    }
}

fn token_of(key: Key) -> u64 {
    u64::from(key.host_port) << 32 | u64::from(key.guest_port)
}
