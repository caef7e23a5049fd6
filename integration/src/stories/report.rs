//! The result of a story, as L1 reports it to the host.

use serde::{Deserialize, Serialize};

/// How a story ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Every check held.
    Passed,
    /// A check did not hold, or the story could not run.
    Failed,
}

/// A story's result.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Passed or failed.
    pub outcome: Outcome,
    /// Why, unless passed.
    pub message: String,
    /// Time in L1.
    pub seconds: f32,
}

impl Report {
    /// Name of its file in /job/out.
    pub const FILE: &str = "report.json";
}
