//! Questions for every product, answers that are not what was asked for, and the files that tests of the command line answer with.

use super::amd;
use super::forge::{Case, NOW, Signer};
use crate::key_server::{AnswerError, Kind, QuestionError, Questions};
use crate::{Collateral, Time};
use attestation::{Product, Report, SigningKey};
use std::fs;
use std::path::PathBuf;
use x509_cert::der::pem::{LineEnding, encode_string};

fn asked(case: &Case) -> Vec<(String, String)> {
    let report = Report::parse(&case.report()).unwrap();
    let questions = Questions::about(&report, None).unwrap().all();
    questions.into_iter().map(|question| (question.path, question.file)).collect()
}

fn pair(path: &str, file: &str) -> (String, String) {
    (path.to_owned(), file.to_owned())
}

#[test]
fn each_product_is_asked_for_by_its_parts() {
    let chip = "c1".repeat(64);
    assert_eq!(
        asked(&Case::new(Product::Genoa, 3)),
        [
            pair("/vcek/v1/Genoa/cert_chain", "genoa-vcek-chain.pem"),
            pair(
                &format!("/vcek/v1/Genoa/{chip}?blSPL=126&teeSPL=127&snpSPL=132&ucodeSPL=133"),
                &format!("genoa-vcek-{chip}-7e7f000000008485.der")
            ),
            pair("/vcek/v1/Genoa/crl", "genoa-vcek.crl"),
        ]
    );
    let path = |product, version| asked(&Case::new(product, version))[1].0.clone();
    let turin = "/vcek/v1/Turin/c1c1c1c1c1c1c1c1?fmcSPL=126&blSPL=127&teeSPL=128&snpSPL=129&ucodeSPL=133";
    assert_eq!(path(Product::Turin, 5), turin);
    assert_eq!(
        path(Product::Venice, 5),
        "/vcek/v1/Venice/c1c1c1c1c1c1c1c1?fmcSPL=126&teeSPL=128&snpSPL=129"
    );
    assert_eq!(
        asked(&Case::new(Product::Turin, 5).loaded()),
        [
            pair("/vlek/v1/Turin/cert_chain", "turin-vlek-chain.pem"),
            pair("/vlek/v1/Turin/crl", "turin-vlek.crl"),
        ]
    );
    // AMD's sample, as the key server was asked for it: numbers below ten have two digits.
    let report = Report::parse(&amd::sample()).unwrap();
    let sample = Questions::about(&report, Some(Product::Milan)).unwrap().all().remove(1);
    assert!(
        sample.path.ends_with("?blSPL=03&teeSPL=00&snpSPL=08&ucodeSPL=115"),
        "{}",
        sample.path
    );
}

#[test]
fn what_cannot_be_asked_for_is_said() {
    let about = |spoil: fn(&mut Case), version, named| {
        let mut case = Case::new(Product::Turin, version);
        spoil(&mut case);
        let report = Report::parse(&case.report()).unwrap();
        Questions::about(&report, named).map(|_| ())
    };
    assert_eq!(about(|_| {}, 2, None), Err(QuestionError::Unsaid));
    assert_eq!(about(|_| {}, 2, Some(Product::Turin)), Ok(()));
    assert_eq!(about(|_| {}, 3, Some(Product::Turin)), Ok(()));
    let other = QuestionError::Other(Product::Turin, Product::Genoa);
    assert_eq!(about(|_| {}, 3, Some(Product::Genoa)), Err(other));
    assert_eq!(about(|case| case.raw[0x188] = 1, 3, None), Err(QuestionError::Unknown));
    assert_eq!(about(|case| case.raw[0x1a0..0x1e0].fill(0), 3, None), Err(QuestionError::Masked));
    let none = QuestionError::SigningKey(SigningKey::None);
    assert_eq!(about(|case| case.raw[0x48] = 7 << 2, 3, None), Err(none));
}

fn pem(certificates: &[Vec<u8>]) -> Vec<u8> {
    let encode = |der: &Vec<u8>| encode_string("CERTIFICATE", LineEnding::LF, der).unwrap();
    certificates.iter().map(encode).collect::<String>().into_bytes()
}

#[test]
fn an_answer_is_kept_only_if_it_is_what_was_asked_for() {
    let case = Case::new(Product::Turin, 5);
    let (root, authority, leaf) = (case.root_certificate(), case.authority_certificate(), case.leaf_certificate());
    let list = |issued, signer| {
        let mut case = case.clone();
        (case.lists[0].issued, case.lists[0].signer) = (issued, signer);
        case.revocation_list()
    };
    let mut there = Collateral::default();
    there.add(&pem(&[authority.clone(), root.clone()])).unwrap();
    there.add(&list(NOW - 100, Signer::Root)).unwrap();
    let report = Report::parse(&case.report()).unwrap();
    let questions = Questions::about(&report, None).unwrap();
    let judge = |kind, answer: &[u8]| questions.judge(kind, answer, &there).map_err(|error| error.to_string());

    assert_eq!(judge(Kind::Chain, &pem(&[authority.clone(), root.clone()])), Ok(()));
    assert_eq!(judge(Kind::Endorsement, &leaf), Ok(()));
    assert_eq!(judge(Kind::List, &list(NOW - 100, Signer::Root)), Ok(()));
    assert_eq!(judge(Kind::List, &list(NOW, Signer::Root)), Ok(()));

    let older = AnswerError::Older(Time::from_unix(NOW - 101), Time::from_unix(NOW - 100));
    assert_eq!(judge(Kind::List, &list(NOW - 101, Signer::Root)), Err(older.to_string()));
    let of = |spoil: fn(&mut Case)| {
        let mut case = case.clone();
        spoil(&mut case);
        case
    };
    let stranger = of(|case| case.leaf().signer = Signer::Stranger).leaf_certificate();
    let renamed = of(|case| case.leaf().name = "SEV-VLEK".to_owned()).leaf_certificate();
    let forged = of(|case| case.authority.as_mut().unwrap().signer = Signer::Stranger).authority_certificate();
    let own = of(|case| case.root.as_mut().unwrap().signer = Signer::Stranger).root_certificate();
    let genoa = Case::new(Product::Genoa, 5);
    for (kind, answer, problem) in [
        (Kind::Chain, b"<html>".to_vec(), "of no use"),
        (Kind::Chain, root.clone(), "not ARK-Turin and SEV-Turin"),
        (Kind::Chain, pem(&[forged, root.clone()]), "not ARK-Turin and SEV-Turin"),
        (Kind::Chain, pem(&[authority.clone(), own]), "not ARK-Turin and SEV-Turin"),
        (
            Kind::Chain,
            pem(&[authority.clone(), root.clone(), leaf.clone()]),
            "not ARK-Turin and SEV-Turin",
        ),
        (
            Kind::Chain,
            pem(&[genoa.authority_certificate(), genoa.root_certificate()]),
            "not ARK-Turin and SEV-Turin",
        ),
        (Kind::Endorsement, authority, "not the certificate of the key that signed"),
        (Kind::Endorsement, stranger, "not the certificate of the key that signed"),
        (Kind::Endorsement, renamed, "not the certificate of the key that signed"),
        (
            Kind::Endorsement,
            list(NOW, Signer::Root),
            "not the certificate of the key that signed",
        ),
        (
            Kind::List,
            list(NOW, Signer::Stranger),
            "not one revocation list that ARK-Turin signed",
        ),
        (Kind::List, leaf, "not one revocation list that ARK-Turin signed"),
    ] {
        let error = judge(kind, &answer).unwrap_err();
        assert!(error.contains(problem), "{kind:?}: {error}");
    }
    // The key of another report.
    let milan = Report::parse(&amd::sample()).unwrap();
    let questions = Questions::about(&milan, Some(Product::Milan)).unwrap();
    let [_, _, vcek] = amd::milan_chain();
    assert_eq!(questions.judge(Kind::Endorsement, &vcek, &amd::collateral("milan")), Ok(()));
    assert!(questions.judge(Kind::Endorsement, &case.leaf_certificate(), &there).is_err());
}

/// Environment variable: write the files instead of comparing them.
const WRITE: &str = "CASEMATE_WRITE_FIXTURES";

/// `fixtures/test`: a Turin's report of version 5, and what a key server has about it, under a root of tests.
#[test]
fn the_files_of_the_test_root_are_those_that_tests_make() {
    let case = Case::new(Product::Turin, 5);
    let chain = [case.authority_certificate(), case.root_certificate()];
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/test");
    for (file, bytes) in [
        ("report.bin", case.report()),
        ("chain.pem", pem(&chain)),
        ("root.pem", pem(&chain[1..])),
        ("endorsement.der", case.leaf_certificate()),
        ("list.crl", case.revocation_list()),
    ] {
        let path = directory.join(file);
        if std::env::var_os(WRITE).is_some() {
            fs::create_dir_all(&directory).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        assert!(fs::read(&path).unwrap() == bytes, "{file}: {WRITE}=1 writes it");
    }
}
