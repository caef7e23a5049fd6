//! Certificates and revocation lists from whoever serves them: refused, or judged without a panic, and never those of the report.
#![no_main]

use attestation::{Product, REPORT_BYTES, Report};
use attestation_verifier::{Collateral, Expectations, Kind, Questions, Time, verified, verify};
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
        // A key server is asked about a chip that is not hidden.
        raw[0x1a0] = 1;
        if let Ok(report) = Report::parse(&raw)
            && let Ok(questions) = Questions::about(&report, Some(Product::Turin))
        {
            // Nobody signed the report.
            assert!(questions.judge(Kind::Endorsement, bytes, &collateral).is_err());
            let _ = questions.judge(Kind::Chain, bytes, &collateral);
            let _ = questions.judge(Kind::List, bytes, &collateral);
        }
    }
});
