//! A guest's answer to a container that asked for a report: report, certificates and log; and what is required of the log.

use super::requirements_text;
use anyhow::{Context, Result, anyhow, ensure};
use attestation_verifier::{Check, Wanted};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use permit_log::{Log, MAX_DOCUMENT_BYTES, Nonce, Requirements, report_data};
use serde::Deserialize;
use std::path::PathBuf;

/// Largest answer: the longest log in base64, and room for report, certificates and names.
pub const MAX_BYTES: u64 = (MAX_DOCUMENT_BYTES * 4 / 3 + (256 << 10)) as u64;
/// Most certificates of a host's table; hosts supply three.
const MAX_CERTIFICATES: usize = 32;
/// An entry of the table: GUID, offset and length.
const TABLE_ENTRY_BYTES: usize = 24;

/// Arguments for the answer of a guest.
#[derive(Args)]
pub struct Arguments {
    /// The nonce that the guest was given, in hexadecimal: REPORT is the guest's whole answer, and binds this nonce and the guest's log
    #[arg(long, conflicts_with = "report_data")]
    nonce: Option<String>,
    /// What is required of the guest's log, in TOML or JSON
    #[arg(long, value_name = "log.toml", requires = "nonce")]
    log_requirements: Option<PathBuf>,
}

impl Arguments {
    /// The file of requirements.
    pub fn file(&self) -> &Option<PathBuf> {
        &self.log_requirements
    }
}

/// What a guest was asked, and what its log must say.
pub struct Asked {
    nonce: Nonce,
    requirements: Requirements,
}

impl Asked {
    /// From the arguments; `None` if a report alone is verified.
    pub fn of(arguments: &Arguments) -> Result<Option<Self>> {
        let Some(nonce) = &arguments.nonce else { return Ok(None) };
        let nonce = Nonce::new(hex::decode(nonce).context("--nonce: wanted hexadecimal")?).context("--nonce")?;
        let requirements = match &arguments.log_requirements {
            Some(path) => requirements_text(path)?,
            None => Requirements::default(),
        };
        Ok(Some(Self { nonce, requirements }))
    }

    /// The only REPORT_DATA of a report that answers this and covers the log.
    pub fn report_data(&self, log: &Log) -> Wanted<64> {
        Wanted::OneOf([report_data(&self.nonce, &log.head())].into())
    }

    /// A check for each requirement. They prove something only beside the check of the report data.
    pub fn judge(&self, log: &Log) -> impl Iterator<Item = Check> {
        let findings = self.requirements.judge(log).into_iter();
        findings.map(|finding| Check {
            name: "log",
            passed: finding.judged.is_ok(),
            seen: match finding.judged {
                Ok(()) => finding.required.clone(),
                Err(seen) => seen,
            },
            wanted: finding.required,
        })
    }
}

/// The answer's fields; `nonce` and `head` are for readers, who verify neither.
#[derive(Deserialize)]
pub struct Answer {
    report: String,
    certificates: String,
    log: String,
}

impl Answer {
    /// Reads the JSON.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).context("with --nonce the input must be a guest's answer, which is JSON")
    }

    /// The report's bytes.
    pub fn report(&self) -> Result<Vec<u8>> {
        decoded("report", &self.report)
    }

    /// The log, not yet known to be the report's.
    pub fn log(&self) -> Result<Log> {
        Log::decode(&decoded("log", &self.log)?).context("the answer's log cannot be read")
    }

    /// The certificates of the host's table (GHCB specification, SNP Extended Guest Request): entries of GUID, offset and length up to
    /// one of zeros, then the certificates.
    pub fn certificates(&self) -> Result<Vec<Vec<u8>>> {
        let table = decoded("certificates", &self.certificates)?;
        let mut certificates = Vec::new();
        for entry in table.as_chunks::<TABLE_ENTRY_BYTES>().0 {
            if entry.iter().all(|byte| *byte == 0) {
                return Ok(certificates);
            }
            ensure!(
                certificates.len() < MAX_CERTIFICATES,
                "the answer has more than {MAX_CERTIFICATES} certificates"
            );
            let number = |at: usize| u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]) as usize;
            let certificate = table.get(number(16)..).and_then(|rest| rest.get(..number(20)));
            certificates.push(certificate.context("a certificate of the answer lies outside its table")?.to_vec());
        }
        match table.is_empty() {
            true => Ok(certificates),
            false => Err(anyhow!("the table of the answer's certificates has no end")),
        }
    }
}

fn decoded(field: &'static str, text: &str) -> Result<Vec<u8>> {
    STANDARD.decode(text).with_context(|| format!("{field} of the answer is no base64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(certificates: &[u8]) -> Answer {
        Answer {
            report: String::new(),
            certificates: STANDARD.encode(certificates),
            log: STANDARD.encode(Log::default().encode()),
        }
    }

    fn table(entries: &[(u32, u32)], rest: &[u8]) -> Vec<u8> {
        let mut table = Vec::new();
        for (offset, length) in entries {
            table.extend([1; 16]);
            table.extend(offset.to_le_bytes());
            table.extend(length.to_le_bytes());
        }
        table.extend([0; TABLE_ENTRY_BYTES]);
        table.extend(rest);
        table
    }

    #[test]
    fn certificates_are_where_the_table_says() {
        assert_eq!(answer(b"").certificates().unwrap(), Vec::<Vec<u8>>::new());
        let two = table(&[(72, 3), (75, 2)], b"onetw");
        assert_eq!(answer(&two).certificates().unwrap(), [b"one".to_vec(), b"tw".to_vec()]);
        for bad in [
            table(&[(72, 4)], b"one"),
            table(&[(u32::MAX, 1)], b""),
            table(&[(0, u32::MAX)], b""),
            table(&[(0, 1); MAX_CERTIFICATES + 1], b""),
            vec![1; 48],
            vec![0; 3],
        ] {
            assert!(answer(&bad).certificates().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_report_data_is_that_of_nonce_and_log() {
        let arguments = |nonce: &str| Arguments {
            nonce: Some(nonce.to_owned()),
            log_requirements: None,
        };
        let asked = Asked::of(&arguments(&"11".repeat(32))).unwrap().unwrap();
        let log = answer(b"").log().unwrap();
        let wanted = report_data(&Nonce::new(vec![0x11; 32]).unwrap(), &log.head());
        assert_eq!(asked.report_data(&log), Wanted::OneOf([wanted].into()));
        assert!(Asked::of(&arguments("xy")).is_err());
        assert!(Asked::of(&arguments("11")).is_err());
    }
}
