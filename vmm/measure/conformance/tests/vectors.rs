//! Digests, save areas and ID blocks of `sev-snp-measure` come out the same, and a vector with a changed byte fails.

use std::fs;
use std::path::Path;

/// Environment variable with the path of further vectors; firmware and keys that they name are beside it.
const VARIABLE: &str = "CASEMATE_LAUNCH_VECTORS";
const OWN: &str = "vectors/launch.json";

fn own() -> (String, std::path::PathBuf) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(OWN);
    (fs::read_to_string(&file).expect("the vectors"), file)
}

fn replay(text: &str, file: &Path) -> launch_conformance::Outcome {
    let outcome = launch_conformance::replay(text, file.parent().expect("a file")).expect("vectors");
    for skipped in &outcome.skipped {
        eprintln!("skipped: {skipped}");
    }
    outcome
}

#[test]
fn vectors_of_the_repository() {
    let (text, file) = own();
    let outcome = replay(&text, &file);
    assert!(outcome.failed.is_empty(), "{:#?}", outcome.failed);
    assert!(outcome.passed >= 29, "{}", outcome.passed);
}

#[test]
fn vectors_of_the_caller() {
    let Some(file) = std::env::var_os(VARIABLE) else {
        eprintln!("skipped: vectors_of_the_caller: {VARIABLE} names no file");
        return;
    };
    let file = Path::new(&file);
    let outcome = replay(&fs::read_to_string(file).expect("the vectors"), file);
    assert!(outcome.failed.is_empty(), "{:#?}", outcome.failed);
    assert!(outcome.passed > 0);
}

#[test]
fn a_changed_vector_fails_and_is_named() {
    let (text, file) = own();
    for (from, to, names) in [
        // The first digest of `one_normal`, and the address of its page.
        ("0d2eea48", "0d2eea49", "sequence one_normal: "),
        // CR0 of our first vCPU.
        ("e020000000080033000180", "e020000000080031000180", "vmsa own_bsp_dboot64: "),
        // The address of the boot page.
        ("0x210000", "0x216000", "layout of own_layout_1vcpu: "),
        ("06d63894", "06d63895", "kernel_hashes: "),
        ("\"0x30000\"", "\"0x30001\"", "id_block: "),
    ] {
        assert!(text.contains(from), "{from}");
        let outcome = replay(&text.replace(from, to), &file);
        assert!(
            outcome.failed.iter().any(|failed| failed.starts_with(names)),
            "{names} {:#?}",
            outcome.failed
        );
    }
}

#[test]
fn vectors_that_ask_for_the_impossible_fail_and_nothing_panics() {
    let wrong = r#"{
        "vmsa": {"who": {"sha256": "", "sha384": "", "nonzero": [["0xffff", "00"]]},
                 "own_ap_reset_rdx0": {"sha256": "", "sha384": "", "nonzero": [["0xffffffffffffffff", "00"]]}},
        "sequences": {
            "half": {"steps": [{"type": "zero", "gpa": "0x1000", "len": 100}], "ld": "", "chain": [""]},
            "huge": {"steps": [{"type": "zero", "gpa": "0x1000", "len": 1099511627776}], "ld": "", "chain": [""]},
            "end": {"steps": [{"type": "zero", "gpa": "0xfffffffffffff000", "len": 8192}], "ld": "", "chain": [""]},
            "kind": {"steps": [{"type": "other", "gpa": "0x1000"}], "ld": "", "chain": [""]},
            "twice": {"steps": [{"type": "zero", "gpa": "0x1000"}, {"type": "zero", "gpa": "0x1000"}], "ld": "", "chain": ["", ""]}
        }
    }"#;
    let outcome = replay(wrong, Path::new("/nowhere/file"));
    assert_eq!((outcome.passed, outcome.failed.len()), (0, 7), "{:#?}", outcome.failed);
    assert!(launch_conformance::replay("[]", Path::new("/")).is_err());
}
