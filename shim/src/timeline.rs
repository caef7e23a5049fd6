//! Time marks of a start-up, as debug lines: benchmarks read from them where the time goes.

use std::time::{SystemTime, UNIX_EPOCH};

/// Logs that `point` was reached, with the wall clock in seconds, so that lines of several processes can be put in order.
pub fn reached(point: &str) {
    if log::log_enabled!(log::Level::Debug)
        && let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH)
    {
        log::debug!("reached {point} {:.6}", now.as_secs_f64());
    }
}
