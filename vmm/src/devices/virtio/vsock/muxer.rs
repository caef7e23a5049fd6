//! All streams of the vsock device, the listening socket, and the turns in which the guest hears of them.
//!
//! The muxer has an epoll set of its own, whose descriptor is ready whenever one of its sockets is: the event loop
//! watches one descriptor however many streams there are.

use super::{
    GUEST_CID,
    connection::{Connection, Key},
    handshake::{Handshake, Progress},
    packet::{HEADER_BYTES, HOST_CID, Header, OP_REQUEST, OP_RST, TYPE_STREAM},
};
use crate::{descriptors, devices::virtio::Buffers};
use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
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

/// Most streams and clients without a port yet, together.
pub const MAX_CONNECTIONS: usize = 1024;
/// Most resets waiting for the guest before we stop to take packets from it.
const MAX_REPLIES: usize = 256;
/// How long a client may take to write its line.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Clients accepted in one go.
const ACCEPTS_PER_TURN: usize = 16;
const EVENTS_PER_TURN: usize = 64;
/// How often deadlines are looked at while there are any.
const TICK: Duration = Duration::from_secs(1);
/// Ports of the host's side of streams that clients open; below it are the ports that we serve.
const FIRST_HOST_PORT: u32 = 1 << 30;
const LAST_HOST_PORT: u32 = (1 << 31) - 1;

/// Epoll tokens: a stream's is its two ports, and no host port is `u32::MAX`; handshakes count up from there.
const FIRST_HANDSHAKE: u64 = (u32::MAX as u64) << 32;
const LISTENER: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;

/// Makes the host's end of a connection that the guest asked for.
pub type Connector = Box<dyn FnMut() -> io::Result<UnixStream> + Send>;

/// The streams of one guest.
pub struct Muxer {
    epoll: Epoll,
    listener: UnixListener,
    /// No descriptor was left for a new client: the listener rests until the next tick.
    listener_suspended: bool,
    timer: TimerFd,
    timer_armed: bool,
    handshakes: HashMap<u64, Handshake>,
    next_handshake: u64,
    connections: HashMap<Key, Connection>,
    next_port: u32,
    connectors: BTreeMap<u32, Connector>,
    /// Streams that may have a packet for the guest, each once, served in turn.
    ready: VecDeque<Key>,
    queued: HashSet<Key>,
    /// Answers to packets that belong to no stream.
    replies: VecDeque<Header>,
}

impl Muxer {
    /// A muxer without streams that accepts clients from `listener`.
    pub fn new(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let (epoll, timer) = (Epoll::new()?, TimerFd::new()?);
        epoll.ctl(ControlOperation::Add, listener.as_raw_fd(), EpollEvent::new(EventSet::IN, LISTENER))?;
        epoll.ctl(ControlOperation::Add, timer.as_raw_fd(), EpollEvent::new(EventSet::IN, TIMER))?;
        Ok(Self {
            epoll,
            listener,
            listener_suspended: false,
            timer,
            timer_armed: false,
            handshakes: HashMap::new(),
            next_handshake: FIRST_HANDSHAKE,
            connections: HashMap::new(),
            next_port: FIRST_HOST_PORT,
            connectors: BTreeMap::new(),
            ready: VecDeque::new(),
            queued: HashSet::new(),
            replies: VecDeque::new(),
        })
    }

    /// Lets the guest connect to `port`.
    pub fn serve(&mut self, port: u32, connector: Connector) {
        self.connectors.insert(port, connector);
    }

    /// The descriptor that is readable when [`Muxer::process_host_events`] has work.
    pub fn events(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// Number of streams.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Whether the guest must take answers before it is heard again.
    pub fn is_congested(&self) -> bool {
        self.replies.len() >= MAX_REPLIES
    }

    /// Whether [`Muxer::produce`] may have a packet.
    pub fn has_output(&self) -> bool {
        !self.replies.is_empty() || !self.ready.is_empty()
    }

    /// The guest's driver starts anew: streams it knew are gone, requests it has not seen yet wait for the next driver.
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

    /// Takes one packet of the guest.
    pub fn receive(&mut self, mut packet: Buffers<'_>) {
        let mut bytes = [0; HEADER_BYTES];
        if packet.read_exact(&mut bytes).is_err() {
            return;
        }
        let header = Header::parse(&bytes);
        // Not from this guest to this host: dropped, as nobody could be answered.
        if header.src_cid != GUEST_CID || header.dst_cid != HOST_CID {
            return;
        }
        let key = Key {
            host_port: header.dst_port,
            guest_port: header.src_port,
        };
        let known = self.connections.get_mut(&key).filter(|c| c.is_live());
        let outcome = match known {
            _ if header.kind != TYPE_STREAM => false,
            Some(connection) => {
                let outcome = connection.receive(&header, packet);
                if outcome.is_err() {
                    connection.detach_guest();
                }
                outcome.is_ok()
            }
            None => header.op == OP_REQUEST && self.grant(key, &header),
        };
        if !outcome && header.op != OP_RST {
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
            // Behind all others, if it has more.
            self.update_stream(key);
            if packet.is_some() {
                return packet;
            }
        }
        None
    }

    /// Serves the listener, clients and streams that are ready, and deadlines that have passed.
    pub fn process_host_events(&mut self, now: Instant) {
        let mut events = [EpollEvent::default(); EVENTS_PER_TURN];
        let count = self.epoll.wait(0, &mut events).unwrap_or(0);
        for event in &events[..count] {
            match event.data() {
                LISTENER => self.accept(now),
                TIMER => {
                    // Cannot block: it is only set anew once this event has been seen.
                    let _ = self.timer.wait();
                    self.timer_armed = false;
                    self.expire(now);
                }
                token if token >= FIRST_HANDSHAKE => self.advance(token, now),
                token => self.stream_event(token, event.event_set()),
            }
        }
    }

    /// Ends clients and requests whose time is up at `now`.
    pub fn expire(&mut self, now: Instant) {
        self.handshakes.retain(|_, h| h.deadline > now);
        let expired = |c: &Connection| c.deadline().is_some_and(|d| d <= now);
        let late: Vec<Key> = self.connections.iter().filter(|(_, c)| expired(c)).map(|(key, _)| *key).collect();
        for key in late {
            self.reset_stream(key);
        }
        if std::mem::take(&mut self.listener_suspended) {
            self.watch_listener(EventSet::IN);
        }
        self.arm_timer();
    }

    fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPTS_PER_TURN {
            let stream = match descriptors::accept(&self.listener) {
                Ok(client) => UnixStream::from(client),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => {
                    self.listener_suspended = true;
                    self.watch_listener(EventSet::empty());
                    return self.arm_timer();
                }
            };
            // A client too many sees its connection closed.
            if self.handshakes.len() + self.connections.len() >= MAX_CONNECTIONS {
                continue;
            }
            let token = self.next_handshake;
            let event = EpollEvent::new(EventSet::IN, token);
            if self.epoll.ctl(ControlOperation::Add, stream.as_raw_fd(), event).is_ok() {
                self.next_handshake = if token + 1 < TIMER { token + 1 } else { FIRST_HANDSHAKE };
                self.handshakes.insert(token, Handshake::new(stream, now + HANDSHAKE_DEADLINE));
                self.arm_timer();
            }
        }
    }

    fn advance(&mut self, token: u64, now: Instant) {
        let progress = self.handshakes.get_mut(&token).map_or(Progress::Waiting, Handshake::advance);
        if progress == Progress::Waiting {
            return;
        }
        let Some(handshake) = self.handshakes.remove(&token) else { return };
        if let Progress::Port(guest_port) = progress {
            let key = Key {
                host_port: self.allocate_port(guest_port),
                guest_port,
            };
            let connection = Connection::requested(key, handshake.stream, now);
            self.insert(key, connection, ControlOperation::Modify);
        }
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

    /// The guest wants to connect; `false`: it may not.
    fn grant(&mut self, key: Key, header: &Header) -> bool {
        let room = self.handshakes.len() + self.connections.len() < MAX_CONNECTIONS && !self.connections.contains_key(&key);
        let Some(connector) = self.connectors.get_mut(&key.host_port).filter(|_| room) else {
            return false;
        };
        let Ok(stream) = connector() else { return false };
        if stream.set_nonblocking(true).is_err() {
            return false;
        }
        let mut connection = Connection::granted(key, stream);
        connection.update_credit(header);
        self.insert(key, connection, ControlOperation::Add)
    }

    fn insert(&mut self, key: Key, connection: Connection, operation: ControlOperation) -> bool {
        let watched = self.watch(key, &connection, operation).is_ok();
        if watched {
            self.connections.insert(key, connection);
            self.update_stream(key);
            self.arm_timer();
        }
        watched
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

    /// Resets a stream of which the guest knows, without waiting for it.
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

    /// After anything has happened to a stream: removes it, gives it a turn, waits for room in its socket.
    fn update_stream(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        if connection.is_finished() {
            if let Some(connection) = self.connections.remove(&key) {
                connection.close();
            }
            // Keys of streams that are gone would let a guest that opens and resets them fill the queue.
            if self.queued.remove(&key) {
                self.ready.retain(|queued| *queued != key);
            }
            return;
        }
        if connection.has_output() && self.queued.insert(key) {
            self.ready.push_back(key);
        }
        if connection.take_interest_change() {
            let (events, token) = (interest(connection), token_of(key));
            // Cannot fail: the socket is in the set, and changing an entry needs no memory.
            let _ = self.epoll.ctl(
                ControlOperation::Modify,
                connection.stream().as_raw_fd(),
                EpollEvent::new(events, token),
            );
        }
        if connection.deadline().is_some() {
            self.arm_timer();
        }
    }

    fn watch(&self, key: Key, connection: &Connection, operation: ControlOperation) -> io::Result<()> {
        let event = EpollEvent::new(interest(connection), token_of(key));
        self.epoll.ctl(operation, connection.stream().as_raw_fd(), event)
    }

    fn watch_listener(&self, events: EventSet) {
        let _ = self.epoll.ctl(
            ControlOperation::Modify,
            self.listener.as_raw_fd(),
            EpollEvent::new(events, LISTENER),
        );
    }

    fn arm_timer(&mut self) {
        if self.timer_armed {
            return;
        }
        let waited_for = self.connections.values().any(|c| c.deadline().is_some());
        if self.listener_suspended || !self.handshakes.is_empty() || waited_for {
            self.timer_armed = self.timer.reset(TICK, None).is_ok();
        }
    }
}

/// Edge-triggered, so that a client that hung up does not wake us again and again while the guest takes its time;
/// room in the socket is asked for only where bytes wait for it.
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
