//! A point in time, given from outside: verification reads no clock.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use x509_cert::der::DateTime;

/// Why a text is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a time; wanted seconds since 1970, or UTC as 2026-11-30T12:00:00Z")]
pub struct TimeError;

/// Seconds since 1970 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(u64);

impl Time {
    /// From seconds since 1970.
    pub fn from_unix(seconds: u64) -> Self {
        Self(seconds)
    }

    pub(crate) fn of(time: x509_cert::time::Time) -> Self {
        Self(time.to_unix_duration().as_secs())
    }
}

impl FromStr for Time {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        let seconds = text.parse().ok();
        let date = || DateTime::from_str(text).ok().map(|date| date.unix_duration().as_secs());
        seconds.or_else(date).map(Self).ok_or(TimeError)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::from_unix_duration(Duration::from_secs(self.0)) {
            Ok(date) => write!(f, "{date}"),
            // After the year 9999, which ASN.1 cannot say.
            Err(_) => write!(f, "{} s", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_times() {
        assert_eq!("1700000000".parse(), Ok(Time(1_700_000_000)));
        assert_eq!("2023-11-14T22:13:20Z".parse(), Ok(Time(1_700_000_000)));
        assert_eq!(Time(1_700_000_000).to_string(), "2023-11-14T22:13:20Z");
        assert_eq!(Time(u64::MAX).to_string(), format!("{} s", u64::MAX));
        for text in ["", "-1", "2023-11-14", "2023-13-14T22:13:20Z", "now"] {
            assert_eq!(text.parse::<Time>(), Err(TimeError), "{text}");
        }
    }
}
