//! Each check fails alone on what it is for; whole chains of every product and version pass; AMD's own sample passes.

mod amd;
mod bits;
mod files;
mod forge;
mod key_server;
mod peer;

use crate::{Collateral, Expectations, Levels, Mitigations, Revocation, Time, Wanted, verified, verify};
use attestation::{Part, Product, Report, SigningKey};
use forge::{Case, HARDWARE_ID, NOW, PRODUCT_NAME, Signer, issuer_extensions, part_oid};

#[test]
fn every_product_and_version_passes() {
    for (product, version) in [
        (Product::Milan, 2),
        (Product::Genoa, 2),
        (Product::Genoa, 3),
        (Product::Genoa, 4),
        (Product::Turin, 3),
        (Product::Turin, 5),
        (Product::Venice, 4),
        (Product::Venice, 5),
    ] {
        for case in [Case::new(product, version), Case::new(product, version).loaded()] {
            assert_eq!(case.failed(), Vec::<&str>::new(), "{product} {version}");
            assert!(verified(&case.checks()));
        }
    }
}

/// What a test spoils, and the only check that it fails.
type Spoiled = (&'static str, fn(&mut Case));

fn fails_alone(product: Product, table: &[Spoiled]) {
    for (name, spoil) in table {
        let mut case = Case::new(product, 5);
        spoil(&mut case);
        assert_eq!(case.failed(), [*name], "{:#?}", case.checks());
        assert!(!verified(&case.checks()));
    }
}

#[test]
fn what_is_wrong_with_the_report_fails_its_check() {
    fails_alone(
        Product::Turin,
        &[
            ("reserved fields", |case| case.raw[0x4c] = 1),
            ("reserved fields", |case| case.raw[0x20f] = 1),
            ("reserved fields", |case| case.flip = Some((0x2d0, 1))),
            ("reserved fields", |case| case.flip = Some((0x49f, 0x80))),
            ("report signature", |case| case.flip = Some((0x140, 1))),
            ("report signature", |case| case.flip = Some((0x2a0, 1))),
            ("report signature", |case| case.flip = Some((0x317, 1))),
            ("report signature", |case| case.raw[0x34] = 2),
            ("TCB order", |case| case.raw[0x1e0] = 0),
            ("TCB order", |case| case.raw[0x38 + 7] = 0),
            ("TCB order", |case| case.raw[0x1e0 + 4] = 1),
            ("TCB order", |case| case.raw[0x1f0 + 5] = 1),
            ("launch TCB", |case| case.raw[0x1f0 + 2] -= 1),
            ("debug", |case| case.raw[10] |= 1 << 3),
            ("migration", |case| case.raw[10] |= 1 << 2),
            ("VMPL", |case| case.raw[0x30] = 1),
            ("VMPL", |case| case.raw[0x33] = 1),
            ("measurement", |case| case.raw[0xbf] ^= 1),
            ("host data", |case| case.raw[0xdf] ^= 1),
            ("report data", |case| case.raw[0x8f] ^= 1),
            ("chip id", |case| case.raw[0x1a0 + 7] ^= 1),
            ("chip id", |case| case.raw[0x1a0 + 8] = 1),
            ("chip id", |case| case.raw[0x1df] = 1),
            ("chip id", |case| case.raw[0x1a0..0x1e0].fill(0)),
            ("signing key", |case| case.raw[0x48] = 7 << 2),
            ("signing key", |case| case.raw[0x48] = 2),
            ("certificate TCB", |case| {
                (case.raw[0x180 + 2], case.raw[0x1e0 + 2], case.raw[0x38 + 2]) = (0x90, 0x90, 0x90);
            }),
        ],
    );
}

#[test]
fn what_is_expected_and_absent_fails_its_check() {
    fails_alone(
        Product::Turin,
        &[
            ("product allowed", |case| case.expectations.products = [Product::Genoa].into()),
            ("product allowed", |case| case.expectations.products.clear()),
            ("signing key", |case| case.expectations.signing_keys = [SigningKey::Vlek].into()),
            ("root key", |case| case.expectations.roots.clear()),
            ("root key", |case| {
                let named = case.expectations.roots.remove(&Product::Turin).unwrap();
                case.expectations.roots.insert(Product::Genoa, named);
            }),
            ("platform required", |case| case.expectations.platform_info.required = 1 << 4),
            ("platform forbidden", |case| case.expectations.platform_info.forbidden = 1),
            ("mitigations at launch", |case| {
                case.expectations.mitigations = Mitigations { launch: 4, current: 4 };
            }),
            ("mitigations now", |case| {
                case.expectations.mitigations = Mitigations { launch: 1, current: 8 };
            }),
            ("smt", |case| case.expectations.guest_policy.smt = false),
            ("measurement", |case| case.expectations.measurements = Wanted::Unsaid),
            ("host data", |case| case.expectations.host_data = Wanted::Unsaid),
            ("report data", |case| case.expectations.report_data = Wanted::Unsaid),
            ("id key", |case| case.expectations.id_key_digests = [[9; 48]].into()),
        ],
    );
    let mut case = Case::new(Product::Turin, 5);
    case.expectations.minimum_tcb.clear();
    assert_eq!(case.failed(), ["minimum TCB", "launch TCB"]);
    let mut case = Case::new(Product::Turin, 4);
    case.expectations.mitigations = Mitigations { launch: 1, current: 1 };
    assert_eq!(
        case.failed(),
        ["mitigations at launch", "mitigations now"],
        "version 4 has no vectors"
    );
}

#[test]
fn a_level_below_the_minimum_fails_whatever_the_others_are() {
    for product in Product::ALL {
        for (part, at) in product.tcb_parts() {
            let mut case = Case::new(product, 5);
            let above = product
                .tcb_parts()
                .iter()
                .map(|(other, at)| (*other, 0x7e + *at as u8 + u8::from(other == part)));
            let minimum = Levels::new(product, above.collect()).unwrap();
            case.expectations.minimum_tcb.insert(product, minimum);
            assert_eq!(case.failed(), ["minimum TCB", "launch TCB"], "{product} {at}");
        }
    }
}

#[test]
fn what_is_wrong_with_the_chain_fails_its_check() {
    fails_alone(
        Product::Genoa,
        &[
            ("product", |case| case.set_extension(PRODUCT_NAME, b"\x16\x05Turin".to_vec())),
            ("product", |case| case.set_extension(PRODUCT_NAME, b"\x16\x06Genoa".to_vec())),
            ("certificate names", |case| {
                case.authority.as_mut().unwrap().name = "SEV-VLEK-Genoa".to_owned()
            }),
            ("certificate names", |case| {
                case.authority.as_mut().unwrap().name = "SEV-Turin".to_owned()
            }),
            ("certificate names", |case| {
                case.root.as_mut().unwrap().name = "ARK-Milan".to_owned()
            }),
            ("root signature", |case| case.root.as_mut().unwrap().signer = Signer::Stranger),
            ("authority signature", |case| {
                case.authority.as_mut().unwrap().signer = Signer::Stranger
            }),
            ("authority signature", |case| case.authority.as_mut().unwrap().salt = 32),
            ("endorsement signature", |case| case.leaf().signer = Signer::Stranger),
            ("endorsement signature", |case| case.leaf().signer = Signer::Root),
            ("authorities", |case| case.authority.as_mut().unwrap().extensions.clear()),
            ("authorities", |case| {
                case.root.as_mut().unwrap().extensions = issuer_extensions(Some(0))
            }),
            ("authorities", |case| case.leaf().extensions.extend(issuer_extensions(None))),
            ("authorities", |case| {
                case.leaf().extensions.push(("2.5.29.30".to_owned(), vec![0x30, 0], true))
            }),
            ("validity", |case| case.leaf().valid.1 = NOW - 1),
            ("validity", |case| case.leaf().valid.0 = NOW + 1),
            ("validity", |case| case.authority.as_mut().unwrap().valid.1 = NOW - 1),
            ("validity", |case| case.root.as_mut().unwrap().valid.0 = NOW + 1),
            ("chip id", |case| case.leaf().extensions.retain(|(oid, ..)| oid != HARDWARE_ID)),
            ("chip id", |case| case.set_extension(HARDWARE_ID, vec![0xc1; 63])),
            ("chip id", |case| case.set_extension(HARDWARE_ID, vec![0xc1; 65])),
            ("chip id", |case| {
                let again = (HARDWARE_ID.to_owned(), vec![0xc1; 64], false);
                case.leaf().extensions.push(again);
            }),
        ],
    );
}

#[test]
fn levels_of_the_certificate_are_compared_as_exact_der() {
    // The report says 0x84 for SNP (byte 6) and 0x7e for the boot loader (byte 0).
    fails_alone(
        Product::Genoa,
        &[
            ("certificate TCB", |case| {
                case.set_extension(&part_oid(Part::Snp), vec![2, 2, 0, 0x85])
            }),
            ("certificate TCB", |case| case.set_extension(&part_oid(Part::Snp), vec![2, 1, 0x84])),
            ("certificate TCB", |case| {
                case.set_extension(&part_oid(Part::Snp), vec![2, 3, 0, 0, 0x84])
            }),
            ("certificate TCB", |case| {
                case.set_extension(&part_oid(Part::BootLoader), vec![2, 1, 0x7e, 0])
            }),
            ("certificate TCB", |case| {
                case.set_extension(&part_oid(Part::BootLoader), vec![2, 1])
            }),
            ("certificate TCB", |case| case.set_extension(&part_oid(Part::BootLoader), vec![])),
            ("certificate TCB", |case| {
                let again = (part_oid(Part::Snp), vec![2, 2, 0, 0x84], false);
                case.leaf().extensions.push(again);
            }),
            ("certificate TCB", |case| {
                case.leaf().extensions.retain(|(oid, ..)| *oid != part_oid(Part::Tee));
            }),
            // Genoa has no FMC, and nothing has a fourth level.
            ("certificate TCB", |case| {
                case.leaf().extensions.push((part_oid(Part::Fmc), vec![2, 1, 1], false))
            }),
            ("certificate TCB", |case| {
                case.leaf()
                    .extensions
                    .push(("1.3.6.1.4.1.3704.1.3.4".to_owned(), vec![2, 1, 1], false));
            }),
        ],
    );
    let mut case = Case::new(Product::Genoa, 5);
    case.leaf()
        .extensions
        .push(("1.3.6.1.4.1.3704.1.3.4".to_owned(), vec![2, 1, 0], false));
    case.set_extension(HARDWARE_ID, [vec![4, 64], vec![0xc1; 64]].concat());
    assert_eq!(case.failed(), Vec::<&str>::new(), "zero levels, and a chip id as OCTET STRING");
}

#[test]
fn revocation_lists_are_genuine_and_current() {
    fails_alone(
        Product::Turin,
        &[
            ("revocation list age", |case| case.lists[0].due = Some(NOW - 1)),
            ("revocation list age", |case| case.lists[0].due = None),
            ("revocation", |case| case.lists[0].serials = vec![2]),
            ("revocation", |case| case.lists[0].serials = vec![1]),
            // Neither a newer list nor an older one hides another.
            ("revocation", |case| {
                let mut newer = case.lists[0].clone();
                (newer.issued, newer.serials) = (NOW - 1, vec![2]);
                case.lists.insert(0, newer);
            }),
            ("revocation", |case| {
                let mut older = case.lists[0].clone();
                (older.issued, older.due, older.serials) = (NOW - 200, Some(NOW - 100), vec![2]);
                case.lists.push(older);
            }),
        ],
    );
    let absent: [fn(&mut Case); 5] = [
        |case| case.lists.clear(),
        |case| case.lists[0].issued = NOW + 1,
        |case| case.lists[0].signer = Signer::Authority,
        |case| case.lists[0].signer = Signer::Stranger,
        |case| case.lists[0].critical = true,
    ];
    for (index, spoil) in absent.into_iter().enumerate() {
        for demand in [Revocation::Required, Revocation::StaleAllowed] {
            let mut case = Case::new(Product::Turin, 5).revocation(demand);
            spoil(&mut case);
            assert_eq!(case.failed(), ["revocation", "revocation list age"], "{index} {demand:?}");
        }
    }
}

/// Whatever is demanded, the age of a list is said, and a list that names the chain counts.
#[test]
fn what_is_demanded_of_revocation_lists_decides_what_their_age_means() {
    let with = |demand, spoil: fn(&mut Case)| {
        let mut case = Case::new(Product::Turin, 5).revocation(demand);
        spoil(&mut case);
        let age = case.checks().into_iter().find(|check| check.name == "revocation list age").unwrap();
        (case.failed(), age.seen)
    };
    let (failed, seen) = with(Revocation::StaleAllowed, |case| case.lists[0].due = Some(NOW - 1));
    assert!(failed.is_empty() && seen.contains("is STALE"), "{failed:?} {seen}");
    let (failed, seen) = with(Revocation::Unchecked, |case| case.lists[0].due = Some(NOW - 1));
    assert!(failed.is_empty() && seen.contains("is STALE"), "{failed:?} {seen}");
    let (failed, seen) = with(Revocation::Unchecked, |case| case.lists.clear());
    assert!(failed.is_empty() && seen == "no list of the root", "{failed:?} {seen}");
    let (failed, seen) = with(Revocation::Unchecked, |case| case.lists[0].signer = Signer::Stranger);
    assert!(failed.is_empty() && seen.contains("signature does not verify"), "{failed:?} {seen}");
    assert_eq!(
        with(Revocation::Unchecked, |case| case.lists[0].serials = vec![2]).0,
        ["revocation"]
    );
}

#[test]
fn a_masked_chip_id_passes_only_if_allowed() {
    let mut case = Case::new(Product::Venice, 5);
    case.raw[0x1a0..0x1e0].fill(0);
    assert_eq!(case.failed(), ["chip id"]);
    case.expectations.allow_masked_chip_id = true;
    assert_eq!(case.failed(), Vec::<&str>::new());
    let mut case = Case::new(Product::Venice, 5).loaded();
    case.leaf().extensions.push((HARDWARE_ID.to_owned(), vec![0xc1; 8], false));
    assert_eq!(case.failed(), ["chip id"], "a VLEK is not of one chip");
    let mut case = Case::new(Product::Venice, 5).loaded();
    case.raw[0x1a0..0x1e0].fill(0);
    assert_eq!(case.failed(), ["chip id"], "nor may its chip be hidden");
    case.expectations.allow_masked_chip_id = true;
    assert_eq!(case.failed(), Vec::<&str>::new());
}

/// Chip keys and loaded keys have authorities of their own under one root.
#[test]
fn a_chip_key_is_none_that_was_loaded_and_the_other_way_round() {
    let both = [SigningKey::Vcek, SigningKey::Vlek];
    // The report says that a chip key signed, and a loaded key did.
    let mut case = Case::new(Product::Genoa, 5).loaded();
    case.expectations.signing_keys = both.into();
    case.raw[0x48] = 0;
    let failed = case.failed();
    assert!(
        failed.contains(&"certificates") && failed.contains(&"report signature"),
        "{failed:?}"
    );
    // The report says that a loaded key signed, and a chip key did.
    let mut case = Case::new(Product::Genoa, 5);
    case.expectations.signing_keys = both.into();
    case.raw[0x48] = 1 << 2;
    let failed = case.failed();
    assert!(
        failed.contains(&"certificates") && failed.contains(&"report signature"),
        "{failed:?}"
    );
    // A loaded key under the authority of chip keys.
    let mut case = Case::new(Product::Genoa, 5).loaded();
    case.authority.as_mut().unwrap().name = "SEV-Genoa".to_owned();
    assert_eq!(case.failed(), ["certificate names"]);
    // A loaded key that has a chip key's name.
    let mut case = Case::new(Product::Genoa, 5).loaded();
    case.leaf().name = "SEV-VCEK".to_owned();
    assert!(case.failed().contains(&"report signature"));
}

#[test]
fn a_root_is_trusted_only_if_it_is_given() {
    let case = Case::new(Product::Turin, 5);
    let root = case.root_certificate();
    let mut untold = case.clone();
    untold.expectations.roots.clear();
    assert_eq!(untold.failed(), ["root key"]);
    let mut told = untold.clone();
    told.expectations.trust(&root).unwrap();
    assert_eq!(told.expectations.roots, case.expectations.roots);
    let check = told.checks().into_iter().find(|check| check.name == "root key").unwrap();
    assert!(
        check.passed && check.seen.ends_with("not one of AMD's that are built in"),
        "{check:?}"
    );

    let mut other = untold.clone();
    other.root.as_mut().unwrap().signer = Signer::Stranger;
    let refused = |bytes: &[u8]| Expectations::default().trust(bytes).unwrap_err().to_string();
    assert!(refused(&other.root_certificate()).starts_with("\"ARK-Turin\" is no root"));
    other = untold.clone();
    other.root.as_mut().unwrap().name = "ARK-Rome".to_owned();
    assert!(refused(&other.root_certificate()).starts_with("\"ARK-Rome\" is no root"));
    assert!(refused(&case.leaf_certificate()).starts_with("\"SEV-VCEK\" is no root"));
    assert_eq!(refused(b""), "no root certificates");
}

/// Of a certificate that expired and its successor, which have one key, the one that is valid is taken.
#[test]
fn an_expired_certificate_does_not_hide_its_successor() {
    let case = Case::new(Product::Genoa, 5);
    let mut old = case.clone();
    old.leaf().valid.1 = NOW - 1;
    old.authority.as_mut().unwrap().valid.1 = NOW - 1;
    let mut all = old.collateral();
    all.certificates.extend(case.collateral().certificates);
    let report = Report::parse(&case.report()).unwrap();
    assert!(verified(&verify(&report, &all, Time::from_unix(NOW), &case.expectations)));
}

#[test]
fn without_certificates_every_other_check_is_still_made() {
    let case = Case::new(Product::Genoa, 5);
    let report = Report::parse(&case.report()).unwrap();
    let now = Time::from_unix(NOW);
    let checks = verify(&report, &Collateral::default(), now, &case.expectations);
    let names = |passed: bool| {
        checks
            .iter()
            .filter(|check| check.passed == passed)
            .map(|check| check.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(checks.len(), case.checks().len());
    assert!(names(false).contains(&"report signature") && names(false).contains(&"root key"));
    assert!(names(true).contains(&"measurement") && names(true).contains(&"minimum TCB"));
    let missing: [Spoiled; 3] = [
        ("root", |case| case.root = None),
        ("authority", |case| case.authority = None),
        ("leaf", |case| case.leaf = None),
    ];
    for (name, spoil) in missing {
        let mut case = Case::new(Product::Genoa, 5);
        spoil(&mut case);
        assert!(case.failed().contains(&"certificates"), "{name}");
        assert_eq!(case.checks().len(), checks.len());
    }
    assert!(!verified(&[]));
}

/// By default no report passes: nothing is expected of it yet.
#[test]
fn the_default_expects_more_than_it_says() {
    let mut case = Case::new(Product::Genoa, 5);
    case.expectations = Expectations::default();
    assert_eq!(
        case.failed(),
        ["root key", "minimum TCB", "launch TCB", "measurement", "host data", "report data"]
    );
}

/// A directory has the certificates of many chips, and others under the same name: the one that fits is chosen.
#[test]
fn the_certificate_that_signed_is_chosen() {
    let case = Case::new(Product::Genoa, 5);
    let mut other = case.clone();
    other.leaf().signer = Signer::Stranger;
    other.authority.as_mut().unwrap().signer = Signer::Stranger;
    other.root.as_mut().unwrap().signer = Signer::Stranger;
    let mut all = other.collateral();
    all.certificates.extend(amd::collateral("milan").certificates);
    all.certificates.extend(case.collateral().certificates);
    all.lists.extend(case.collateral().lists);
    let report = Report::parse(&case.report()).unwrap();
    let mut expectations = case.expectations.clone();
    let failed = |expectations: &Expectations| {
        let checks = verify(&report, &all, Time::from_unix(NOW), expectations);
        checks
            .into_iter()
            .filter(|check| !check.passed)
            .map(|check| check.name)
            .collect::<Vec<_>>()
    };
    // Both leaves have the report's key; the forged one is first.
    assert_eq!(failed(&expectations), Vec::<&str>::new());
    expectations.products.clear();
    assert_eq!(failed(&expectations), ["product allowed"]);
}
