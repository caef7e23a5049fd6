//! What `run` and `layer prepare` say while they work: all of it on standard error.

use crate::progress::{Line, of_bytes};
use agent_protocol::escaped;
use container_run::News;
use std::io::{IsTerminal, Write, stderr};

/// Where news are shown.
pub struct Shown {
    quiet: bool,
    line: Line,
}

impl Shown {
    /// `quiet`: of the policy its digest alone, and no steps.
    pub fn new(quiet: bool) -> Self {
        Self { quiet, line: Line::new() }
    }

    /// Steps and the policy's text are for a terminal's reader.
    pub fn show(&mut self, news: News<'_>) {
        if let News::Layers(layers) = news {
            if !self.quiet {
                let bytes = || of_bytes(layers.read, layers.bytes);
                self.line
                    .update(|| format!("layers: {} of {} ready, {}", layers.ready, layers.layers, bytes()));
            }
            return;
        }
        self.line.clear();
        let (quiet, mut stderr) = (self.quiet, stderr());
        let terminal = stderr.is_terminal();
        // The terminal may be raw.
        let end = if terminal { "\r\n" } else { "\n" };
        // A reader that is gone is no reason to stop.
        let _ = match news {
            News::Layers(_) => Ok(()),
            News::Step(_) if quiet || !terminal => Ok(()),
            News::Step(text) | News::Note(text) => write!(stderr, "casemate: {}{end}", escaped(&text)),
            News::Policy { digest, .. } if quiet || !terminal => writeln!(stderr, "policy {}", hex::encode(digest)),
            News::Policy { text, digest } => {
                // It is the text by which the reader judges the image, and the image's author wrote parts of it.
                writeln!(stderr, "{}\n\npolicy {}", escaped(text.trim_end()), hex::encode(digest))
            }
        };
    }
}
