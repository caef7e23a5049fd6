//! One check: what was looked at, what was seen, what was wanted.

use serde::Serialize;

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name, the same for every report.
    pub name: &'static str,
    /// Whether it passed.
    pub passed: bool,
    /// What the report or a certificate says. Text of a certificate is escaped.
    pub seen: String,
    /// What was expected.
    pub wanted: String,
}

impl Check {
    pub(crate) fn new(name: &'static str, passed: bool, seen: impl Into<String>, wanted: impl Into<String>) -> Self {
        Self {
            name,
            passed,
            seen: seen.into(),
            wanted: wanted.into(),
        }
    }

    /// A check that cannot be made, because something that it needs is missing.
    pub(crate) fn impossible(name: &'static str, why: &str, wanted: impl Into<String>) -> Self {
        Self::new(name, false, why, wanted)
    }
}

/// Whether a report is verified: there are checks, and all of them passed.
pub fn verified(checks: &[Check]) -> bool {
    !checks.is_empty() && checks.iter().all(|check| check.passed)
}
