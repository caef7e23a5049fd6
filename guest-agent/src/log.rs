//! The agent's log: lines on the console, which the host can read. They contain only ids, names of enforcement points and digests, and
//! stop once the policy denies runtime logging.

use std::{
    fmt::Display,
    sync::atomic::{AtomicBool, Ordering},
};

/// Before a policy is set there is nothing to protect, and a failure to start must be visible.
static KEPT_INSIDE: AtomicBool = AtomicBool::new(false);

/// Decides for good whether lines are written.
pub fn decide(goes_out: bool) {
    KEPT_INSIDE.store(!goes_out, Ordering::Relaxed);
}

/// Writes a line, if logging is on.
pub fn line(text: impl Display) {
    if !KEPT_INSIDE.load(Ordering::Relaxed) {
        eprintln!("agent: {text}");
    }
}
