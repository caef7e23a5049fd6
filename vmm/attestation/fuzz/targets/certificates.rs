//! Certificates and revocation lists from whoever serves them: refused, or judged without a panic.
#![no_main]

use attestation::{REPORT_BYTES, Report};
use attestation_verifier::{Collateral, Expectations, Time, verified, verify};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut collateral = Collateral::default();
    if collateral.add(bytes).is_ok() {
        let mut raw = [0; REPORT_BYTES];
        // Version 2 takes its product from the certificate.
        raw[0] = 2;
        raw[0x34] = 1;
        if let Ok(report) = Report::parse(&raw) {
            let checks = verify(&report, &collateral, Time::from_unix(1_700_000_000), &Expectations::default());
            assert!(!verified(&checks));
        }
    }
});
