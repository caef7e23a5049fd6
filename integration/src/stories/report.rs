//! The result of a story, on its way from L1 to the host.

use serde::{Deserialize, Serialize};

/// A reason why a story cannot run here; returned as an error it counts as skipped.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Skip(pub String);

/// How a story ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should.
    Passed,
    /// Not as it should.
    Failed,
    /// It could not run here.
    Skipped,
}

/// A story's result.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Passed, failed or skipped.
    pub outcome: Outcome,
    /// Why, unless passed.
    pub message: String,
    /// Time in L1.
    pub seconds: f32,
}

impl Report {
    /// Its file in /job/out.
    pub const FILE: &str = "report.json";
}
