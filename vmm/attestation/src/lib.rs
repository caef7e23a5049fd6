//! The layout of SEV-SNP attestation reports: reads what is asked of them and nothing from a form it does not know.
//!
//! Source: AMD SEV-SNP Firmware ABI Specification, table "ATTESTATION_REPORT", versions 2 to 5.
#![forbid(unsafe_code)]

mod report;

pub use report::{REPORT_BYTES, Report, ReportError};
