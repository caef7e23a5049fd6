//! Pause and resume of threads that access the guest's memory: vCPUs, which check [`PauseControl`] before they enter the guest, and
//! threads of devices, which check it before each turn. A thread that waits for the host's storage ([`PauseControl::away`]) counts as
//! paused, because nobody knows how long that takes.
//!
//! ```text
//!   paused ◄──pause()── running     threads are counted while they may be in the guest;
//!    │ ──resume()──►      │         pause() and stop() return when none is.
//!    └────stop()──► stopped ◄──stop()──┘
//! ```

use std::{
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// A kick that arrives just before the thread enters the guest is lost, so kicks repeat after this time.
const KICK_INTERVAL: Duration = Duration::from_millis(1);
/// A thread that has not left the guest, or ended its turn, by then is stuck in the host's kernel.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A thread did not stop in time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a vCPU or device did not stop within {} s", TIMEOUT.as_secs())]
pub struct PauseTimeout;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Running,
    Paused,
    Stopped,
}

struct State {
    mode: Mode,
    /// Threads that hold a [`RunGuard`], but for those that are away.
    running: usize,
    /// Threads in [`PauseControl::away`].
    away: usize,
}

/// Decides whether threads may access the guest.
pub struct PauseControl {
    /// Lock-free copy of `mode == Running`, read before each entry into the guest.
    is_running: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

/// A thread's permission to run the guest. Dropping it, also during a panic, counts as leaving the guest.
pub struct RunGuard<'a> {
    control: &'a PauseControl,
}

impl PauseControl {
    /// Starts paused.
    pub fn new() -> Self {
        let state = State {
            mode: Mode::Paused,
            running: 0,
            away: 0,
        };
        Self {
            is_running: AtomicBool::new(false),
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Waits until the guest may run; `None` once it is stopped for good.
    pub fn wait_until_running(&self) -> Option<RunGuard<'_>> {
        let mut state = self.wait_for_mode(self.state())?;
        state.running += 1;
        Some(RunGuard { control: self })
    }

    /// Lets threads enter the guest. No effect after [`PauseControl::stop`].
    pub fn resume(&self) {
        let mut state = self.state();
        if state.mode == Mode::Paused {
            state.mode = Mode::Running;
            self.is_running.store(true, Ordering::SeqCst);
            self.changed.notify_all();
        }
    }

    /// Returns when no thread is in the guest; `kick` makes them leave it.
    pub fn pause(&self, kick: impl Fn()) -> Result<(), PauseTimeout> {
        self.leave_guest(Mode::Paused, kick)
    }

    /// As [`PauseControl::pause`], for good.
    pub fn stop(&self, kick: impl Fn()) -> Result<(), PauseTimeout> {
        self.leave_guest(Mode::Stopped, kick)
    }

    /// Calls `work` for a thread that holds a [`RunGuard`], while [`PauseControl::pause`] and [`PauseControl::stop`] do not wait for it;
    /// returns when the thread may go on. `None` if it may not: the guest is stopped for good.
    pub fn away<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        {
            let mut state = self.state();
            (state.running, state.away) = (state.running - 1, state.away + 1);
            // Nobody waits for a thread while the guest runs; a wake-up is a system call.
            if state.mode != Mode::Running {
                self.changed.notify_all();
            }
        }
        let back = Back(self);
        let result = work();
        let mut state = self.wait_for_mode(self.state());
        if let Some(state) = &mut state {
            // Under the lock that the mode was read with: a pause from now on waits for this thread.
            back.enter(state);
        }
        let may_go_on = state.is_some();
        drop(state);
        may_go_on.then_some(result)
    }

    /// Whether a thread is in [`PauseControl::away`].
    pub fn is_away(&self) -> bool {
        self.state().away > 0
    }

    fn leave_guest(&self, mode: Mode, kick: impl Fn()) -> Result<(), PauseTimeout> {
        let deadline = Instant::now() + TIMEOUT;
        let mut state = self.state();
        if state.mode != Mode::Stopped {
            state.mode = mode;
        }
        self.is_running.store(false, Ordering::SeqCst);
        self.changed.notify_all();
        while state.running > 0 {
            if Instant::now() >= deadline {
                return Err(PauseTimeout);
            }
            kick();
            state = self
                .changed
                .wait_timeout(state, KICK_INTERVAL)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        Ok(())
    }

    fn wait_for_mode<'a>(&self, mut state: MutexGuard<'a, State>) -> Option<MutexGuard<'a, State>> {
        loop {
            match state.mode {
                Mode::Running => return Some(state),
                Mode::Stopped => return None,
                Mode::Paused => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RunGuard<'_> {
    /// Whether the thread may enter the guest once more.
    pub fn may_enter(&self) -> bool {
        self.control.is_running.load(Ordering::SeqCst)
    }
}

impl Drop for RunGuard<'_> {
    fn drop(&mut self) {
        self.control.state().running -= 1;
        self.control.changed.notify_all();
    }
}

/// Counts a thread that was away as one that holds its [`RunGuard`] again, also after a panic.
struct Back<'a>(&'a PauseControl);

impl Back<'_> {
    fn enter(self, state: &mut State) {
        (state.running, state.away) = (state.running + 1, state.away - 1);
        std::mem::forget(self);
    }
}

impl Drop for Back<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        (state.running, state.away) = (state.running + 1, state.away - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::{Arc, atomic::AtomicUsize, mpsc},
        thread,
    };

    /// Starts `threads` that count loop iterations until they are stopped.
    fn spinning(control: &Arc<PauseControl>, threads: usize) -> (Arc<AtomicUsize>, Vec<thread::JoinHandle<()>>) {
        let iterations = Arc::new(AtomicUsize::new(0));
        let handles = (0..threads)
            .map(|_| {
                let (control, iterations) = (control.clone(), iterations.clone());
                thread::spawn(move || {
                    while let Some(guard) = control.wait_until_running() {
                        while guard.may_enter() {
                            iterations.fetch_add(1, Ordering::SeqCst);
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        (iterations, handles)
    }

    fn advances(iterations: &AtomicUsize) -> bool {
        let before = iterations.load(Ordering::SeqCst);
        (0..200).any(|_| {
            thread::sleep(Duration::from_millis(1));
            iterations.load(Ordering::SeqCst) > before + 10
        })
    }

    #[test]
    fn no_thread_runs_while_paused() {
        let control = Arc::new(PauseControl::new());
        let (iterations, handles) = spinning(&control, 3);
        for _ in 0..20 {
            control.resume();
            assert!(advances(&iterations));
            control.pause(|| ()).unwrap();
            let before = iterations.load(Ordering::SeqCst);
            thread::sleep(Duration::from_millis(2));
            assert_eq!(iterations.load(Ordering::SeqCst), before);
        }
        control.stop(|| ()).unwrap();
        control.resume();
        handles.into_iter().for_each(|h| h.join().unwrap());
    }

    #[test]
    fn nobody_waits_for_a_thread_that_is_away_and_it_goes_on_only_while_the_guest_runs() {
        let control = Arc::new(PauseControl::new());
        control.resume();
        let (arrived, arrives) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let in_thread = control.clone();
        let thread = thread::spawn(move || {
            let _guard = in_thread.wait_until_running().unwrap();
            std::iter::from_fn(|| {
                in_thread.away(|| {
                    arrived.send(()).unwrap();
                    released.recv().unwrap();
                })
            })
            .count()
        });
        arrives.recv().unwrap();
        assert_eq!(control.pause(|| ()), Ok(()));
        release.send(()).unwrap();
        assert!(arrives.recv_timeout(Duration::from_millis(5)).is_err(), "paused");
        assert!(control.is_away());
        control.resume();
        arrives.recv().unwrap();
        assert_eq!(control.stop(|| ()), Ok(()));
        assert!(control.is_away());
        release.send(()).unwrap();
        assert_eq!(thread.join().unwrap(), 1);
        assert!(!control.is_away());
        assert_eq!(control.stop(|| ()), Ok(()), "the guard is gone too");
    }

    #[test]
    fn a_panic_away_counts_as_leaving() {
        let control = Arc::new(PauseControl::new());
        control.resume();
        let in_thread = control.clone();
        let panicked = thread::spawn(move || {
            let _guard = in_thread.wait_until_running();
            in_thread.away(|| std::panic::resume_unwind(Box::new("on purpose")))
        });
        assert!(panicked.join().is_err());
        assert_eq!((control.stop(|| ()), control.is_away()), (Ok(()), false));
    }

    #[test]
    fn a_panic_in_the_guest_loop_counts_as_leaving() {
        let control = Arc::new(PauseControl::new());
        control.resume();
        let in_thread = control.clone();
        let panicked = thread::spawn(move || {
            let _guard = in_thread.wait_until_running();
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        assert!(panicked.join().is_err());
        assert_eq!(control.stop(|| ()), Ok(()));
        assert!(control.wait_until_running().is_none());
    }
}
