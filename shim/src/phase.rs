//! What a sandbox has reached, and when: debug lines from which benchmarks see where the time goes.

use nix::time::{ClockId, clock_gettime};

/// Says at debug level that `point` was reached, and the monotonic clock in seconds, by which lines of several processes can
/// be put in order.
pub fn reached(point: &str) {
    if log::log_enabled!(log::Level::Debug)
        && let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC)
    {
        log::debug!("reached {point} {}.{:09}", now.tv_sec(), now.tv_nsec());
    }
}
