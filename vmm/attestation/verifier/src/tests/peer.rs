//! The same reports judged by crate `sev` (virtee, 8.0), which many verifiers use; each disagreement is explained.
//!
//! `sev` verifies a chain that it is given and the report's signature, over bytes that it encodes again from what it has parsed. What the
//! report says is left to its caller, so that most disagreements are checks that it does not make.

use super::amd;
use super::forge::{Case, HARDWARE_ID, NOW, Signer, part_oid};
use crate::verified;
use attestation::{Part, Product, Report};
use sev::certs::snp::{Chain, Verifiable};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser;

/// A report with its chain, who accepts it (we, `sev`), and why not both or none.
struct Row {
    what: &'static str,
    case: Case,
    ours: bool,
    theirs: bool,
    why: &'static str,
}

fn agreed(what: &'static str, accepted: bool, case: Case) -> Row {
    Row {
        what,
        case,
        ours: accepted,
        theirs: accepted,
        why: "",
    }
}

/// Only `sev` accepts it.
fn theirs(what: &'static str, why: &'static str, case: Case) -> Row {
    Row {
        what,
        case,
        ours: false,
        theirs: true,
        why,
    }
}

/// Only we accept it.
fn ours(what: &'static str, why: &'static str, case: Case) -> Row {
    Row {
        what,
        case,
        ours: true,
        theirs: false,
        why,
    }
}

fn with(product: Product, version: u32, change: impl FnOnce(&mut Case)) -> Case {
    let mut case = Case::new(product, version);
    change(&mut case);
    case
}

const CALLER: &str = "sev leaves what the report says to its caller";
const CHAIN: &str = "sev verifies the signatures of the chain that it is given, and nothing else of it";
const NOT_READ: &str = "sev does not look at these bytes, and writes zero for them when it verifies";

fn table() -> Vec<Row> {
    use Product::{Genoa, Turin, Venice};
    let genoa = |change: fn(&mut Case)| with(Genoa, 3, change);
    let turin = |change: fn(&mut Case)| with(Turin, 5, change);
    let venice = |change: fn(&mut Case)| with(Venice, 5, change);
    let mut rows = vec![
        agreed(
            "one bit of the signature flipped",
            false,
            genoa(|case| case.flip = Some((0x2a0, 1))),
        ),
        agreed("one bit of the host data flipped", false, turin(|case| case.flip = Some((0xc0, 1)))),
        agreed("version 1", false, genoa(|case| case.raw[0] = 1)),
        agreed("an unknown processor", false, genoa(|case| case.raw[0x188] = 0x1b)),
        agreed("a reserved byte of the report", false, genoa(|case| case.raw[0x4c] = 1)),
        agreed(
            "a mitigation vector in version 4",
            false,
            with(Turin, 4, |case| case.raw[0x1f8] = 1),
        ),
        agreed("a processor in version 2", false, with(Genoa, 2, |case| case.raw[0x188] = 0x19)),
        agreed("a reserved byte of the TCB", false, genoa(|case| case.raw[0x1f0 + 3] = 1)),
        agreed(
            "an endorsement key signed by a stranger",
            false,
            genoa(|case| case.leaf().signer = Signer::Stranger),
        ),
        agreed(
            "a root that did not sign itself",
            false,
            genoa(|case| case.root.as_mut().unwrap().signer = Signer::Stranger),
        ),
        agreed("a salt of 32 bytes", false, genoa(|case| case.leaf().salt = 32)),
        theirs(
            "version 6",
            "sev reads every later version by the layout of version 5; what a later version means is not known",
            turin(|case| case.raw[0] = 6),
        ),
        theirs(
            "signature algorithm 2",
            "sev verifies ECDSA on P-384 whatever the report says that it is",
            genoa(|case| case.raw[0x34] = 2),
        ),
        theirs(
            "a number of more than 48 bytes in the signature",
            NOT_READ,
            genoa(|case| case.flip = Some((0x2d0, 1))),
        ),
        theirs("bytes after the signature", NOT_READ, genoa(|case| case.flip = Some((0x49f, 1)))),
        theirs("a launch policy with bit 26", CALLER, genoa(|case| case.raw[11] = 4)),
        theirs("a launch policy without bit 17", CALLER, genoa(|case| case.raw[10] = 1)),
        theirs(
            "a boot loader in the TCB of a Venice",
            "sev has Turin's layout for Venice, which has neither boot loader nor microcode parts",
            venice(|case| case.raw[0x1f0 + 1] = 1),
        ),
        ours(
            "a Genoa of version 2, the last 56 bytes of whose chip id are zero",
            "sev guesses the layout from the chip id where a report has no processor; we take it from the certificate",
            with(Genoa, 2, |case| {
                case.raw[0x1a8..0x1e0].fill(0);
                let id = case.raw[0x1a0..0x1e0].to_vec();
                case.set_extension(HARDWARE_ID, id);
            }),
        ),
        ours(
            "a masked chip id in version 2, and allowed",
            "sev needs the chip id for the layout",
            with(Genoa, 2, |case| {
                case.raw[0x1a0..0x1e0].fill(0);
                case.expectations.allow_masked_chip_id = true;
            }),
        ),
        theirs(
            "a masked chip id in version 3, not allowed",
            CALLER,
            genoa(|case| case.raw[0x1a0..0x1e0].fill(0)),
        ),
        theirs("another chip", CHAIN, genoa(|case| case.raw[0x1a0] ^= 1)),
        theirs(
            "the certificate of another TCB",
            CHAIN,
            genoa(|case| case.set_extension(&part_oid(Part::Snp), vec![2, 1, 1])),
        ),
        theirs(
            "the authority of loaded keys",
            CHAIN,
            genoa(|case| case.authority.as_mut().unwrap().name = "SEV-VLEK-Genoa".to_owned()),
        ),
        theirs(
            "an authority that may not issue",
            CHAIN,
            genoa(|case| case.authority.as_mut().unwrap().extensions.clear()),
        ),
        theirs(
            "a critical extension that nobody knows",
            CHAIN,
            genoa(|case| {
                case.leaf().extensions.push(("2.5.29.30".to_owned(), vec![0x30, 0], true));
            }),
        ),
        theirs("an expired endorsement key", CHAIN, genoa(|case| case.leaf().valid.1 = NOW - 1)),
        theirs("a revoked authority", CHAIN, genoa(|case| case.lists[0].serials = vec![2])),
        theirs("a root that nobody named", CHAIN, genoa(|case| case.expectations.roots.clear())),
        theirs(
            "a key that the report says did not sign",
            CALLER,
            genoa(|case| case.raw[0x48] = 7 << 2),
        ),
        theirs(
            "a product that is not accepted",
            CALLER,
            genoa(|case| case.expectations.products = [Turin].into()),
        ),
        theirs("a reported TCB above the current one", CALLER, genoa(|case| case.raw[0x38] = 0)),
        theirs("a TCB at launch below the minimum", CALLER, genoa(|case| case.raw[0x1f0] = 0)),
        theirs("a guest that its host may debug", CALLER, turin(|case| case.raw[10] |= 8)),
        theirs("a report of VMPL 1", CALLER, turin(|case| case.raw[0x30] = 1)),
        theirs("another measurement", CALLER, turin(|case| case.raw[0x90] ^= 1)),
        theirs("another policy", CALLER, turin(|case| case.raw[0xc0] ^= 1)),
        theirs("another nonce", CALLER, turin(|case| case.raw[0x50] ^= 1)),
    ];
    for product in [Genoa, Turin] {
        rows.extend((2..=5).map(|version| agreed("as it should be", true, Case::new(product, version))));
    }
    rows.extend((3..=5).map(|version| agreed("as it should be", true, Case::new(Venice, version))));
    rows.push(agreed("a loaded key", true, Case::new(Genoa, 3).loaded()));
    rows
}

/// What `sev` says: parsed, and signature and chain verified.
fn judged_by_sev(report: &[u8], chain: [&[u8]; 3]) -> bool {
    let [root, authority, leaf] = chain;
    let chain = Chain::from_der(root, authority, leaf).unwrap();
    AttestationReport::from_bytes(report).is_ok_and(|report| (&chain, &report).verify().is_ok())
}

#[test]
fn each_disagreement_with_another_verifier_is_explained() {
    for row in table() {
        let Row {
            what,
            case,
            ours,
            theirs,
            why,
        } = row;
        let raw = case.report();
        let judged = Report::parse(&raw).is_ok_and(|_| verified(&case.checks()));
        let chain = [case.root_certificate(), case.authority_certificate(), case.leaf_certificate()];
        let by_sev = judged_by_sev(&raw, [&chain[0], &chain[1], &chain[2]]);
        assert_eq!((judged, by_sev), (ours, theirs), "{what} (ours, theirs)");
        assert_eq!(why.is_empty(), judged == by_sev, "{what}");
    }
}

/// AMD's sample: both accept it, and we only because Milan is named.
#[test]
fn the_sample_is_accepted_by_both() {
    let [root, authority, leaf] = amd::milan_chain();
    assert!(judged_by_sev(&amd::sample(), [&root, &authority, &leaf]));
    let mut flipped = amd::sample();
    flipped[0xc0] ^= 1;
    assert!(!judged_by_sev(&flipped, [&root, &authority, &leaf]));
}
