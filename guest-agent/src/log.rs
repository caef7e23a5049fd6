//! The agent's log: lines on the console, which is the host's to read. So they hold ids, names of points and digests only, and
//! none at all once the policy keeps them inside.

use std::{
    fmt::Display,
    sync::atomic::{AtomicBool, Ordering},
};

/// Before there is a policy nothing of anybody's has happened, and why a guest does not begin must be seen.
static KEPT_INSIDE: AtomicBool = AtomicBool::new(false);

/// Decides for good whether lines go out.
pub fn decide(goes_out: bool) {
    KEPT_INSIDE.store(!goes_out, Ordering::Relaxed);
}

/// Writes a line, if lines go out.
pub fn line(text: impl Display) {
    if !KEPT_INSIDE.load(Ordering::Relaxed) {
        eprintln!("agent: {text}");
    }
}
