//! Tests of the event loop with eventfds.

use super::*;
use std::{cell::RefCell, os::fd::AsRawFd, rc::Rc};
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
    events.run_once(0).unwrap();
    assert_eq!(*seen.borrow(), 3);
}

#[test]
fn a_removed_handler_gets_no_event_of_the_same_wait() {
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
    events.run_once(0).unwrap();
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

/// A loop, the token of a handler whose descriptor stays ready, and the number of its calls.
fn counting(add: fn(&mut EventLoop, RawFd, EventSet, Handler) -> io::Result<Token>) -> (EventLoop, Token, Rc<RefCell<u32>>) {
    let mut events = EventLoop::new().unwrap();
    let calls = Rc::new(RefCell::new(0));
    let (event, count) = (ready(), calls.clone());
    let fd = event.as_raw_fd();
    let handler = move |_: &mut EventLoop, _: Token, _: EventSet| {
        let _keep = &event;
        *count.borrow_mut() += 1;
    };
    let token = add(&mut events, fd, EventSet::IN, Box::new(handler)).unwrap();
    (events, token, calls)
}

#[test]
fn a_suspended_handler_is_called_when_its_time_is_over() {
    let (mut events, token, calls) = counting(EventLoop::add);
    events.suspend(token, Duration::from_millis(20)).unwrap();
    events.run_once(0).unwrap();
    assert_eq!(*calls.borrow(), 0);
    let start = Instant::now();
    while *calls.borrow() == 0 {
        events.run_once(-1).unwrap();
    }
    assert!(start.elapsed() >= Duration::from_millis(19));
    events.suspend(token, Duration::from_secs(600)).unwrap();
    events.remove(token);
    events.run_once(0).unwrap();
    assert!(events.suspended.is_empty());
}

#[test]
fn pausing_devices_defers_their_handlers_only() {
    let (mut events, token, calls) = counting(EventLoop::add_device);
    events.pause_devices().unwrap();
    events.run_once(0).unwrap();
    assert_eq!(*calls.borrow(), 0);
    // Suspended and paused: both have to end.
    events.suspend(token, Duration::ZERO).unwrap();
    events.run_once(0).unwrap();
    assert_eq!(*calls.borrow(), 0);
    events.resume_devices().unwrap();
    events.run_once(0).unwrap();
    assert_eq!(*calls.borrow(), 1);
    let (mut events, _, calls) = counting(EventLoop::add);
    events.pause_devices().unwrap();
    events.run_once(0).unwrap();
    assert_eq!(*calls.borrow(), 1);
}
