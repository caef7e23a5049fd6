//! Days in UTC, as date fields of forms send them.

use std::time::Duration;
use x509_cert::der::DateTime;

/// Seconds of a day.
pub(super) const DAY: i64 = 86_400;

/// The first second of `2026-11-30`, since 1970.
pub(super) fn begins(text: &str) -> Option<i64> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let digits = |text: &str, length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
    if parts.next().is_some() || !digits(year, 4) || !digits(month, 2) || !digits(day, 2) {
        return None;
    }
    let date = DateTime::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?, 0, 0, 0).ok()?;
    i64::try_from(date.unix_duration().as_secs()).ok()
}

/// The day of a second, as date fields have it.
pub(super) fn of(seconds: i64) -> String {
    let since = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    let date = DateTime::from_unix_duration(since).unwrap_or(DateTime::INFINITY);
    format!("{:04}-{:02}-{:02}", date.year(), date.month(), date.day())
}

/// `2026-11-30 19:55:02` of milliseconds since 1970, and the same as machines read it.
pub(super) fn time(milliseconds: i64) -> (String, String) {
    let machine = crate::clock::rfc3339(milliseconds.div_euclid(1000));
    (machine.replace('T', " ").replace('Z', ""), machine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_and_written() {
        assert_eq!(begins("1970-01-02"), Some(DAY));
        assert_eq!(begins("2026-11-30").map(of), Some("2026-11-30".to_owned()));
        for bad in [
            "",
            "2026",
            "2026-13-01",
            "2026-02-30",
            "26-11-30",
            "2026-11-30-1",
            "+026-11-30",
            "1969-12-31",
            "٢026-11-30",
        ] {
            assert_eq!(begins(bad), None, "{bad}");
        }
        assert_eq!(time(1_798_761_599_999).0, "2026-12-31 23:59:59");
    }
}
