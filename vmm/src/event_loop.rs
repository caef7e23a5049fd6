//! The one epoll loop of the process: descriptors in, handlers called, handlers may add and remove others while it runs.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent};

pub use vmm_sys_util::epoll::EventSet;

/// Events taken from the kernel in one go.
const EVENTS_PER_WAIT: usize = 64;
/// Most descriptors watched at a time; each control connection and each queue is one.
const MAX_HANDLERS: usize = 1024;

/// Names one registered handler; never reused within a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(u64);

/// What runs when a descriptor is ready. It gets the loop itself, and its own token, so that it can remove itself.
pub type Handler = Box<dyn FnMut(&mut EventLoop, Token, EventSet)>;

struct Entry {
    fd: RawFd,
    /// Absent while the handler runs.
    handler: Option<Handler>,
}

/// A single-threaded, level-triggered event loop.
///
/// A handler owns the descriptor it is registered for (usually inside its closure), so removing the handler closes it.
pub struct EventLoop {
    epoll: Epoll,
    entries: BTreeMap<Token, Entry>,
    next: u64,
    stopped: bool,
}

impl EventLoop {
    /// An empty loop.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new()?,
            entries: BTreeMap::new(),
            next: 0,
            stopped: false,
        })
    }

    /// Calls `handler` whenever one of `events`, an error or a hang-up holds on `fd`.
    ///
    /// The descriptor must stay open until the handler is dropped or removed. Fails where epoll refuses the
    /// descriptor and with `QuotaExceeded` where too many are watched.
    pub fn add(&mut self, fd: RawFd, events: EventSet, handler: Handler) -> io::Result<Token> {
        if self.entries.len() >= MAX_HANDLERS {
            return Err(io::Error::from(io::ErrorKind::QuotaExceeded));
        }
        let token = Token(self.next);
        self.epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(events, token.0))?;
        self.next += 1;
        self.entries.insert(
            token,
            Entry {
                fd,
                handler: Some(handler),
            },
        );
        Ok(token)
    }

    /// Changes the events that a handler waits for.
    pub fn modify(&mut self, token: Token, events: EventSet) -> io::Result<()> {
        let entry = self.entries.get(&token).ok_or(io::ErrorKind::NotFound)?;
        self.epoll.ctl(ControlOperation::Modify, entry.fd, EpollEvent::new(events, token.0))
    }

    /// Forgets a handler and drops it; one that is running is dropped when it returns.
    pub fn remove(&mut self, token: Token) {
        if let Some(entry) = self.entries.remove(&token) {
            // Fails only where the descriptor was closed before, and then the kernel has forgotten it already.
            let _ = self.epoll.ctl(ControlOperation::Delete, entry.fd, EpollEvent::default());
        }
    }

    /// Lets [`EventLoop::run`] return once the running handler has.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Serves events until [`EventLoop::stop`] is called.
    pub fn run(&mut self) -> io::Result<()> {
        while !self.stopped {
            self.turn(-1)?;
        }
        Ok(())
    }

    /// Serves what is ready, after waiting at most `timeout_ms` for it (-1: for ever).
    pub fn turn(&mut self, timeout_ms: i32) -> io::Result<()> {
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

    /// An event whose handler was removed earlier in the same turn is dropped: tokens are never reused.
    fn dispatch(&mut self, token: Token, events: EventSet) {
        let Some(mut handler) = self.entries.get_mut(&token).and_then(|e| e.handler.take()) else {
            return;
        };
        handler(self, token, events);
        if let Some(entry) = self.entries.get_mut(&token) {
            entry.handler = Some(handler);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::os::fd::AsRawFd;
    use std::rc::Rc;
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    fn ready() -> EventFd {
        let event = EventFd::new(EFD_NONBLOCK).unwrap();
        event.write(1).unwrap();
        event
    }

    #[test]
    fn a_handler_runs_while_its_descriptor_is_ready() {
        let mut events = EventLoop::new().unwrap();
        let seen = Rc::new(RefCell::new(0));
        let (count, event) = (seen.clone(), ready());
        let fd = event.as_raw_fd();
        let serve = move |events: &mut EventLoop, _: Token, set: EventSet| {
            assert_eq!(set, EventSet::IN);
            *count.borrow_mut() += 1;
            if *count.borrow() == 3 {
                event.read().unwrap();
                events.stop();
            }
        };
        events.add(fd, EventSet::IN, Box::new(serve)).unwrap();
        events.run().unwrap();
        assert_eq!(*seen.borrow(), 3);
        events.stopped = false;
        events.turn(0).unwrap();
        assert_eq!(*seen.borrow(), 3);
    }

    #[test]
    fn a_removed_handler_gets_no_event_of_the_same_turn() {
        let mut events = EventLoop::new().unwrap();
        let tokens: Rc<RefCell<Vec<Token>>> = Rc::default();
        let calls = Rc::new(RefCell::new(0));
        for _ in 0..2 {
            let (event, tokens_in, calls) = (ready(), tokens.clone(), calls.clone());
            let token = events
                .add(
                    event.as_raw_fd(),
                    EventSet::IN,
                    Box::new(move |events, own, _| {
                        let _keep = &event;
                        *calls.borrow_mut() += 1;
                        let all = tokens_in.borrow().clone();
                        all.into_iter().filter(|t| *t != own).for_each(|t| events.remove(t));
                    }),
                )
                .unwrap();
            tokens.borrow_mut().push(token);
        }
        events.turn(0).unwrap();
        assert_eq!(*calls.borrow(), 1);
        assert_eq!(events.entries.len(), 1);
    }

    #[test]
    fn a_handler_may_remove_itself_and_add_another() {
        let mut events = EventLoop::new().unwrap();
        let order: Rc<RefCell<Vec<&str>>> = Rc::default();
        let (first, log) = (ready(), order.clone());
        events
            .add(
                first.as_raw_fd(),
                EventSet::IN,
                Box::new(move |events, own, _| {
                    let _keep = &first;
                    log.borrow_mut().push("first");
                    events.remove(own);
                    let (second, log) = (ready(), log.clone());
                    events
                        .add(
                            second.as_raw_fd(),
                            EventSet::IN,
                            Box::new(move |events, _, _| {
                                let _keep = &second;
                                log.borrow_mut().push("second");
                                events.stop();
                            }),
                        )
                        .unwrap();
                }),
            )
            .unwrap();
        events.run().unwrap();
        assert_eq!(*order.borrow(), ["first", "second"]);
        assert_eq!(events.entries.len(), 1);
    }

    #[test]
    fn modify_silences_and_wakes_a_handler() {
        let mut events = EventLoop::new().unwrap();
        let calls = Rc::new(RefCell::new(0));
        let (event, count) = (ready(), calls.clone());
        let token = events
            .add(
                event.as_raw_fd(),
                EventSet::empty(),
                Box::new(move |_, _, _| {
                    let _keep = &event;
                    *count.borrow_mut() += 1
                }),
            )
            .unwrap();
        events.turn(0).unwrap();
        assert_eq!(*calls.borrow(), 0);
        events.modify(token, EventSet::IN).unwrap();
        events.turn(0).unwrap();
        assert_eq!(*calls.borrow(), 1);
        events.remove(token);
        assert_eq!(events.modify(token, EventSet::IN).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
