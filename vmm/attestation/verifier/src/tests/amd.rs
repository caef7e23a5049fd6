//! AMD's own material: the sample report of a Milan, its chain, and the published certificates of Genoa and Turin.
//!
//! Source: `virtee/sev` (Apache-2.0) at 9cf2adb, `tests/certs_data` and `src/certs/snp/builtin`.

use crate::certificate::Certificate;
use crate::expectations::{Levels, Revocation, Wanted};
use crate::{Collateral, Expectations, Time, roots, signature, verified, verify};
use attestation::{Part, Product, REPORT_BYTES, Report, SIGNED_BYTES};
use std::fs;
use std::path::PathBuf;

fn fixture(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    fs::read(path).unwrap()
}

pub fn collateral(product: &str) -> Collateral {
    let mut collateral = Collateral::default();
    for file in ["ark.pem", "ask.pem"] {
        collateral.add(&fixture(&format!("{product}/{file}"))).unwrap();
    }
    if product != "genoa" {
        collateral.add(&fixture(&format!("{product}/vcek.der"))).unwrap();
    }
    collateral
}

/// Root, authority and endorsement key of the sample, in DER.
pub fn milan_chain() -> [Vec<u8>; 3] {
    let der = |pem: &str| x509_cert::der::pem::decode_vec(&fixture(pem)).unwrap().1;
    [der("milan/ark.pem"), der("milan/ask.pem"), fixture("milan/vcek.der")]
}

pub fn sample() -> Vec<u8> {
    hex::decode(String::from_utf8(fixture("milan/report.hex")).unwrap().trim()).unwrap()
}

fn expectations() -> Expectations {
    let levels = [(Part::BootLoader, 3), (Part::Tee, 0), (Part::Snp, 8), (Part::Microcode, 0x73)];
    Expectations {
        products: [Product::Milan].into(),
        // AMD publishes its lists on the key server only.
        revocation: Revocation::Unchecked,
        minimum_tcb: [(Product::Milan, Levels::new(Product::Milan, levels.into()).unwrap())].into(),
        measurements: Wanted::Any,
        host_data: Wanted::OneOf([[0; 32]].into()),
        report_data: Wanted::Any,
        ..Expectations::default()
    }
}

fn now() -> Time {
    "2024-06-01T00:00:00Z".parse().unwrap()
}

fn failed(expectations: &Expectations, now: Time) -> Vec<&'static str> {
    let checks = verify(&Report::parse(&sample()).unwrap(), &collateral("milan"), now, expectations);
    checks.into_iter().filter(|check| !check.passed).map(|check| check.name).collect()
}

#[test]
fn the_sample_verifies_if_milan_is_named() {
    let checks = verify(&Report::parse(&sample()).unwrap(), &collateral("milan"), now(), &expectations());
    assert!(verified(&checks), "{checks:#?}");
    let products = Expectations::default().products;
    assert!(!products.contains(&Product::Milan));
    assert_eq!(
        failed(
            &Expectations {
                products,
                ..expectations()
            },
            now()
        ),
        ["product allowed"]
    );
}

#[test]
fn the_sample_fails_with_another_expectation_or_time() {
    assert_eq!(failed(&expectations(), "2030-04-04T00:00:00Z".parse().unwrap()), ["validity"]);
    assert_eq!(failed(&expectations(), "2023-04-03T19:23:42Z".parse().unwrap()), ["validity"]);
    let levels = [(Part::BootLoader, 3), (Part::Tee, 0), (Part::Snp, 9), (Part::Microcode, 0x73)];
    let mut higher = expectations();
    higher.minimum_tcb = [(Product::Milan, Levels::new(Product::Milan, levels.into()).unwrap())].into();
    assert_eq!(failed(&higher, now()), ["minimum TCB", "launch TCB"]);
    let other = Expectations {
        host_data: Wanted::OneOf([[1; 32]].into()),
        ..expectations()
    };
    assert_eq!(failed(&other, now()), ["host data"]);
    let revocation = Revocation::Required;
    assert_eq!(
        failed(
            &Expectations {
                revocation,
                ..expectations()
            },
            now()
        ),
        ["revocation", "revocation list age"]
    );
}

/// The certificate of a real Turin, by a report that a test makes: everything but the signature, which nobody outside of that chip can make.
#[test]
fn the_certificate_of_a_turin_fits_a_report_of_its_chip() {
    let leaf = Certificate::from_der(&fixture("turin/vcek.der")).unwrap();
    let part = |number: u32| {
        leaf.extension(format!("1.3.6.1.4.1.3704.1.3.{number}").parse().unwrap())
            .unwrap()
            .unwrap()[2]
    };
    let levels = [
        (Part::Fmc, 9),
        (Part::BootLoader, 1),
        (Part::Tee, 2),
        (Part::Snp, 3),
        (Part::Microcode, 8),
    ];
    let levels = levels.map(|(part_of, number)| (part_of, part(number)));
    let mut raw = [0; REPORT_BYTES];
    (raw[0], raw[0x0a], raw[0x34]) = (5, 2, 1);
    raw[0x188..0x18b].copy_from_slice(&[0x1a, 0x02, 1]);
    raw[0x1a0..0x1a8].copy_from_slice(leaf.extension("1.3.6.1.4.1.3704.1.4".parse().unwrap()).unwrap().unwrap());
    for tcb in [0x38, 0x180, 0x1e0, 0x1f0] {
        for ((_, at), (_, level)) in Product::Turin.tcb_parts().iter().zip(levels) {
            raw[tcb + at] = level;
        }
    }
    let expectations = Expectations {
        products: [Product::Turin].into(),
        minimum_tcb: [(Product::Turin, Levels::new(Product::Turin, levels.into()).unwrap())].into(),
        host_data: Wanted::Any,
        ..expectations()
    };
    let failed = |raw: &[u8]| {
        let checks = verify(
            &Report::parse(raw).unwrap(),
            &collateral("turin"),
            "2025-06-01T00:00:00Z".parse().unwrap(),
            &expectations,
        );
        checks
            .into_iter()
            .filter(|check| !check.passed)
            .map(|check| check.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(failed(&raw), ["report signature"]);
    raw[0x1a7] ^= 1;
    assert_eq!(failed(&raw), ["report signature", "chip id"]);
    raw[0x1a7] ^= 1;
    raw[0x38] += 1;
    raw[0x1e0] += 1;
    raw[0x180] += 1;
    assert_eq!(failed(&raw), ["report signature", "certificate TCB"]);
}

/// Every bit that the signature covers, and every bit of its two numbers.
#[test]
fn the_sample_with_any_bit_flipped_is_refused() {
    let raw = sample();
    let leaf = Certificate::from_der(&fixture("milan/vcek.der")).unwrap();
    let report = Report::parse(&raw).unwrap();
    signature::verify(&report, &leaf).unwrap();
    let bits = (0..SIGNED_BYTES * 8).chain(0x2a0 * 8..0x2d0 * 8).chain(0x2e8 * 8..0x318 * 8);
    let mut tried = 0;
    for bit in bits {
        let mut raw = raw.clone();
        raw[bit / 8] ^= 1 << (bit % 8);
        // Another version has another layout, or is unknown.
        if let Ok(report) = Report::parse(&raw) {
            assert!(signature::verify(&report, &leaf).is_err(), "bit {bit}");
        }
        tried += 1;
    }
    assert_eq!(tried, 5376 + 768);
    for bit in (0x2d0 * 8..0x2e8 * 8).chain(0x318 * 8..REPORT_BYTES * 8) {
        let mut raw = raw.clone();
        raw[bit / 8] ^= 1 << (bit % 8);
        assert!(!Report::parse(&raw).unwrap().reserved().is_empty(), "bit {bit}");
    }
}

#[test]
fn the_built_in_roots_are_amds() {
    for (name, product) in [("milan", Product::Milan), ("genoa", Product::Genoa), ("turin", Product::Turin)] {
        let collateral = collateral(name);
        let named = |name: String| {
            collateral
                .certificates
                .iter()
                .find(|certificate| certificate.common_name() == name)
                .unwrap()
        };
        let (root, authority) = (named(format!("ARK-{product}")), named(format!("SEV-{product}")));
        root.signed_by(root).unwrap();
        authority.signed_by(root).unwrap();
        for other in Product::ALL {
            let check = roots::pinned(Some(root), Some(other), &Expectations::default());
            assert_eq!(check.passed, other == product, "{check:?}");
        }
        if name != "genoa" {
            named("SEV-VCEK".to_owned()).signed_by(authority).unwrap();
        }
    }
}

#[test]
fn who_gives_roots_trusts_amds_no_longer() {
    let judged = |expectations: &Expectations| {
        let now = Time::from_unix(1_717_200_000);
        verified(&verify(&Report::parse(&sample()).unwrap(), &collateral("milan"), now, expectations))
    };
    assert!(judged(&expectations()));
    let mut others = expectations();
    others.trust(&fixture("genoa/ark.pem")).unwrap();
    assert!(!judged(&others));
    others.trust(&fixture("milan/ark.pem")).unwrap();
    assert!(judged(&others));
}
