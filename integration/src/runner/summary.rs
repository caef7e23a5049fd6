//! What came of the stories told on one machine.

use crate::{runner::Done, stories::report::Outcome};
use std::ops::AddAssign;
use std::time::{Duration, Instant};

/// How many passed, failed and were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// As they should be.
    pub passed: usize,
    /// Not as they should be.
    pub failed: usize,
    /// Could not be run here.
    pub skipped: usize,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Results of the stories on one machine.
pub struct Summary {
    machine: String,
    done: Vec<Done>,
    took: Duration,
}

impl Summary {
    /// Takes the results of stories that began to be told at `started`.
    pub fn of(machine: &str, started: Instant, done: Vec<Done>) -> Self {
        Self {
            machine: machine.to_owned(),
            done,
            took: started.elapsed(),
        }
    }

    /// The machine's name.
    pub fn machine(&self) -> &str {
        &self.machine
    }

    /// Wall time of all.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// How many of each.
    pub fn counts(&self) -> Counts {
        let count = |outcome| self.done.iter().filter(|done| done.report.outcome == outcome).count();
        Counts {
            passed: count(Outcome::Passed),
            failed: count(Outcome::Failed),
            skipped: count(Outcome::Skipped),
        }
    }

    /// A line for each story that did not simply pass.
    pub fn remarks(&self) -> Vec<String> {
        let worth_a_word = self
            .done
            .iter()
            .filter(|done| done.report.outcome != Outcome::Passed || done.retries > 0);
        worth_a_word
            .map(|done| line(done).lines().next().unwrap_or_default().to_owned())
            .collect()
    }

    /// The remarks and the line of counts.
    pub fn table(&self) -> String {
        let Counts { passed, failed, skipped } = self.counts();
        let remarks: String = self.remarks().iter().map(|remark| format!("{remark}\n")).collect();
        let seconds = self.took.as_secs_f32();
        format!(
            "{remarks}stories on {}: {passed} passed, {failed} failed, {skipped} skipped in {seconds:.0} s\n",
            self.machine
        )
    }
}

/// One story's result; for one that failed, with all there is to see.
pub fn line(done: &Done) -> String {
    let word = match done.report.outcome {
        Outcome::Passed => "ok     ",
        Outcome::Failed => "failed:",
        Outcome::Skipped => "skipped:",
    };
    let retried = match done.retries {
        0 => String::new(),
        n => format!(" (attempt {}: the machine broke down before)", n + 1),
    };
    let reason = if done.report.message.is_empty() {
        String::new()
    } else {
        format!(": {}", done.report.message)
    };
    format!("{word} {} {:.1} s{retried}{reason}", done.task.title(), done.took.as_secs_f32())
}
