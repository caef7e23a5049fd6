//! One line on a terminal that says how far something is; nothing where standard error is no terminal.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::{Duration, Instant};

/// How often the line changes.
const INTERVAL: Duration = Duration::from_millis(200);

/// The line. It is gone once this is.
pub struct Line {
    /// When it may change next; `None` without a terminal.
    next: Option<Instant>,
    written: bool,
}

impl Line {
    /// A line that is not written yet.
    pub fn new() -> Self {
        Self {
            next: stderr().is_terminal().then(Instant::now),
            written: false,
        }
    }

    /// Writes it anew, if it is time.
    pub fn update(&mut self, text: impl FnOnce() -> String) {
        let now = Instant::now();
        if self.next.is_some_and(|next| next <= now) {
            // A terminal that is gone is no reason to stop.
            let _ = write!(stderr(), "\r{}\x1b[K", text());
            self.next = Some(now + INTERVAL);
            self.written = true;
        }
    }

    /// Removes it, for other lines.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.written) {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.clear();
    }
}

/// How much of `total` bytes is done, as far as it is known.
pub fn of_bytes(done: u64, total: u64) -> String {
    match (u128::from(done) * 100).checked_div(total.into()) {
        Some(percent) => format!("{:3} % of {} MiB", percent.min(100), total >> 20),
        None => format!("{} MiB", done >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_an_unknown_whole_is_its_size() {
        assert_eq!(of_bytes(3 << 20, 0), "3 MiB");
        assert_eq!(of_bytes(1 << 20, 4 << 20), " 25 % of 4 MiB");
        assert_eq!(of_bytes(u64::MAX, u64::MAX), format!("100 % of {} MiB", u64::MAX >> 20));
        // A file may grow while it is read.
        assert_eq!(of_bytes(9, 3), "100 % of 0 MiB");
    }
}
