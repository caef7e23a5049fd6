//! A point in time, as tar entries carry it and ext4 stores it.

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// A point in time: seconds since 1970, and nanoseconds after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time {
    seconds: i64,
    nanoseconds: i64,
}

impl Time {
    /// `nanoseconds` may be negative or more than a second.
    pub(crate) fn new(seconds: i64, nanoseconds: i64) -> Self {
        let seconds = seconds.wrapping_add(nanoseconds.div_euclid(NANOS_PER_SECOND));
        Time {
            seconds,
            nanoseconds: nanoseconds.rem_euclid(NANOS_PER_SECOND),
        }
    }

    pub(crate) fn seconds(self) -> i64 {
        self.seconds
    }

    /// 0 to 999,999,999.
    pub(crate) fn nanoseconds(self) -> i64 {
        self.nanoseconds
    }
}
