//! Pause and resume of threads that access the guest's memory: vCPUs, which check [`PauseControl`] before they enter the guest, and
//! threads of devices, which check it before each turn.
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
    /// Threads that hold a [`RunGuard`].
    running: usize,
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::{Arc, atomic::AtomicUsize},
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
