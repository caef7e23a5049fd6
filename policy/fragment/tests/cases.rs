//! Signed messages of the caller: every `*.cose` in the directory `cose` of `CASEMATE_CASES` is verified.

use policy_fragment::{Fragment, TrustList};
use std::path::Path;

/// Names the directory.
const VARIABLE: &str = "CASEMATE_CASES";

#[test]
fn messages_of_the_caller() {
    let Some(cases) = std::env::var_os(VARIABLE) else {
        eprintln!("skipped: messages_of_the_caller: {VARIABLE} names no directory");
        return;
    };
    let directory = Path::new(&cases).join("cose");
    let mut verified = 0;
    for entry in std::fs::read_dir(&directory).expect("the directory of messages") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "cose") {
            continue;
        }
        let bytes = std::fs::read(&path).expect("a message");
        if let (Err(fragment), Err(list)) = (Fragment::open(&bytes), TrustList::open(&bytes)) {
            panic!("{}: no fragment ({fragment:?}) and no trust list ({list:?})", path.display());
        }
        verified += 1;
    }
    assert!(verified > 0, "{} holds no message", directory.display());
}
