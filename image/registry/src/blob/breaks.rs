//! The breaks of one blob's connections: how long until the next one, and when it is enough.

use std::time::Duration;
use tokio::time::Instant;

/// Most connections in a row that bring nothing new. With the pauses between them, a registry has half a minute to come back.
const IDLE_MAX: u32 = 12;
/// Pause before a connection that follows one with an answer; it doubles while there is none.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What is left of the patience with a blob's registry.
pub(super) struct Breaks {
    /// Connections since the last new byte.
    idle: u32,
    pause: Duration,
}

impl Breaks {
    pub(super) fn new() -> Self {
        Self { idle: 0, pause: PAUSE_MIN }
    }

    /// Whether the next connection takes the place of one that broke.
    pub(super) fn is_resuming(&self) -> bool {
        self.idle > 0
    }

    /// The registry is there.
    pub(super) fn answered(&mut self) {
        self.pause = PAUSE_MIN;
    }

    /// There are new bytes.
    pub(super) fn progressed(&mut self) {
        self.idle = 0;
    }

    /// Waits after a break, at most until the blob's time is over. `false`: another connection is not worth it.
    pub(super) async fn wait(&mut self, until: Instant) -> bool {
        if self.idle == IDLE_MAX {
            return false;
        }
        self.idle += 1;
        tokio::time::sleep_until(until.min(Instant::now() + self.pause)).await;
        self.pause = PAUSE_MAX.min(self.pause * 2);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds that a wait takes; `None` if there is none.
    async fn waited(breaks: &mut Breaks, until: Instant) -> Option<f64> {
        let start = Instant::now();
        breaks.wait(until).await.then(|| start.elapsed().as_secs_f64())
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_while_there_is_no_answer() {
        let until = Instant::now() + Duration::from_secs(1000);
        let mut breaks = Breaks::new();
        assert!(!breaks.is_resuming());
        for expected in [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0] {
            assert_eq!(waited(&mut breaks, until).await, Some(expected));
            assert!(breaks.is_resuming());
        }
        breaks.answered();
        for expected in [0.1, 0.2, 0.4, 0.8] {
            assert_eq!(waited(&mut breaks, until).await, Some(expected));
        }
        assert_eq!(waited(&mut breaks, until).await, None, "answers without new bytes do not count");
    }

    #[tokio::test(start_paused = true)]
    async fn new_bytes_are_worth_more_connections_and_more_time_is_not() {
        let mut breaks = Breaks::new();
        let until = Instant::now() + Duration::from_secs(30);
        for _ in 0..100 {
            breaks.answered();
            breaks.progressed();
            assert_eq!(waited(&mut breaks, until).await, Some(0.1));
        }
        for _ in 0..7 {
            breaks.wait(until).await;
        }
        assert_eq!(waited(&mut breaks, Instant::now()).await, Some(0.0));
    }
}
