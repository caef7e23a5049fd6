//! Rules of a pattern and a strategy.

use serde::Serialize;

/// A pattern and its strategy; field names are the policy's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PolicyIdName {
    pub(crate) pattern: String,
    pub(crate) strategy: &'static str,
}

/// Checks that RE2 accepts the pattern.
pub(crate) fn check_pattern(pattern: &str) -> Result<(), String> {
    policy::check_pattern(pattern).map_err(|error| format!("pattern {pattern:?}: {error}"))
}
