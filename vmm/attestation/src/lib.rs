//! Parses SEV-SNP attestation reports; unknown versions are refused.
//!
//! Source: AMD SEV-SNP Firmware ABI Specification, table "ATTESTATION_REPORT", versions 2 to 5.
#![forbid(unsafe_code)]

mod report;

pub use report::{REPORT_BYTES, Report, ReportError};
