//! A story: what it shows, where and in which set it runs, how many machines share its rounds, and its function.

use crate::lab::{Lab, Runtime, Scope, Set};
use anyhow::Result;
use std::time::Duration;

/// On both runtimes: what fails on runc is a fault of the story.
pub const BOTH: &[Runtime] = &[Runtime::Runc, Runtime::Casemate];
/// On this runtime only.
pub const OURS: &[Runtime] = &[Runtime::Casemate];
/// Debian suites on which the full set runs; the parts of a story are numbered over all of them.
pub const DEBIANS: u32 = 3;
/// Time limit of a shared machine, several times what the longest story of the short set takes.
const SHORT_LIMIT: Duration = Duration::from_secs(900);

/// A story.
pub struct Story {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it shows, in one sentence.
    pub about: &'static str,
    /// Where it can run.
    pub runtimes: &'static [Runtime],
    /// The smallest set that contains it.
    pub set: Set,
    /// Its machines in the full set. The short set runs every story whole, in a machine that it shares with others.
    pub machines: Machines,
    /// The story itself; its error is the failure's reason.
    pub run: fn(&Lab) -> Result<()>,
}

/// The machines of a story in the full set. Time limits are about four times what one machine needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machines {
    /// A machine that other stories use before and after: each story checks at its end that it leaves nothing behind.
    Shared,
    /// One machine per Debian for this story alone, with a time limit in minutes.
    Own {
        /// The time limit.
        minutes: u64,
    },
    /// Several machines per Debian, each with a part of the rounds.
    Spread {
        /// How many per Debian.
        machines: u32,
        /// The time limit of each.
        minutes: u64,
    },
}

impl Story {
    /// The scopes with which the story runs in `set` on Debian number `debian` (from 0), one for each machine; empty if it does not run.
    pub fn scopes(&self, set: Set, debian: u32, seed: u64) -> Vec<Scope> {
        let whole = Scope {
            set,
            part: 1,
            parts: 1,
            seed,
        };
        match (set, self.set, self.machines) {
            (Set::Short, Set::Full, _) => Vec::new(),
            (Set::Full, _, Machines::Spread { machines, .. }) => (1..=machines)
                .map(|part| Scope {
                    part: debian * machines + part,
                    parts: DEBIANS * machines,
                    ..whole
                })
                .collect(),
            _ => vec![whole],
        }
    }

    /// After this time a machine that runs the story is stopped.
    pub fn limit(&self, set: Set) -> Duration {
        match (set, self.machines) {
            (Set::Full, Machines::Own { minutes } | Machines::Spread { minutes, .. }) => Duration::from_secs(minutes * 60),
            _ => SHORT_LIMIT,
        }
    }

    /// Whether other stories may run in the same machine before and after.
    pub fn shares_machine(&self, set: Set) -> bool {
        set == Set::Short || self.machines == Machines::Shared
    }
}

/// Whether stories run on this runtime and Debian. Runs on runc test the story, so one Debian is enough. Besides, runc's
/// shim of containerd 1.7 and 2.1 panics when an init exits that has had execs ("makechan: size out of range" in `handleInitExit`).
pub fn runs_on(runtime: Runtime, debian: u32) -> bool {
    runtime != Runtime::Runc || debian == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn story(set: Set, machines: Machines) -> Story {
        Story {
            name: "x",
            about: "x",
            runtimes: BOTH,
            set,
            machines,
            run: |_| Ok(()),
        }
    }

    #[test]
    fn every_round_of_a_spread_story_runs_once() {
        for machines in [1, 2, 4, 6] {
            let story = story(Set::Full, Machines::Spread { machines, minutes: 1 });
            let scopes = (0..DEBIANS).flat_map(|debian| story.scopes(Set::Full, debian, 1));
            assert_eq!(scopes.map(|scope| scope.rounds(1, 200)).sum::<u32>(), 200, "{machines} machines");
            assert!(story.scopes(Set::Short, 0, 1).is_empty());
        }
    }

    #[test]
    fn the_short_set_runs_a_story_whole_in_a_shared_machine() {
        let story = story(Set::Short, Machines::Spread { machines: 4, minutes: 1 });
        assert_eq!(story.scopes(Set::Short, 0, 1).len(), 1);
        assert!(story.shares_machine(Set::Short) && !story.shares_machine(Set::Full));
        assert_eq!(story.limit(Set::Short), SHORT_LIMIT);
        assert_eq!(story.limit(Set::Full), Duration::from_secs(60));
    }
}
