//! The signature of a report: ECDSA P-384 with SHA-384 over its first 0x2A0 bytes as they are.

use crate::certificate::Certificate;
use crate::check::Check;
use attestation::Report;
use p384::ecdsa::Signature;
use p384::ecdsa::signature::hazmat::PrehashVerifier;
use sha2::{Digest, Sha384};

/// SIGNATURE_ALGO of ECDSA P-384 with SHA-384, the only one (ABI specification, table "Encodings of SIGNATURE_ALGO").
const ECDSA_P384_SHA384: u32 = 1;

/// Verifies a report's signature with the key of a certificate. `Err` says why not.
pub(crate) fn verify(report: &Report, endorsement: &Certificate) -> Result<(), String> {
    if report.signature_algorithm() != ECDSA_P384_SHA384 {
        return Err(format!("algorithm {} is unknown", report.signature_algorithm()));
    }
    let key = endorsement.p384_key().ok_or("the endorsement key is not ECDSA on P-384")?;
    let (r, s) = report.signature();
    let signature = Signature::from_scalars(r, s).map_err(|_| "the signature is not two numbers below the group's order")?;
    key.verify_prehash(&Sha384::digest(report.signed_bytes()), &signature)
        .map_err(|_| "signature does not verify".to_owned())
}

/// Whether the endorsement key signed the report.
pub(crate) fn check(report: &Report, endorsement: Option<&Certificate>) -> Check {
    const NAME: &str = "report signature";
    const WANTED: &str = "ECDSA P-384 with SHA-384 by the endorsement key";
    let Some(endorsement) = endorsement else {
        return Check::impossible(NAME, "no certificate", WANTED);
    };
    match verify(report, endorsement) {
        Ok(()) => Check::new(NAME, true, "verified", WANTED),
        Err(problem) => Check::new(NAME, false, problem, WANTED),
    }
}
