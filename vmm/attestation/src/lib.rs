//! Reads SEV-SNP attestation reports and judges nothing; unknown versions are refused.
//!
//! Source: AMD SEV-SNP Firmware ABI Specification (56860), revision 1.58, table "ATTESTATION_REPORT", versions 2 to 5.
#![forbid(unsafe_code)]

mod product;
mod report;
pub mod simulated;
mod tcb;

pub use product::{Cpuid, Product};
pub use report::{FirmwareVersion, REPORT_BYTES, Report, ReportError, SIGNED_BYTES, SigningKey};
pub use tcb::{Part, TcbVersion};
