//! The gate every vCPU thread passes before it enters the guest: open, shut, or shut for good.
//!
//! ```text
//!   shut ◄──shut()── open        threads are counted while they are beyond the gate;
//!    │ ──open()──►    │          shut() and end() return when nobody is.
//!    └───end()───► ended ◄───end()──┘
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A kick may arrive just before the thread enters the guest and be lost, so it is repeated after this time.
const KICK_AGAIN: Duration = Duration::from_millis(1);
/// A vCPU thread that has not come back by then is stuck in the host's kernel.
const PATIENCE: Duration = Duration::from_secs(5);

/// A vCPU did not leave the guest in time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a vCPU did not stop within {} s", PATIENCE.as_secs())]
pub struct Stuck;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    Open,
    Shut,
    Ended,
}

struct State {
    position: Position,
    /// Threads beyond the gate.
    inside: usize,
}

/// See the module's head.
pub struct Gate {
    /// The fast way to see that the position is `Open`.
    open: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

/// A thread's right to run the guest. Dropping it counts as leaving, a panic's drop too.
pub struct Pass<'a> {
    gate: &'a Gate,
}

impl Gate {
    /// A shut gate.
    pub fn new() -> Self {
        let state = State {
            position: Position::Shut,
            inside: 0,
        };
        Self {
            open: AtomicBool::new(false),
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Waits until the gate is open; `None` when it never will be again.
    pub fn enter(&self) -> Option<Pass<'_>> {
        let mut state = self.wait_open(self.state())?;
        state.inside += 1;
        Some(Pass { gate: self })
    }

    /// Lets threads in.
    pub fn open(&self) {
        let mut state = self.state();
        if state.position == Position::Shut {
            state.position = Position::Open;
            self.open.store(true, Ordering::SeqCst);
            self.changed.notify_all();
        }
    }

    /// Shuts the gate and waits until everybody is out; `kick` makes threads leave the guest.
    pub fn shut(&self, kick: impl Fn()) -> Result<(), Stuck> {
        self.close(Position::Shut, kick)
    }

    /// As [`Gate::shut`], for good.
    pub fn end(&self, kick: impl Fn()) -> Result<(), Stuck> {
        self.close(Position::Ended, kick)
    }

    fn close(&self, position: Position, kick: impl Fn()) -> Result<(), Stuck> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state();
        if state.position != Position::Ended {
            state.position = position;
        }
        self.open.store(false, Ordering::SeqCst);
        self.changed.notify_all();
        while state.inside > 0 {
            if Instant::now() >= deadline {
                return Err(Stuck);
            }
            kick();
            state = self
                .changed
                .wait_timeout(state, KICK_AGAIN)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        Ok(())
    }

    fn wait_open<'a>(&self, mut state: MutexGuard<'a, State>) -> Option<MutexGuard<'a, State>> {
        loop {
            match state.position {
                Position::Open => return Some(state),
                Position::Ended => return None,
                Position::Shut => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass<'_> {
    /// Whether the thread may enter the guest once more.
    pub fn is_valid(&self) -> bool {
        self.gate.open.load(Ordering::SeqCst)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.gate.state().inside -= 1;
        self.gate.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    /// Runs `threads` that count turns, until the gate has ended.
    fn spinning(gate: &Arc<Gate>, threads: usize) -> (Arc<AtomicUsize>, Vec<thread::JoinHandle<()>>) {
        let turns = Arc::new(AtomicUsize::new(0));
        let handles = (0..threads)
            .map(|_| {
                let (gate, turns) = (gate.clone(), turns.clone());
                thread::spawn(move || {
                    while let Some(pass) = gate.enter() {
                        while pass.is_valid() {
                            turns.fetch_add(1, Ordering::SeqCst);
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        (turns, handles)
    }

    fn moves(turns: &AtomicUsize) -> bool {
        let before = turns.load(Ordering::SeqCst);
        (0..200).any(|_| {
            thread::sleep(Duration::from_millis(1));
            turns.load(Ordering::SeqCst) > before + 10
        })
    }

    #[test]
    fn nobody_is_beyond_a_shut_gate() {
        let gate = Arc::new(Gate::new());
        let (turns, handles) = spinning(&gate, 3);
        for _ in 0..20 {
            gate.open();
            assert!(moves(&turns));
            gate.shut(|| ()).unwrap();
            let before = turns.load(Ordering::SeqCst);
            thread::sleep(Duration::from_millis(2));
            assert_eq!(turns.load(Ordering::SeqCst), before);
        }
        gate.end(|| ()).unwrap();
        gate.open();
        handles.into_iter().for_each(|h| h.join().unwrap());
    }

    #[test]
    fn a_panic_beyond_the_gate_counts_as_leaving() {
        let gate = Arc::new(Gate::new());
        gate.open();
        let inside = gate.clone();
        let died = thread::spawn(move || {
            let _pass = inside.enter();
            std::panic::resume_unwind(Box::new("on purpose"));
        });
        assert!(died.join().is_err());
        assert_eq!(gate.end(|| ()), Ok(()));
        assert!(gate.enter().is_none());
    }
}
