//! The epoll loop of the main thread, and of each device's thread. Handlers may add, remove and suspend handlers while it runs.

use crate::pause::PauseControl;
use std::{
    collections::BTreeMap,
    io,
    os::fd::RawFd,
    sync::Arc,
    time::{Duration, Instant},
};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent};

pub use vmm_sys_util::epoll::EventSet;

/// Events per `epoll_wait`.
const EVENTS_PER_WAIT: usize = 64;
/// Most descriptors at a time; each control connection and each queue has one.
const MAX_HANDLERS: usize = 1024;

/// Identifies a registered handler; never reused within a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(u64);

/// Called when its descriptor is ready, with the loop and its own token, so that it can remove itself.
pub type Handler = Box<dyn FnMut(&mut EventLoop, Token, EventSet)>;

struct Entry {
    fd: RawFd,
    events: EventSet,
    /// Absent while the handler runs.
    handler: Option<Handler>,
    /// Not called while devices are paused.
    is_device: bool,
    suspended_until: Option<Instant>,
}

/// A single-threaded, level-triggered event loop.
///
/// A handler owns the descriptor it is registered for (usually inside its closure), so removing the handler closes it.
pub struct EventLoop {
    epoll: Epoll,
    entries: BTreeMap<Token, Entry>,
    next: u64,
    stopped: bool,
    devices_paused: bool,
    /// Suspended handlers, usually none.
    suspended: Vec<Token>,
    /// Of the loop's thread, if it takes turns.
    pause: Option<Arc<PauseControl>>,
}

impl EventLoop {
    /// An empty loop.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new()?,
            entries: BTreeMap::new(),
            next: 0,
            stopped: false,
            devices_paused: false,
            suspended: Vec::new(),
            pause: None,
        })
    }

    /// An empty loop for a thread that holds a guard of `pause` in each of its turns.
    pub fn of_thread(pause: Arc<PauseControl>) -> io::Result<Self> {
        Ok(Self {
            pause: Some(pause),
            ..Self::new()?
        })
    }

    /// Calls `work`, which waits for the host's storage. On a thread of a device, nobody who pauses or stops it waits for that, and this
    /// returns when the thread may go on; `None` if the VM is stopped for good. The caller holds no lock that others wait for.
    pub fn away<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        match &self.pause {
            Some(pause) => pause.away(work),
            None => Some(work()),
        }
    }

    /// Calls `handler` whenever `fd` has one of `events`, an error or a hang-up.
    ///
    /// The descriptor must stay open until the handler is dropped or removed.
    ///
    /// # Errors
    /// When epoll refuses the descriptor, and `QuotaExceeded` when there are too many.
    pub fn add(&mut self, fd: RawFd, events: EventSet, handler: Handler) -> io::Result<Token> {
        self.insert(fd, events, handler, false)
    }

    /// As [`EventLoop::add`], for a device: the handler is not called while devices are paused. The descriptor must be of a
    /// kind without hang-up, such as an eventfd or an epoll set, because epoll reports a hang-up in any case.
    pub fn add_device(&mut self, fd: RawFd, events: EventSet, handler: Handler) -> io::Result<Token> {
        self.insert(fd, events, handler, true)
    }

    fn insert(&mut self, fd: RawFd, events: EventSet, handler: Handler, is_device: bool) -> io::Result<Token> {
        if self.entries.len() >= MAX_HANDLERS {
            return Err(io::Error::from(io::ErrorKind::QuotaExceeded));
        }
        let token = Token(self.next);
        let entry = Entry {
            fd,
            events,
            handler: Some(handler),
            is_device,
            suspended_until: None,
        };
        self.epoll.ctl(
            ControlOperation::Add,
            fd,
            EpollEvent::new(entry.wanted(self.devices_paused), token.0),
        )?;
        self.next += 1;
        self.entries.insert(token, entry);
        Ok(token)
    }

    /// Does not call a handler for `time`; events that are still pending then are served then.
    pub fn suspend(&mut self, token: Token, time: Duration) -> io::Result<()> {
        let entry = self.entries.get_mut(&token).ok_or(io::ErrorKind::NotFound)?;
        if entry.suspended_until.replace(Instant::now() + time).is_none() {
            self.suspended.push(token);
        }
        self.update_interest(token)
    }

    /// Calls no device handler until [`EventLoop::resume_devices`]; events that are still pending then are served then.
    pub fn pause_devices(&mut self) -> io::Result<()> {
        self.set_devices_paused(true)
    }

    /// Calls device handlers again.
    pub fn resume_devices(&mut self) -> io::Result<()> {
        self.set_devices_paused(false)
    }

    fn set_devices_paused(&mut self, paused: bool) -> io::Result<()> {
        self.devices_paused = paused;
        let devices: Vec<Token> = self.entries.iter().filter(|(_, e)| e.is_device).map(|(token, _)| *token).collect();
        devices.into_iter().try_for_each(|token| self.update_interest(token))
    }

    /// Sets what epoll waits for on behalf of a handler.
    fn update_interest(&self, token: Token) -> io::Result<()> {
        let entry = self.entries.get(&token).ok_or(io::ErrorKind::NotFound)?;
        let wanted = EpollEvent::new(entry.wanted(self.devices_paused), token.0);
        self.epoll.ctl(ControlOperation::Modify, entry.fd, wanted)
    }

    /// Resumes handlers whose suspension is over; returns the milliseconds until the next one's is, at most `timeout_ms`
    /// (-1: no limit).
    fn resume_suspended(&mut self, timeout_ms: i32) -> io::Result<i32> {
        if self.suspended.is_empty() {
            return Ok(timeout_ms);
        }
        let now = Instant::now();
        let mut timeout_ms = timeout_ms;
        for token in std::mem::take(&mut self.suspended) {
            let Some(entry) = self.entries.get_mut(&token) else { continue };
            match entry.suspended_until.filter(|until| *until > now) {
                Some(until) => {
                    let rest = i32::try_from((until - now).as_millis()).unwrap_or(i32::MAX - 1) + 1;
                    timeout_ms = if timeout_ms < 0 { rest } else { rest.min(timeout_ms) };
                    self.suspended.push(token);
                }
                None => {
                    entry.suspended_until = None;
                    self.update_interest(token)?;
                }
            }
        }
        Ok(timeout_ms)
    }

    /// Removes and drops a handler; one that is running is dropped when it returns.
    pub fn remove(&mut self, token: Token) {
        if let Some(entry) = self.entries.remove(&token) {
            // Fails only if the descriptor is closed, and then it has left the set already.
            let _ = self.epoll.ctl(ControlOperation::Delete, entry.fd, EpollEvent::default());
        }
    }

    /// Makes [`EventLoop::run`] return after the current handler.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Serves events until [`EventLoop::stop`] is called.
    pub fn run(&mut self) -> io::Result<()> {
        while !self.stopped {
            self.run_once(-1)?;
        }
        Ok(())
    }

    /// Waits at most `timeout_ms` for events (-1: no limit) and serves them.
    pub fn run_once(&mut self, timeout_ms: i32) -> io::Result<()> {
        let timeout_ms = self.resume_suspended(timeout_ms)?;
        let mut events = [EpollEvent::default(); EVENTS_PER_WAIT];
        let count = match self.epoll.wait(timeout_ms, &mut events) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        };
        for event in &events[..count] {
            if self.stopped {
                break;
            }
            self.dispatch(Token(event.data()), event.event_set());
        }
        Ok(())
    }

    /// Drops events whose handler was removed or suspended by one that ran before it: tokens are never reused, and a
    /// level-triggered event is reported again.
    fn dispatch(&mut self, token: Token, events: EventSet) {
        let paused = self.devices_paused;
        if self.entries.get(&token).is_none_or(|e| e.is_suspended(paused)) {
            return;
        }
        let Some(mut handler) = self.entries.get_mut(&token).and_then(|e| e.handler.take()) else {
            return;
        };
        handler(self, token, events);
        if let Some(entry) = self.entries.get_mut(&token) {
            entry.handler = Some(handler);
        }
    }
}

impl Entry {
    fn is_suspended(&self, devices_paused: bool) -> bool {
        self.suspended_until.is_some() || (self.is_device && devices_paused)
    }

    fn wanted(&self, devices_paused: bool) -> EventSet {
        if self.is_suspended(devices_paused) {
            EventSet::empty()
        } else {
            self.events
        }
    }
}

#[cfg(test)]
mod tests;
