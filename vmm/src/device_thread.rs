//! A thread that serves the queues and host events of one device, so that its traffic delays neither other devices nor the control socket.
//!
//! It takes turns: one wait for events and their handlers, each of which does a bounded amount of work. Between turns it looks
//! whether it may go on (`pause.rs`), so a paused or stopped thread does not access the guest's memory. What a disk's thread asks of the
//! host's storage is no part of its turn ([`EventLoop::away`]): a read that takes a minute keeps nobody from pausing or stopping the VM.

use crate::{
    event_loop::{EventLoop, EventSet, Token},
    exit_reason::{ExitEvent, ExitReason},
    pause::{PauseControl, PauseTimeout},
    seccomp::{Filter, FilterError},
};
use std::{
    io,
    os::fd::AsRawFd,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{Builder, JoinHandle},
};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Stack of the thread: the event loop and a device, nothing deep.
const STACK_BYTES: usize = 256 << 10;

/// Why a device has no thread.
#[derive(Debug, thiserror::Error)]
pub enum DeviceThreadError {
    /// An eventfd or epoll call failed.
    #[error("cannot set up the event loop of a device's thread")]
    Events(#[source] io::Error),
    /// The kernel refused the system call filter.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// `clone` failed, or the thread ended at once.
    #[error("cannot start a device's thread; the process or its cgroup may be out of threads")]
    Spawn(#[source] io::Error),
}

/// The thread of one device.
pub struct DeviceThread {
    pause: Arc<PauseControl>,
    /// Ends the wait for events.
    wake: Arc<EventFd>,
    handle: Mutex<Option<JoinHandle<()>>>,
}

impl DeviceThread {
    /// Starts the thread, paused; returns when `attach` has registered the device's handlers and `filter` is installed.
    ///
    /// # Errors
    /// When the process may have no more threads or descriptors, or the kernel refuses the filter.
    pub fn start(
        name: &str,
        filter: Filter,
        exit_event: Arc<ExitEvent>,
        attach: impl FnOnce(&mut EventLoop) -> io::Result<()> + Send + 'static,
    ) -> Result<Self, DeviceThreadError> {
        let pause = Arc::new(PauseControl::new());
        let wake = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(DeviceThreadError::Events)?);
        let (ready, started) = mpsc::sync_channel(1);
        let (turns, woken) = (pause.clone(), wake.clone());
        let body = move || {
            let _on_panic = ExitOnPanic(&exit_event);
            let mut events = match prepare(&turns, &woken, &filter, attach) {
                Ok(events) => events,
                Err(e) => return drop(ready.send(Err(e))),
            };
            // Fails if the starter has ended, and then this thread is never resumed.
            let _ = ready.send(Ok(()));
            if let Err(e) = take_turns(&mut events, &turns) {
                exit_event.set(ExitReason::VmmFailed(format!("the event loop of a device failed: {e}")));
            }
        };
        let spawned = Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn(body);
        let handle = spawned.map_err(DeviceThreadError::Spawn)?;
        let ended = |_| DeviceThreadError::Spawn(io::ErrorKind::BrokenPipe.into());
        started.recv().map_err(ended)??;
        Ok(Self {
            pause,
            wake,
            handle: Mutex::new(Some(handle)),
        })
    }

    /// Lets the thread serve its device. No effect after [`DeviceThread::stop`].
    pub fn resume(&self) {
        self.pause.resume();
    }

    /// Returns when the thread has ended its turn, or waits for the host's storage. Events that arrive meanwhile are served after [`DeviceThread::resume`].
    ///
    /// # Errors
    /// When it does not end it in time; then it goes on.
    pub fn pause(&self) -> Result<(), PauseTimeout> {
        self.pause.pause(|| self.wake()).inspect_err(|_| self.pause.resume())
    }

    /// Ends and joins the thread. One that waits for the host's storage ends by itself, or with the process.
    ///
    /// # Errors
    /// When it does not end its turn in time.
    pub fn stop(&self) -> Result<(), PauseTimeout> {
        self.pause.stop(|| self.wake())?;
        if self.pause.is_away() {
            return Ok(());
        }
        if let Some(handle) = self.handle.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A thread that panicked has written so to stderr and set the exit reason.
            let _ = handle.join();
        }
        Ok(())
    }

    fn wake(&self) {
        // Fails only if the counter is full, and then the thread wakes up anyway.
        let _ = self.wake.write(1);
    }
}

fn prepare(
    pause: &Arc<PauseControl>,
    wake: &Arc<EventFd>,
    filter: &Filter,
    attach: impl FnOnce(&mut EventLoop) -> io::Result<()>,
) -> Result<EventLoop, DeviceThreadError> {
    let mut events = EventLoop::of_thread(pause.clone()).map_err(DeviceThreadError::Events)?;
    let woken = wake.clone();
    let clear = move |_: &mut EventLoop, _: Token, _: EventSet| {
        // Fails if the counter is zero.
        let _ = woken.read();
    };
    events
        .add(wake.as_raw_fd(), EventSet::IN, Box::new(clear))
        .and_then(|_| attach(&mut events))
        .map_err(DeviceThreadError::Events)?;
    filter.install()?;
    Ok(events)
}

fn take_turns(events: &mut EventLoop, pause: &PauseControl) -> io::Result<()> {
    while let Some(guard) = pause.wait_until_running() {
        while guard.may_enter() {
            events.run_once(-1)?;
        }
    }
    Ok(())
}

/// Ends the VM if the thread panics: its device would be dead otherwise.
struct ExitOnPanic<'a>(&'a ExitEvent);

impl Drop for ExitOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.set(ExitReason::VmmFailed("the thread of a device panicked".into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread::sleep,
        time::Duration,
    };

    /// Allows what a test harness does on the thread; `tests/seccomp.rs` tests the thread's own filter.
    fn filter() -> Filter {
        Filter::absent(libc::SYS_kexec_load).unwrap()
    }

    /// A thread whose device is always ready, the number of its turns, and its VM's exit event.
    fn busy() -> (DeviceThread, Arc<AtomicUsize>, Arc<ExitEvent>) {
        let exit_event = Arc::new(ExitEvent::new().unwrap());
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = turns.clone();
        let attach = move |events: &mut EventLoop| {
            let always = EventFd::new(EFD_NONBLOCK)?;
            always.write(1)?;
            let fd = always.as_raw_fd();
            let serve = move |_: &mut EventLoop, _: Token, _: EventSet| {
                let _open = &always;
                assert!(counted.fetch_add(1, Ordering::SeqCst) < usize::MAX / 2, "on purpose");
            };
            events.add_device(fd, EventSet::IN, Box::new(serve)).map(drop)
        };
        let thread = DeviceThread::start("test", filter(), exit_event.clone(), attach).unwrap();
        (thread, turns, exit_event)
    }

    #[test]
    fn a_paused_thread_takes_no_turn() {
        let (thread, turns, exit_event) = busy();
        sleep(Duration::from_millis(2));
        assert_eq!(turns.load(Ordering::SeqCst), 0, "it starts paused");
        for _ in 0..20 {
            thread.resume();
            let before = turns.load(Ordering::SeqCst);
            while turns.load(Ordering::SeqCst) == before {
                sleep(Duration::from_micros(100));
            }
            thread.pause().unwrap();
            let before = turns.load(Ordering::SeqCst);
            sleep(Duration::from_millis(1));
            assert_eq!(turns.load(Ordering::SeqCst), before);
        }
        thread.stop().unwrap();
        thread.stop().unwrap();
        assert!(exit_event.reason().is_none());
    }

    #[test]
    fn a_device_that_cannot_be_attached_has_no_thread() {
        let exit_event = Arc::new(ExitEvent::new().unwrap());
        let refuse = |_: &mut EventLoop| Err(io::ErrorKind::QuotaExceeded.into());
        let started = DeviceThread::start("test", filter(), exit_event, refuse);
        assert!(matches!(started, Err(DeviceThreadError::Events(_))));
    }

    #[test]
    fn a_panic_ends_the_vm() {
        let (thread, turns, exit_event) = busy();
        turns.store(usize::MAX / 2, Ordering::SeqCst);
        thread.resume();
        while exit_event.reason().is_none() {
            sleep(Duration::from_micros(100));
        }
        assert!(matches!(exit_event.reason(), Some(ExitReason::VmmFailed(_))));
        thread.stop().unwrap();
    }
}
