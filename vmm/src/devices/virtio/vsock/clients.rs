//! Clients of the host that have not named a guest port yet: the listening socket and one handshake per client.

use super::handshake::{Handshake, Progress};
use crate::descriptors;
use std::{
    collections::HashMap,
    io,
    os::{
        fd::AsRawFd,
        unix::net::{UnixListener, UnixStream},
    },
    time::{Duration, Instant},
};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// How long a client may take to write its line.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Clients accepted per event.
const ACCEPTS_PER_EVENT: usize = 16;

/// Epoll token of the listener.
pub const LISTENER: u64 = u64::MAX;
/// Epoll tokens of handshakes count up from here.
pub const FIRST_HANDSHAKE: u64 = (u32::MAX as u64) << 32;
const LAST_HANDSHAKE: u64 = u64::MAX - 2;

/// The listener and the handshakes in progress.
pub struct Clients {
    listener: UnixListener,
    /// The process had no descriptor left for a new client: the listener is not polled until the next [`Clients::expire`].
    listener_suspended: bool,
    handshakes: HashMap<u64, Handshake>,
    next_token: u64,
}

impl Clients {
    /// Polls `listener` with `epoll`.
    pub fn new(listener: UnixListener, epoll: &Epoll) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        epoll.ctl(ControlOperation::Add, listener.as_raw_fd(), EpollEvent::new(EventSet::IN, LISTENER))?;
        Ok(Self {
            listener,
            listener_suspended: false,
            handshakes: HashMap::new(),
            next_token: FIRST_HANDSHAKE,
        })
    }

    /// Whether [`Clients::expire`] has to be called later.
    pub fn needs_timer(&self) -> bool {
        self.listener_suspended || !self.handshakes.is_empty()
    }

    /// Accepts waiting clients, at most `limit` handshakes at a time; the connection of a client beyond is closed.
    pub fn accept(&mut self, epoll: &Epoll, limit: usize, now: Instant) {
        for _ in 0..ACCEPTS_PER_EVENT {
            let stream = match descriptors::accept(&self.listener) {
                Ok(client) => UnixStream::from(client),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => {
                    self.listener_suspended = true;
                    return self.poll_listener(epoll, EventSet::empty());
                }
            };
            if self.handshakes.len() >= limit {
                continue;
            }
            let token = self.next_token;
            let event = EpollEvent::new(EventSet::IN, token);
            if epoll.ctl(ControlOperation::Add, stream.as_raw_fd(), event).is_ok() {
                self.next_token = if token < LAST_HANDSHAKE { token + 1 } else { FIRST_HANDSHAKE };
                self.handshakes.insert(token, Handshake::new(stream, now + HANDSHAKE_DEADLINE));
            }
        }
    }

    /// Reads from the client with this token; its socket and guest port once the handshake is complete.
    pub fn read(&mut self, token: u64) -> Option<(UnixStream, u32)> {
        let progress = self.handshakes.get_mut(&token)?.read();
        if progress == Progress::Waiting {
            return None;
        }
        let handshake = self.handshakes.remove(&token)?;
        match progress {
            Progress::Port(guest_port) => Some((handshake.stream, guest_port)),
            _ => None,
        }
    }

    /// Drops clients whose deadline has passed and polls the listener again.
    pub fn expire(&mut self, epoll: &Epoll, now: Instant) {
        self.handshakes.retain(|_, h| h.deadline > now);
        if std::mem::take(&mut self.listener_suspended) {
            self.poll_listener(epoll, EventSet::IN);
        }
    }

    fn poll_listener(&self, epoll: &Epoll, events: EventSet) {
        // Cannot fail: the listener is in the set, and changing an entry needs no memory.
        let _ = epoll.ctl(
            ControlOperation::Modify,
            self.listener.as_raw_fd(),
            EpollEvent::new(events, LISTENER),
        );
    }
}
