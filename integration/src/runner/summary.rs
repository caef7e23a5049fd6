//! The results of the stories on one Debian.

use crate::{lab::Runtime, runner::Done, stories::report::Outcome};
use std::ops::AddAssign;
use std::time::{Duration, Instant};

/// Numbers of tests or stories by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All that passed.
    pub passed: usize,
    /// What failed.
    pub failed: usize,
    /// How many of `passed` passed only when repeated after a fault of the emulator.
    pub after_faults: usize,
    /// Tests that could not run on this machine; a story is never skipped.
    pub skipped: usize,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.after_faults += other.after_faults;
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
    /// The results of stories that began at `started`.
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

    /// Wall time of all stories.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Numbers by outcome.
    pub fn counts(&self) -> Counts {
        let count = |outcome| self.done.iter().filter(|done| done.report.outcome == outcome).count();
        Counts {
            passed: count(Outcome::Passed),
            failed: count(Outcome::Failed),
            after_faults: self.done.iter().filter(|done| done.passed_after_faults()).count(),
            skipped: 0,
        }
    }

    /// Whether every run of that story on our runtime passed; `None` where there was none.
    pub fn passed(&self, story: &str) -> Option<bool> {
        let runs = self
            .done
            .iter()
            .filter(|done| done.task.story.name == story && done.task.runtime == Runtime::Casemate);
        runs.map(|done| done.report.outcome == Outcome::Passed)
            .reduce(|all, one| all && one)
    }

    /// A line for each story that failed or needed another attempt.
    pub fn remarks(&self) -> Vec<String> {
        let remarkable = self
            .done
            .iter()
            .filter(|done| done.report.outcome != Outcome::Passed || !done.faults.is_empty());
        remarkable
            .map(|done| line(done).lines().next().unwrap_or_default().to_owned())
            .collect()
    }

    /// The remarks and the line of counts.
    pub fn table(&self) -> String {
        let Counts {
            passed,
            failed,
            skipped,
            after_faults,
        } = self.counts();
        let remarks: String = self.remarks().iter().map(|remark| format!("{remark}\n")).collect();
        let seconds = self.took.as_secs_f32();
        format!(
            "{remarks}stories on {}, in {seconds:.0} s; {after_faults} passed after emulator faults\n\
             {passed} passed, {failed} failed, {skipped} skipped\n",
            self.machine
        )
    }
}

impl Done {
    fn passed_after_faults(&self) -> bool {
        self.report.outcome == Outcome::Passed && !self.faults.is_empty()
    }
}

/// The result of one story; for a failed one, with the last lines of the consoles.
pub fn line(done: &Done) -> String {
    let word = match done.report.outcome {
        Outcome::Passed => "ok     ",
        Outcome::Failed => "failed:",
    };
    let faults: Vec<String> = done.faults.iter().map(|fault| fault.to_string()).collect();
    let passed = if done.report.outcome == Outcome::Passed { "passed " } else { "" };
    let faults = match faults.len() {
        0 => String::new(),
        1 => format!(" ({passed}after 1 emulator fault: {})", faults[0]),
        n => format!(" ({passed}after {n} emulator faults: {})", faults.join("; ")),
    };
    let reason = if done.report.message.is_empty() {
        String::new()
    } else {
        format!(": {}", done.report.message)
    };
    format!("{word} {} {:.1} s{faults}{reason}", done.task.title(), done.took.as_secs_f32())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lab::{Scope, Set},
        runner::{Task, faults::Fault},
        stories::{self, report::Report},
    };

    fn done(outcome: Outcome, faults: Vec<Fault>) -> Done {
        let scope = Scope {
            set: Set::Short,
            part: 1,
            parts: 1,
            seed: 1,
        };
        Done {
            task: Task {
                story: stories::find("run").unwrap(),
                runtime: Runtime::Casemate,
                scope,
            },
            report: Report {
                outcome,
                message: String::new(),
                seconds: 1.0,
            },
            took: Duration::from_secs(2),
            faults,
        }
    }

    #[test]
    fn a_story_that_passed_after_a_fault_is_counted_and_named() {
        let fault = Fault::Hung(Duration::from_secs(120));
        let summary = Summary::of(
            "trixie",
            Instant::now(),
            vec![
                done(Outcome::Passed, Vec::new()),
                done(Outcome::Passed, vec![fault]),
                done(Outcome::Failed, vec![fault, fault]),
            ],
        );
        let counts = summary.counts();
        assert_eq!((counts.passed, counts.failed, counts.after_faults), (2, 1, 1));
        let text = summary.table();
        assert!(
            text.contains("run (casemate) 2.0 s (passed after 1 emulator fault: hung, silent for 120s)"),
            "{text}"
        );
        assert_eq!(text.lines().last(), Some("2 passed, 1 failed, 0 skipped"));
    }
}
