//! What agent and puller say to each other: one job, then one report, each a line of JSON.
//!
//! ```text
//!         standard input   the job: which image, who to become   ┌──────────┐
//! agent ──► descriptors    one empty file for each layer      ──►│  puller  │──► registry, by the guest's network
//!         descriptor       the disk with the configuration       └──────────┘──► standard error: texts, last the report
//! ```
//! The agent takes the report for the word of somebody hostile: the puller has read what a registry sent by then.
#![forbid(unsafe_code)]

mod job;
mod report;

pub use job::{Blob, Job, JobError, LAYERS_MAX, NAMESERVERS_MAX};
pub use report::{PulledLayer, REPORT_MAX_BYTES, Report, Stored};

/// Name of the puller's program.
pub const PROGRAM: &str = "casemate-puller";
