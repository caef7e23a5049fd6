//! The last lines of a run: each story with its time, and the counts.

use crate::{runner::Done, stories::Outcome};
use std::fmt::Write;
use std::time::{Duration, Instant};

/// Results of one suite.
pub struct Summary {
    suite: String,
    started: Instant,
    done: Vec<Done>,
}

impl Summary {
    /// Starts the suite's clock.
    pub fn new(suite: &str) -> Self {
        Self { suite: suite.to_owned(), started: Instant::now(), done: Vec::new() }
    }

    /// Takes the results.
    pub fn add_all(&mut self, done: Vec<Done>) {
        self.done.extend(done);
    }

    /// How many failed.
    pub fn failed(&self) -> usize {
        self.count(Outcome::Failed)
    }

    fn count(&self, outcome: Outcome) -> usize {
        self.done.iter().filter(|done| done.report.outcome == outcome).count()
    }

    /// Skipped and failed stories with their reason, and the line of counts.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let slow = self.done.iter().map(|done| done.took).max().unwrap_or(Duration::ZERO);
        for done in self.done.iter().filter(|done| done.report.outcome != Outcome::Passed || done.retried) {
            let _ = writeln!(text, "stories/{}: {}", self.suite, line(done).lines().next().unwrap_or_default());
        }
        let _ = writeln!(
            text,
            "stories/{}: {} passed, {} failed, {} skipped in {:.0} s (slowest {:.0} s)",
            self.suite,
            self.count(Outcome::Passed),
            self.failed(),
            self.count(Outcome::Skipped),
            self.started.elapsed().as_secs_f32(),
            slow.as_secs_f32()
        );
        text
    }
}

/// One story's result; for one that failed, with all there is to see.
pub fn line(done: &Done) -> String {
    let word = match done.report.outcome {
        Outcome::Passed => "ok   ",
        Outcome::Failed => "FAIL ",
        Outcome::Skipped => "skip ",
    };
    let retried = if done.retried { " (second attempt: the machine hung)" } else { "" };
    let reason = if done.report.message.is_empty() { String::new() } else { format!(": {}", done.report.message) };
    format!("{word} {} {:.1} s{retried}{reason}", done.task.title(), done.took.as_secs_f32())
}
