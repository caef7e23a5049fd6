//! What a sandbox has reached, and when: debug lines from which benchmarks see where the time goes.

use std::time::{SystemTime, UNIX_EPOCH};

/// Says at debug level that `point` was reached, with the wall clock in seconds: lines of several processes of one machine can
/// be put in order by it.
pub fn reached(point: &str) {
    if log::log_enabled!(log::Level::Debug)
        && let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH)
    {
        log::debug!("reached {point} {:.6}", now.as_secs_f64());
    }
}
