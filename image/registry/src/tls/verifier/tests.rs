//! Who is trusted: chains, pinned leaves, names and times.

use super::*;
use crate::certificates;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::time::Duration;

/// A day of the years for which rcgen makes certificates.
const NOW: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));

fn params(name: &str, is_ca: bool) -> CertificateParams {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.is_ca = if is_ca {
        IsCa::Ca(BasicConstraints::Unconstrained)
    } else {
        IsCa::NoCa
    };
    params
}

fn pinned(pem: &str) -> Roots {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Roots::pinned(certificates::parse(pem).certificates.unwrap(), &provider)
}

fn verify(roots: &Roots, leaf: &CertificateDer<'_>, name: &str, now: UnixTime) -> Result<(), Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    roots.verify_server_cert(leaf, &[], &name, &[], now).map(|_| ())
}

#[test]
fn a_pinned_leaf_is_accepted_whatever_it_says_of_authorities() {
    for is_ca in [true, false] {
        let key = KeyPair::generate().unwrap();
        let leaf = params("r.corp", is_ca).self_signed(&key).unwrap();
        let roots = pinned(&leaf.pem());
        verify(&roots, leaf.der(), "r.corp", NOW).unwrap();
        let other = verify(&roots, leaf.der(), "other.corp", NOW).unwrap_err();
        assert!(other.to_string().contains("other.corp"), "{other}");
    }
}

#[test]
fn a_pinned_leaf_has_its_time() {
    let key = KeyPair::generate().unwrap();
    let mut short = params("r.corp", true);
    short.not_before = rcgen::date_time_ymd(2026, 1, 1);
    short.not_after = rcgen::date_time_ymd(2026, 2, 1);
    let leaf = short.self_signed(&key).unwrap();
    let roots = pinned(&leaf.pem());
    let at = |seconds| {
        verify(
            &roots,
            leaf.der(),
            "r.corp",
            UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
        )
    };
    assert_eq!(at(1_767_225_599), Err(CertificateError::NotValidYet.into()));
    assert_eq!(at(1_767_225_600), Ok(()));
    assert_eq!(at(1_769_904_000), Ok(()));
    assert_eq!(at(1_769_904_001), Err(CertificateError::Expired.into()));
}

#[test]
fn only_the_pinned_authority_is_trusted() {
    let ca_key = KeyPair::generate().unwrap();
    let ca = params("ca", true).self_signed(&ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(params("ca", true), ca_key);
    let leaf = params("r.corp", false).signed_by(&key, &issuer).unwrap();
    verify(&pinned(&ca.pem()), leaf.der(), "r.corp", NOW).unwrap();
    // A leaf that somebody pinned is no authority for another leaf.
    let pinned_leaf = pinned(&leaf.pem());
    let under_leaf = params("r.corp", false)
        .signed_by(&KeyPair::generate().unwrap(), &Issuer::new(params("r.corp", false), key))
        .unwrap();
    verify(&pinned_leaf, leaf.der(), "r.corp", NOW).unwrap();
    assert!(verify(&pinned_leaf, under_leaf.der(), "r.corp", NOW).is_err());

    let another = params("ca", true).self_signed(&KeyPair::generate().unwrap()).unwrap();
    assert!(verify(&pinned(&another.pem()), leaf.der(), "r.corp", NOW).is_err());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    assert!(verify(&Roots::web(&provider), leaf.der(), "r.corp", NOW).is_err());
}

#[test]
fn nothing_trusted_says_so() {
    let leaf = params("r.corp", true).self_signed(&KeyPair::generate().unwrap()).unwrap();
    let name = ServerName::try_from("r.corp").unwrap();
    let error = Nobody.verify_server_cert(leaf.der(), &[], &name, &[], NOW).unwrap_err();
    assert!(error.to_string().contains("ca-certs"), "{error}");
}
