//! What shim and converter say to each other: one job, then one report, each a line of JSON.
//!
//! ```text
//!            --job-fd N   job: who to become                 ┌──────────────┐
//! shim ──►   standard input    the blob, a file or a pipe ──►│  converter   │──► standard output: the image's file
//!                                                            └──────────────┘──► standard error: texts, last the report
//! ```
//! The shim takes the report for the word of somebody hostile: the converter has read a hostile image by then.
#![forbid(unsafe_code)]

mod job;
mod report;

pub use job::{Job, JobError};
pub use report::{REPORT_MAX_BYTES, Report};

/// Name of the converter's program.
pub const PROGRAM: &str = "casemate-converter";
