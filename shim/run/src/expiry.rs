//! The end of a lease, in RFC 3339.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// As `ctr` has it: what a killed program leaves is collected within a day.
const LASTS: Duration = Duration::from_secs(24 * 3600);

/// The end of a lease that begins at `now`.
pub fn of_lease(now: SystemTime) -> String {
    let end = now.duration_since(UNIX_EPOCH).unwrap_or_default() + LASTS;
    let (days, second) = (end.as_secs() / 86_400, end.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Year, month and day of a number of days since 1970-01-01 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `date -u -d @SECONDS +%FT%TZ`
    #[test]
    fn the_end_is_a_day_later() {
        for (seconds, end) in [
            (0, "1970-01-02T00:00:00Z"),
            (951_782_399 - 86_400, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-03-01T00:00:00Z"),
            (1_798_761_599, "2027-01-01T23:59:59Z"),
            (4_107_542_400 - 86_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(of_lease(UNIX_EPOCH + Duration::from_secs(seconds)), end, "{seconds}");
        }
    }
}
