//! Says what a slow step is doing: one line that moves on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often a step that is not on a terminal says that it is alive.
const QUIET: Duration = Duration::from_secs(30);

/// A running step.
pub struct Step {
    name: String,
    started: Instant,
    spoken: Instant,
    terminal: bool,
}

impl Step {
    /// Announces the step.
    pub fn start(name: impl Into<String>) -> Self {
        let name = name.into();
        let terminal = std::io::stderr().is_terminal();
        eprintln!("==> {name}");
        Self {
            name,
            started: Instant::now(),
            spoken: Instant::now(),
            terminal,
        }
    }

    /// Shows where the step is.
    pub fn at(&mut self, what: std::fmt::Arguments<'_>) {
        let seconds = self.started.elapsed().as_secs();
        if self.terminal {
            eprint!("\r\x1b[K    {what} ({seconds} s)");
            let _ = std::io::stderr().flush();
        } else if self.spoken.elapsed() >= QUIET {
            eprintln!("    {what} ({seconds} s)");
            self.spoken = Instant::now();
        }
    }

    /// Says that the step is done and how long it took.
    pub fn done(self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
        eprintln!("    {}: {:.1} s", self.name, self.started.elapsed().as_secs_f32());
    }
}
