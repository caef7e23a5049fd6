//! What the product's verifier says of simulated reports: all checks pass for who trusts the root, and nobody else accepts one.

use attestation::Report;
use attestation_verifier::{Check, Collateral, Expectations, Levels, Time, Wanted, verified, verify};
use simulated_tee::{Chain, EndorsementKey, Guest, LEVEL, NotAKey, PRODUCT, Reporter};
use std::{sync::OnceLock, time::Duration};

const NOW: u64 = 1_790_000_000;
const GUEST: Guest = Guest {
    measurement: [0x3e; 48],
    host_data: [0x57; 32],
    policy: 0x3_0000,
};

fn chain(seed: u8) -> Chain {
    Chain::new([seed; 32], Duration::from_secs(NOW)).unwrap()
}

fn host() -> &'static Chain {
    static CHAIN: OnceLock<Chain> = OnceLock::new();
    CHAIN.get_or_init(|| chain(1))
}

fn collateral(chain: &Chain) -> Collateral {
    let mut collateral = Collateral::default();
    for bytes in [chain.ark.as_bytes(), chain.ask.as_bytes(), &chain.vcek, &chain.crl] {
        collateral.add(bytes).unwrap();
    }
    collateral
}

fn expectations(report_data: [u8; 64]) -> Expectations {
    let levels = PRODUCT.tcb_parts().iter().map(|(part, _)| (*part, LEVEL)).collect();
    let mut expectations = Expectations::default();
    expectations.products = [PRODUCT].into();
    expectations.minimum_tcb = [(PRODUCT, Levels::new(PRODUCT, levels).unwrap())].into();
    expectations.measurements = Wanted::OneOf([GUEST.measurement].into());
    expectations.host_data = Wanted::OneOf([GUEST.host_data].into());
    expectations.report_data = Wanted::OneOf([report_data].into());
    expectations
}

fn judged(report: &[u8], chain: &Chain, trusted: &[&Chain]) -> Vec<Check> {
    let mut expectations = expectations([7; 64]);
    for chain in trusted {
        expectations.trust(chain.ark.as_bytes()).unwrap();
    }
    verify(
        &Report::parse(report).unwrap(),
        &collateral(chain),
        Time::from_unix(NOW),
        &expectations,
    )
}

fn failed(checks: &[Check]) -> Vec<&'static str> {
    checks.iter().filter(|check| !check.passed).map(|check| check.name).collect()
}

#[test]
fn a_report_of_every_version_is_verified_by_who_trusts_the_root() {
    for version in 2..=5 {
        let reporter = Reporter::new(host().key.clone(), GUEST).with_version(version);
        let report = reporter.report(&[7; 64]);
        assert_eq!(Report::parse(&report).unwrap().version(), version);
        let checks = judged(&report, host(), &[host()]);
        assert!(verified(&checks), "version {version}: {:?}", failed(&checks));
    }
}

#[test]
fn nobody_else_accepts_it() {
    let report = Reporter::new(host().key.clone(), GUEST).report(&[7; 64]);
    let checks = judged(&report, host(), &[]);
    assert!(
        !verified(&checks) && failed(&checks).iter().any(|name| name.contains("chain") || name.contains("root")),
        "{checks:?}"
    );
    let other = chain(2);
    assert!(!verified(&judged(&report, host(), &[&other])));
    assert!(!verified(&judged(&report, &other, &[&other])));
}

#[test]
fn what_is_signed_cannot_be_changed() {
    let report = Reporter::new(host().key.clone(), GUEST).report(&[7; 64]);
    for at in (0..attestation::SIGNED_BYTES).step_by(7).filter(|at| *at >= 4) {
        let mut changed = report;
        changed[at] ^= 0x10;
        assert!(!verified(&judged(&changed, host(), &[host()])), "byte {at:#x}");
    }
}

#[test]
fn a_key_is_kept_as_its_bytes() {
    let key = EndorsementKey::try_from(&host().key.to_bytes()[..]).unwrap();
    let [kept, made] = [key, host().key.clone()].map(|key| Reporter::new(key, GUEST).report(&[1; 64]));
    assert_eq!(kept, made);
    assert_eq!(EndorsementKey::try_from(&[0; 48][..]).unwrap_err(), NotAKey);
    assert_eq!(EndorsementKey::try_from(&[1; 47][..]).unwrap_err(), NotAKey);
    assert_eq!(format!("{:?}", host().key), "EndorsementKey");
}
