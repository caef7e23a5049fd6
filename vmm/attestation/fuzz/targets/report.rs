//! A report from a guest, judged with AMD's certificates for a Milan: it is refused by name, and verified never.
#![no_main]

use attestation::Report;
use attestation_verifier::{Collateral, Expectations, Time, verified, verify};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static MILAN: LazyLock<Collateral> = LazyLock::new(|| {
    let mut collateral = Collateral::default();
    for file in [
        include_bytes!("../../verifier/fixtures/milan/ark.pem").as_slice(),
        include_bytes!("../../verifier/fixtures/milan/ask.pem"),
        include_bytes!("../../verifier/fixtures/milan/vcek.der"),
    ] {
        assert!(collateral.add(file).is_ok());
    }
    collateral
});

fuzz_target!(|bytes: &[u8]| {
    if let Ok(report) = Report::parse(bytes) {
        let _ = (
            report.reserved(),
            report.current_version(),
            report.committed_version(),
            report.report_id(),
        );
        let checks = verify(&report, &MILAN, Time::from_unix(1_700_000_000), &Expectations::default());
        assert!(!verified(&checks));
    }
});
