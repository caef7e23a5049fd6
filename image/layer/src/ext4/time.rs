//! Times as ext4 keeps them: 34 bits of seconds and 30 of nanoseconds, rounded as in hcsshim.

use crate::time::Time;

/// Seconds that Go calls the zero time: the start of the year 1.
const GO_ZERO_SECONDS: i64 = -62_135_596_800;
const OLDEST: i64 = -0x8000_0000;
const NEWEST: i64 = 0x3_7fff_ffff;

/// Low half: `i_mtime`; high half: `i_mtime_extra`, two bits of epoch and 30 of nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DiskTime(pub(crate) u64);

impl From<Option<Time>> for DiskTime {
    /// Times before 1970 set every bit of the upper half. The kernel encodes such times differently, but hcsshim does this,
    /// so the hashes in policies include it.
    fn from(time: Option<Time>) -> Self {
        let Some(time) = time else { return DiskTime(0) };
        let (seconds, nanoseconds) = (time.seconds(), time.nanoseconds());
        DiskTime(match seconds {
            GO_ZERO_SECONDS if nanoseconds == 0 => 0,
            ..OLDEST => 0x8000_0000,
            OLDEST..=NEWEST => seconds as u64 | (nanoseconds as u64) << 34,
            _ => NEWEST as u64,
        })
    }
}

impl DiskTime {
    /// Whether the kernel reads another second than `time` (`ext4_decode_extra_time`: the two bits of epoch are added to a signed
    /// number of 32 bits). Go's zero time stands for none.
    pub(crate) fn is_misread(time: Option<Time>) -> bool {
        let Some(seconds) = time.map(Time::seconds).filter(|seconds| *seconds != GO_ZERO_SECONDS) else {
            return false;
        };
        let disk = DiskTime::from(time).0;
        i64::from(disk as u32 as i32) + (((disk >> 32 & 3) as i64) << 32) != seconds
    }

    /// Decodes the time: an implied directory inherits it from its parent.
    pub(crate) fn time(self) -> Option<Time> {
        if self.0 == 0 {
            return None;
        }
        let seconds = (self.0 & 0x3_ffff_ffff) as i64;
        let negative = (0x8000_0000..0x1_0000_0000).contains(&seconds);
        let seconds = if negative { i64::from(seconds as u32 as i32) } else { seconds };
        Some(Time::new(seconds, (self.0 >> 34) as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(seconds: i64, nanoseconds: i64) -> u64 {
        DiskTime::from(Some(Time::new(seconds, nanoseconds))).0
    }

    #[test]
    fn range_and_rounding() {
        assert_eq!(disk(1, 5), 1 | 5 << 34);
        assert_eq!(disk(NEWEST, 1), NEWEST as u64 | 1 << 34);
        assert_eq!(disk(NEWEST + 1, 0), NEWEST as u64);
        assert_eq!(disk(i64::MAX, 999), NEWEST as u64);
        assert_eq!(disk(OLDEST - 1, 0), 0x8000_0000);
        assert_eq!(disk(-1, 0), u64::MAX);
        assert_eq!(disk(0, -1), u64::MAX);
        assert_eq!(disk(GO_ZERO_SECONDS, 0), 0);
        assert_eq!(DiskTime::from(None).0, 0);
    }

    #[test]
    fn the_kernel_reads_other_times_before_1970_and_after_2038() {
        let misread = |seconds| DiskTime::is_misread(Some(Time::new(seconds, 0)));
        for seconds in [0, 1, 0x7fff_ffff, 0x1_0000_0000, GO_ZERO_SECONDS] {
            assert!(!misread(seconds), "{seconds}");
        }
        for seconds in [-1, OLDEST, OLDEST - 1, 0x8000_0000, 4_102_444_800, NEWEST + 1] {
            assert!(misread(seconds), "{seconds}");
        }
        assert!(!DiskTime::is_misread(None));
    }

    #[test]
    fn times_from_1970_on_round_trip() {
        for time in [
            Time::new(1, 0),
            Time::new(0, 1),
            Time::new(0x7fff_ffff, 999_999_999),
            Time::new(0x1_0000_0000, 7),
            Time::new(NEWEST, 3),
        ] {
            assert_eq!(DiskTime::from(Some(time)).time(), Some(time));
        }
        assert_eq!(DiskTime(0).time(), None);
        // The lowest time decodes to itself, but encodes with the upper half set.
        assert_eq!(DiskTime(0x8000_0000).time(), Some(Time::new(OLDEST, 0)));
    }
}
