//! Verification of a report, from reading its files to the last check, beside the signatures alone.

use super::convert::timed;
use super::report::{Row, median};
use crate::testbed::{host, job::Build};
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

/// AMD's sample report, and its chain.
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../vmm/attestation/verifier/fixtures/milan");
const CERTIFICATES: [&str; 3] = ["ark.pem", "ask.pem", "vcek.der"];
/// Within the validity of all certificates.
const AT: &str = "2024-06-01T00:00:00Z";
/// Whom the sample satisfies, if neither is looked at: it has no kernel and no nonce of ours.
const REQUIREMENTS: &str = r#"
products = ["milan"]
revocation = "unchecked"
measurements = ["any"]
host_data = ["any"]
report_data = ["any"]
[minimum_tcb.milan]
boot_loader = 3
tee = 0
snp = 8
microcode = 115
"#;
/// RSA of 4096 bits: the root of itself and of the intermediate, and that of the endorsement key. ECDSA on P-384: the report.
const RSA_SIGNATURES: f64 = 3.0;
const ROUNDS: usize = 9;
const SECONDS: &str = "1";

/// Measures with the programs of `build`; returns all rows.
pub fn measure(build: &Build) -> Result<Vec<Row>> {
    let dir = tempfile::tempdir().context("cannot create a directory")?;
    let certificates = dir.path().join("certs");
    std::fs::create_dir(&certificates).context("cannot create a directory")?;
    for name in CERTIFICATES {
        std::fs::copy(Path::new(FIXTURES).join(name), certificates.join(name)).with_context(|| format!("cannot copy {name}"))?;
    }
    let requirements = dir.path().join("verifier.toml");
    std::fs::write(&requirements, REQUIREMENTS).context("cannot write the requirements")?;
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let mut command = Command::new(build.programs.join("casemate"));
        command.args(["attest", "verify", "--at", AT, "--requirements"]).arg(&requirements);
        command
            .arg("--certs")
            .arg(&certificates)
            .arg(Path::new(FIXTURES).join("report.hex"));
        times.push(timed(&mut command)?);
    }
    let seconds = median(&times).unwrap_or_default();
    let (rsa, ecdsa) = (verifications("rsa4096", "+F2:")?, verifications("ecdsap384", "+F4:")?);
    let signatures = RSA_SIGNATURES / rsa + 1.0 / ecdsa;
    Ok(vec![
        Row::of("casemate attest verify", seconds * 1e3, "ms")
            .compared_with("openssl speed", signatures * 1e3)
            .detail("openssl_rsa4096_us", 1e6 / rsa)
            .detail("openssl_ecdsap384_us", 1e6 / ecdsa),
    ])
}

/// Verifications a second.
fn verifications(algorithm: &str, line: &str) -> Result<f64> {
    speed(algorithm, line, 0)
}

/// Signatures a second of one core.
pub fn signatures(algorithm: &str, line: &str) -> Result<f64> {
    speed(algorithm, line, 1)
}

fn speed(algorithm: &str, line: &str, from_end: usize) -> Result<f64> {
    let said = host::run(Command::new("openssl").args(["speed", "-mr", "-seconds", SECONDS, algorithm]))?;
    rate(&said, line, from_end).with_context(|| format!("openssl printed no speed of {algorithm}"))
}

/// A number of the machine-readable line of `openssl speed`, `+F4:4:384:<signatures>:<verifications>`, counted from its end.
fn rate(said: &str, line: &str, from_end: usize) -> Option<f64> {
    let line = said.lines().find(|words| words.starts_with(line))?;
    line.rsplit(':').nth(from_end)?.parse().ok().filter(|rate| *rate > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_numbers_of_a_line_are_the_rates_of_signatures_and_verifications() {
        let said = "+DTP:384:sign:ecdsa:1\n+F4:4:384:1807.84:2107.57\n";
        assert_eq!(rate(said, "+F4:", 0), Some(2107.57));
        assert_eq!(rate(said, "+F4:", 1), Some(1807.84));
        assert_eq!(rate(said, "+F2:", 0), None);
        assert_eq!(rate("+F4:4:384:1:0", "+F4:", 0), None);
    }
}
