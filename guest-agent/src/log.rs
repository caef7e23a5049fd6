//! The agent's log: lines on the console, which the host can read, as it can the kernel's errors there. The agent's lines contain only ids, names of enforcement points and digests, and
//! stop once the policy denies runtime logging.

use std::{
    fmt::Display,
    sync::atomic::{AtomicBool, Ordering},
};

/// Before a policy is set there is nothing to protect, and a failure to start must be visible.
static KEPT_INSIDE: AtomicBool = AtomicBool::new(false);

/// Console log level: errors and more severe (`printk`(9) levels below 4), as with `quiet`.
const KERNEL_ERRORS: &str = "4";

/// Decides for good whether lines are written.
pub fn decide(goes_out: bool) {
    KEPT_INSIDE.store(!goes_out, Ordering::Relaxed);
}

/// Lets the kernel's errors out where the agent's lines go out; the command line has silenced the console. Their texts name processes
/// of containers, and some quote what these passed to the kernel.
pub fn follow_with_kernel() {
    if !KEPT_INSIDE.load(Ordering::Relaxed) {
        // Without this setting they stay in the kernel's buffer.
        let _ = std::fs::write("/proc/sys/kernel/printk", KERNEL_ERRORS);
    }
}

/// Writes a line, if logging is on.
pub fn line(text: impl Display) {
    if !KEPT_INSIDE.load(Ordering::Relaxed) {
        eprintln!("agent: {text}");
    }
}
