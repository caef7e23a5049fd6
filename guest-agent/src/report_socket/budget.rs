//! How often a container may ask.

use std::time::Duration;

use tokio::time::Instant;

/// Requests that may come at once after a while without any.
const BURST: u32 = 8;
/// Each of these brings one more.
const REFILL: Duration = Duration::from_secs(1);

/// A token bucket.
#[derive(Debug)]
pub struct Budget {
    left: u32,
    /// Until when `left` is counted.
    since: Instant,
}

impl Budget {
    /// For a container that has not asked yet.
    pub fn full(now: Instant) -> Self {
        Self { left: BURST, since: now }
    }

    /// Whether a request at `now` is within the budget.
    pub fn take(&mut self, now: Instant) -> bool {
        let whole = now.saturating_duration_since(self.since).as_secs() / REFILL.as_secs();
        let refills = u32::try_from(whole).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(refills).min(BURST);
        self.since += REFILL * refills;
        let has_some = self.left > 0;
        self.left = self.left.saturating_sub(1);
        has_some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_and_then_the_rate() {
        let start = Instant::now();
        let mut budget = Budget::full(start);
        let taken = |budget: &mut Budget, at| (0..20).filter(|_| budget.take(start + Duration::from_millis(at))).count();
        assert_eq!(taken(&mut budget, 0), 8);
        assert_eq!(taken(&mut budget, 999), 0);
        assert_eq!(taken(&mut budget, 1000), 1);
        assert_eq!(taken(&mut budget, 3500), 2);
        assert_eq!(taken(&mut budget, 3999), 0);
        assert_eq!(taken(&mut budget, 4000), 1);
        assert_eq!(taken(&mut budget, 3_600_000), 8);
    }
}
