//! Detects guests that keep the VMM busy without progress: exit storms, and queue notifications without buffers.
//!
//! Progress, not speed, is what counts: a descriptor chain that a device has served, or a byte on the console (until its
//! limit). A busy guest makes two exits for each interrupt that follows such progress, and a booting one a thousand exits
//! in all. An *exit storm* is `STORM_WINDOWS` windows of `WINDOW_EXITS` exits in a row, each of them fast and almost
//! without progress. Only the thread of the vCPU in the storm is throttled, so even a false positive keeps running, and
//! the storm is over as soon as the guest makes progress.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};
use vm_spec::control::WatchdogStats;

/// Exits per window; the clock is read once in each.
const WINDOW_EXITS: u32 = 4096;
/// A window with at least this much progress is no part of a storm.
const WINDOW_PROGRESS: u64 = WINDOW_EXITS as u64 / 16;
/// A window that took longer is no part of a storm: less than 20 000 exits a second.
const WINDOW_TIME: Duration = Duration::from_millis(WINDOW_EXITS as u64 / 20);
/// Bad windows in a row that make a storm: 131 072 exits.
const STORM_WINDOWS: u32 = 32;
/// How long a vCPU in a storm sleeps after each exit: about a thousand exits a second remain.
pub const THROTTLE: Duration = Duration::from_millis(1);
/// Notifications in a row without a served chain before the queue's handler is suspended.
pub const USELESS_NOTIFICATIONS_MAX: u32 = 256;
/// How long it is suspended: too short for a well-behaved driver to notice.
pub const NOTIFICATION_PAUSE: Duration = Duration::from_millis(2);

/// Progress and counters, shared by all threads.
#[derive(Debug, Default)]
pub struct Watchdog {
    progress: AtomicU64,
    storms: AtomicU64,
    throttled: AtomicU64,
    silenced: AtomicU64,
}

impl Watchdog {
    /// A device has made `amount` of progress.
    pub fn record_progress(&self, amount: u64) {
        self.progress.fetch_add(amount, Ordering::Relaxed);
    }

    /// All progress so far.
    pub fn progress(&self) -> u64 {
        self.progress.load(Ordering::Relaxed)
    }

    /// A queue's handler was suspended.
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

/// Measures the exits of one vCPU.
#[derive(Debug)]
pub struct ExitMeter {
    exits: u32,
    window_start: Instant,
    progress: u64,
    bad_windows: u32,
    /// Throttling in this window, which does not count as the guest's time.
    throttled: Duration,
}

impl ExitMeter {
    /// Starts a window at `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            exits: 0,
            window_start: now,
            progress: 0,
            bad_windows: 0,
            throttled: Duration::ZERO,
        }
    }

    /// Counts one exit; `true` if the caller must wait for [`THROTTLE`].
    pub fn exit(&mut self, watchdog: &Watchdog, now: impl FnOnce() -> Instant) -> bool {
        self.exits += 1;
        if self.exits == WINDOW_EXITS {
            self.end_window(watchdog, now());
        }
        let in_storm = self.bad_windows >= STORM_WINDOWS;
        if in_storm {
            self.throttled += THROTTLE;
            watchdog.throttled.fetch_add(1, Ordering::Relaxed);
        }
        in_storm
    }

    fn end_window(&mut self, watchdog: &Watchdog, now: Instant) {
        let progress = watchdog.progress();
        let busy = now.saturating_duration_since(self.window_start).saturating_sub(self.throttled);
        if busy < WINDOW_TIME && progress - self.progress < WINDOW_PROGRESS {
            self.bad_windows = self.bad_windows.saturating_add(1);
            if self.bad_windows == STORM_WINDOWS {
                watchdog.storms.fetch_add(1, Ordering::Relaxed);
            }
        } else {
            self.bad_windows = 0;
        }
        *self = Self {
            bad_windows: self.bad_windows,
            progress,
            ..Self::new(now)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `exits` exits, `gap` apart, each with `progress(i)`; counts those that were throttled.
    fn run(watchdog: &Watchdog, meter: &mut ExitMeter, clock: &mut Instant, exits: u32, gap: Duration, progress: fn(u32) -> u64) -> u32 {
        let mut throttled = 0;
        for i in 0..exits {
            *clock += gap;
            watchdog.record_progress(progress(i));
            if meter.exit(watchdog, || *clock) {
                *clock += THROTTLE;
                throttled += 1;
            }
        }
        throttled
    }

    const FAST: Duration = Duration::from_micros(2);
    const STORM_EXITS: u32 = STORM_WINDOWS * WINDOW_EXITS;

    fn start() -> (Watchdog, ExitMeter, Instant) {
        let now = Instant::now();
        (Watchdog::default(), ExitMeter::new(now), now)
    }

    #[test]
    fn a_storm_is_throttled_until_the_guest_makes_progress() {
        let (watchdog, mut meter, mut clock) = start();
        assert_eq!(run(&watchdog, &mut meter, &mut clock, STORM_EXITS - 1, FAST, |_| 0), 0);
        assert_eq!(watchdog.stats().storms, 0);
        assert_eq!(
            run(&watchdog, &mut meter, &mut clock, 3 * WINDOW_EXITS, FAST, |_| 0),
            3 * WINDOW_EXITS,
            "throttling does not end the storm"
        );
        assert_eq!(watchdog.stats().storms, 1);
        let throttled = run(&watchdog, &mut meter, &mut clock, 2 * WINDOW_EXITS, FAST, |i| u64::from(i % 2 == 0));
        assert!(throttled <= WINDOW_EXITS, "{throttled}");
        assert_eq!(run(&watchdog, &mut meter, &mut clock, WINDOW_EXITS, FAST, |_| 0), 0);
    }

    #[test]
    fn each_storm_is_counted() {
        let (watchdog, mut meter, mut clock) = start();
        for storms in 1..=3 {
            run(&watchdog, &mut meter, &mut clock, STORM_EXITS, FAST, |_| 0);
            assert_eq!(watchdog.stats().storms, storms);
            run(&watchdog, &mut meter, &mut clock, 2 * WINDOW_EXITS, FAST, |i| u64::from(i % 2 == 0));
        }
    }

    /// Exits, the time between them, and the progress of each.
    type Workload = (u32, Duration, fn(u32) -> u64);

    /// Two exits for each interrupt of a busy disk; three for each character of the console; a slow poll; a whole boot.
    #[test]
    fn well_behaved_guests_are_not_throttled() {
        let workloads: [Workload; 4] = [
            (20 * STORM_EXITS, FAST, |i| u64::from(i % 2 == 0)),
            (20 * STORM_EXITS, FAST, |i| u64::from(i % 3 == 0)),
            (20 * STORM_EXITS, Duration::from_micros(51), |_| 0),
            (100_000, Duration::ZERO, |_| 0),
        ];
        for (exits, gap, progress) in workloads {
            let (watchdog, mut meter, mut clock) = start();
            assert_eq!(run(&watchdog, &mut meter, &mut clock, exits, gap, progress), 0, "{gap:?}");
            assert_eq!(watchdog.stats(), WatchdogStats::default());
        }
    }
}
