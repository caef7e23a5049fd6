//! Reports of every version and layout that tests sign, each bit of the signed part flipped.

use super::forge::Case;
use crate::certificate::Certificate;
use crate::signature;
use attestation::{Product, Report, ReportError, SIGNED_BYTES};
use sha2::{Digest, Sha384};

/// Without the long form (`make test-all`), every bit is flipped, and of every sixteenth the whole signature is computed; the others
/// are refused because another digest is verified: for one signature and key no second one that passes can be found.
const SHORT_STEP: usize = 16;

#[test]
fn every_bit_of_every_layout_is_signed() {
    let full = std::env::var("CASEMATE_TEST_SET").is_ok_and(|set| set == "full");
    let step = if full { 1 } else { SHORT_STEP };
    let layouts = [Product::Genoa, Product::Turin, Product::Venice];
    let cases = layouts
        .into_iter()
        .flat_map(|product| (2..=5).map(move |version| (product, version)));
    std::thread::scope(|threads| {
        for (index, (product, version)) in cases.enumerate() {
            threads.spawn(move || flipped(product, version, index % step, step));
        }
    });
}

/// Flips each bit; verifies those that have `rest` if divided by `step`.
fn flipped(product: Product, version: u32, rest: usize, step: usize) {
    let case = Case::new(product, version);
    assert_eq!(case.failed(), Vec::<&str>::new(), "{product} {version}");
    let leaf = Certificate::from_der(&case.leaf_certificate()).unwrap();
    let raw = case.report();
    let digest = Sha384::digest(&raw[..SIGNED_BYTES]);
    let mut refused = 0;
    for bit in 0..SIGNED_BYTES * 8 {
        let mut raw = raw.clone();
        raw[bit / 8] ^= 1 << (bit % 8);
        match Report::parse(&raw) {
            Ok(report) => {
                assert_ne!(Sha384::digest(report.signed_bytes()), digest, "{product} {version} bit {bit}");
                assert!(
                    bit % step != rest || signature::verify(&report, &leaf).is_err(),
                    "{product} {version} bit {bit}"
                );
            }
            // A flipped version; other bits are left to the signature.
            Err(error) => assert!(bit < 32 && matches!(error, ReportError::Version(_)), "{error}"),
        }
        refused += 1;
    }
    assert_eq!(refused, 5376);
}
