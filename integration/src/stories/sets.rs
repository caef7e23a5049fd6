//! Which stories only `make test-all` tells, which it spreads over several machines, and how long each may take.
//!
//! A story that is not in the table is short: it is told in both sets, whole, in one machine.

use super::{Runtime, Story};
use crate::lab::{Scope, Set};
use std::time::Duration;

/// The longest short story, several times over.
const SHORT_LIMIT: Duration = Duration::from_secs(900);

/// How the full set treats a story.
struct Long {
    name: &'static str,
    /// Told by the full set only.
    only: bool,
    /// Machines that share its rounds, on each Debian; `None`: each Debian tells all of them.
    spread: Option<u32>,
    /// Limit of one machine in the full set, in minutes; some four times what it needs.
    minutes: u64,
}

const fn spread(name: &'static str, machines: u32, minutes: u64) -> Long {
    Long {
        name,
        only: false,
        spread: Some(machines),
        minutes,
    }
}

const fn only(name: &'static str, minutes: u64) -> Long {
    Long {
        name,
        only: true,
        spread: None,
        minutes,
    }
}

/// Told by the full set only, its rounds spread over machines.
const fn only_spread(name: &'static str, machines: u32, minutes: u64) -> Long {
    Long {
        only: true,
        ..spread(name, machines, minutes)
    }
}

const LONG: &[Long] = &[
    only("hostile-host-full", 30),
    only_spread("growth-sequential", 1, 60),
    only("growth-parallel", 20),
    only("clock-steps", 20),
    only("slow-reader", 15),
    only("gigabyte", 30),
    spread("vmm-killed-anywhere", 4, 20),
    only_spread("shim-killed-anywhere", 4, 20),
    only_spread("containerd-killed", 6, 20),
    spread("exec-killed", 2, 20),
    spread("start-starved", 2, 20),
    only_spread("cache-full", 2, 20),
    spread("run-full", 2, 20),
];

/// Debians on which the full set is told: parts are counted over all of them.
pub const DEBIANS: u32 = 2;

fn long(story: &Story) -> Option<&'static Long> {
    LONG.iter().find(|long| long.name == story.name)
}

/// How `story` is told in `set` on the Debian number `debian` (from 0): one scope for each machine; none if it is not.
pub fn scopes(story: &Story, set: Set, debian: u32, seed: u64) -> Vec<Scope> {
    let whole = Scope {
        set,
        part: 1,
        parts: 1,
        seed,
    };
    match (long(story), set) {
        (Some(Long { only: true, .. }), Set::Short) => Vec::new(),
        (Some(Long { spread: Some(n), .. }), Set::Full) => (1..=*n)
            .map(|part| Scope {
                part: debian * n + part,
                parts: DEBIANS * n,
                ..whole
            })
            .collect(),
        _ => vec![whole],
    }
}

/// After this time a machine that tells `story` is cut off.
pub fn limit(story: &Story, set: Set) -> Duration {
    match (long(story), set) {
        (Some(long), Set::Full) => Duration::from_secs(long.minutes * 60),
        _ => SHORT_LIMIT,
    }
}

/// Whether other stories may be told in the same machine before and after: all but long ones, as each makes sure at its
/// end that it leaves nothing.
pub fn shares_machine(story: &Story, set: Set) -> bool {
    set == Set::Short || long(story).is_none()
}

/// Whether a story is told on this runtime and Debian. On runc it is the story that is tested: once is enough. Besides, runc's
/// shim of containerd 1.7 panics when an init ends that has had execs ("makechan: size out of range" in `handleInitExit`).
pub fn is_told(runtime: Runtime, debian: u32) -> bool {
    runtime != Runtime::Runc || debian == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stories::ALL;

    #[test]
    fn the_table_names_stories() {
        for long in LONG {
            assert!(ALL.iter().any(|story| story.name == long.name), "no story is called {}", long.name);
        }
    }

    #[test]
    fn every_round_of_a_spread_story_is_told_once() {
        let spread = |story: &'static Story| Some((story, long(story).filter(|long| long.spread.is_some())?));
        for (story, long) in ALL.iter().filter_map(spread) {
            let told = (0..DEBIANS).flat_map(|debian| scopes(story, Set::Full, debian, 1));
            assert_eq!(told.map(|scope| scope.rounds(1, 200)).sum::<u32>(), 200, "{}", story.name);
            assert_eq!(scopes(story, Set::Short, 0, 1).len(), usize::from(!long.only));
        }
    }
}
