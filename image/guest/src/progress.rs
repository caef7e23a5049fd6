//! Progress of slow steps: an updated line on a terminal, an occasional line elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Interval between progress lines without a terminal.
const INTERVAL: Duration = Duration::from_secs(30);

/// A running step.
pub struct Step {
    name: String,
    started: Instant,
    printed: Instant,
    terminal: bool,
}

impl Step {
    /// Starts a step and prints its name.
    pub fn start(name: impl Into<String>) -> Self {
        let name = name.into();
        let terminal = std::io::stderr().is_terminal();
        eprintln!("==> {name}");
        Self {
            name,
            started: Instant::now(),
            printed: Instant::now(),
            terminal,
        }
    }

    /// Shows the step's progress.
    pub fn at(&mut self, what: std::fmt::Arguments<'_>) {
        let seconds = self.started.elapsed().as_secs();
        if self.terminal {
            eprint!("\r\x1b[K    {what} ({seconds} s)");
            let _ = std::io::stderr().flush();
        } else if self.printed.elapsed() >= INTERVAL {
            eprintln!("    {what} ({seconds} s)");
            self.printed = Instant::now();
        }
    }

    /// Prints how long the step took.
    pub fn done(self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
        eprintln!("    {}: {:.1} s", self.name, self.started.elapsed().as_secs_f32());
    }
}
