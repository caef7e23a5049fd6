//! One lock around everything that starts a program: an inheritable descriptor would be open in any program started meanwhile.

use std::sync::{Mutex, MutexGuard, PoisonError};

static SPAWNING: Mutex<()> = Mutex::new(());

/// No other part of this process starts a program while the guard lives.
pub fn spawn_lock() -> MutexGuard<'static, ()> {
    // It guards no data that a panic could leave inconsistent.
    SPAWNING.lock().unwrap_or_else(PoisonError::into_inner)
}
