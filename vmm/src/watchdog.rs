//! Notices a guest that keeps the VMM busy without getting anything done: exits without end, doorbells rung for nothing.
//!
//! Work is what counts, not speed: a chain that a device has served, or a byte on the console (as long as it has room). A busy guest makes two
//! exits for each interrupt that follows such work, and a booting one a thousand exits in all. A *storm* is
//! [`STORM_WINDOWS`] windows of [`WINDOW_EXITS`] exits in a row, each of them fast and almost without work. Only the
//! thread of a vCPU that storms is slowed down, so even a guest judged wrongly goes on, and stops storming by working.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};
use vm_spec::{Watchdog as Action, control::WatchdogStats};

/// Exits between two looks at the clock.
const WINDOW_EXITS: u32 = 4096;
/// A window with at least this much work is an honest one.
const WINDOW_WORK: u64 = WINDOW_EXITS as u64 / 16;
/// A window that took longer is no burden: 20 000 exits a second.
const WINDOW_TIME: Duration = Duration::from_millis(WINDOW_EXITS as u64 / 20);
/// Bad windows in a row that are a storm: 131 072 exits.
const STORM_WINDOWS: u32 = 32;
/// How long a storming vCPU waits after each exit.
pub const THROTTLE: Duration = Duration::from_millis(1);
/// Doorbells in a row that led to nothing before that queue is not listened to for a moment.
pub const USELESS_NOTIFICATIONS_MAX: u32 = 256;
/// That moment: short enough that a driver in good faith hardly notices.
pub const NOTIFICATION_PAUSE: Duration = Duration::from_millis(2);

/// What all threads share.
#[derive(Debug, Default)]
pub struct Watchdog {
    action: Action,
    work: AtomicU64,
    storms: AtomicU64,
    throttled: AtomicU64,
    silenced: AtomicU64,
}

impl Watchdog {
    /// A watchdog that does `action` about storms.
    pub fn new(action: Action) -> Self {
        Self { action, ..Self::default() }
    }

    /// A device has done `amount` of work.
    pub fn record_progress(&self, amount: u64) {
        self.work.fetch_add(amount, Ordering::Relaxed);
    }

    /// All work so far.
    pub fn progress(&self) -> u64 {
        self.work.load(Ordering::Relaxed)
    }

    /// A doorbell is not listened to for a moment.
    pub fn record_silenced(&self) {
        self.silenced.fetch_add(1, Ordering::Relaxed);
    }

    /// Counters for the control socket.
    pub fn stats(&self) -> WatchdogStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WatchdogStats {
            storms: read(&self.storms),
            throttled: read(&self.throttled),
            silenced: read(&self.silenced),
        }
    }
}

/// What is to be done after an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Go,
    /// Wait for [`THROTTLE`].
    Wait,
    /// End the VM.
    End,
}

/// Watches the exits of one vCPU.
#[derive(Debug)]
pub struct ExitMeter {
    exits: u32,
    began: Instant,
    work: u64,
    bad_windows: u32,
    /// Waits ordered in this window: no time of the guest's.
    waited: Duration,
}

impl ExitMeter {
    /// A meter at `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            exits: 0,
            began: now,
            work: 0,
            bad_windows: 0,
            waited: Duration::ZERO,
        }
    }

    /// Counts one exit; the clock is asked once in a window.
    pub fn exit(&mut self, watchdog: &Watchdog, now: impl FnOnce() -> Instant) -> Verdict {
        self.exits += 1;
        if self.exits == WINDOW_EXITS {
            self.judge_window(watchdog, now());
        }
        if self.bad_windows < STORM_WINDOWS {
            return Verdict::Go;
        }
        match watchdog.action {
            Action::Report => Verdict::Go,
            Action::Throttle => {
                self.waited += THROTTLE;
                watchdog.throttled.fetch_add(1, Ordering::Relaxed);
                Verdict::Wait
            }
            Action::End => Verdict::End,
        }
    }

    fn judge_window(&mut self, watchdog: &Watchdog, now: Instant) {
        let work = watchdog.progress();
        let busy = now.saturating_duration_since(self.began).saturating_sub(self.waited);
        if busy < WINDOW_TIME && work - self.work < WINDOW_WORK {
            self.bad_windows = self.bad_windows.saturating_add(1);
            if self.bad_windows == STORM_WINDOWS {
                watchdog.storms.fetch_add(1, Ordering::Relaxed);
            }
        } else {
            self.bad_windows = 0;
        }
        *self = Self {
            bad_windows: self.bad_windows,
            work,
            ..Self::new(now)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `exits` exits, `gap` apart, each with `work(i)`; counts the verdicts other than `Go`.
    fn run(watchdog: &Watchdog, meter: &mut ExitMeter, clock: &mut Instant, exits: u32, gap: Duration, work: fn(u32) -> u64) -> u32 {
        let mut stopped = 0;
        for i in 0..exits {
            *clock += gap;
            watchdog.record_progress(work(i));
            match meter.exit(watchdog, || *clock) {
                Verdict::Go => {}
                Verdict::Wait => {
                    *clock += THROTTLE;
                    stopped += 1;
                }
                Verdict::End => stopped += 1,
            }
        }
        stopped
    }

    const FAST: Duration = Duration::from_micros(2);
    const STORM_EXITS: u32 = STORM_WINDOWS * WINDOW_EXITS;

    fn fresh(action: Action) -> (Watchdog, ExitMeter, Instant) {
        let now = Instant::now();
        (Watchdog::new(action), ExitMeter::new(now), now)
    }

    #[test]
    fn a_spinning_guest_is_slowed_down_and_let_go_once_it_works() {
        let (watchdog, mut meter, mut clock) = fresh(Action::Throttle);
        assert_eq!(run(&watchdog, &mut meter, &mut clock, STORM_EXITS - 1, FAST, |_| 0), 0);
        assert_eq!(
            run(&watchdog, &mut meter, &mut clock, 3 * WINDOW_EXITS, FAST, |_| 0),
            3 * WINDOW_EXITS,
            "storms on while slowed down"
        );
        assert_eq!(watchdog.stats().storms, 1);
        let stopped = run(&watchdog, &mut meter, &mut clock, 2 * WINDOW_EXITS, FAST, |i| u64::from(i % 2 == 0));
        assert!(stopped <= WINDOW_EXITS, "{stopped}");
        assert_eq!(run(&watchdog, &mut meter, &mut clock, WINDOW_EXITS, FAST, |_| 0), 0);
    }

    #[test]
    fn the_action_decides() {
        for (action, wanted) in [(Action::Report, 0), (Action::End, 1)] {
            let (watchdog, mut meter, mut clock) = fresh(action);
            assert_eq!(run(&watchdog, &mut meter, &mut clock, STORM_EXITS, FAST, |_| 0), wanted);
            assert_eq!(watchdog.stats().storms, 1);
        }
    }

    /// Exits, the time between them, and the work done by each.
    type Life = (u32, Duration, fn(u32) -> u64);

    /// Two exits for each interrupt of a busy disk; three for each character of the console; a slow poll; a whole boot.
    #[test]
    fn honest_guests_are_left_alone() {
        let honest: [Life; 4] = [
            (20 * STORM_EXITS, FAST, |i| u64::from(i % 2 == 0)),
            (20 * STORM_EXITS, FAST, |i| u64::from(i % 3 == 0)),
            (20 * STORM_EXITS, Duration::from_micros(51), |_| 0),
            (100_000, Duration::ZERO, |_| 0),
        ];
        for (exits, gap, work) in honest {
            let (watchdog, mut meter, mut clock) = fresh(Action::End);
            assert_eq!(run(&watchdog, &mut meter, &mut clock, exits, gap, work), 0, "{gap:?}");
            assert_eq!(watchdog.stats(), WatchdogStats::default());
        }
    }
}
