//! Layers of the caller: those in the directory `layers` of `CASEMATE_CASES` convert or are refused by name.

use layer::{ConvertError, Limits};
use std::fs::File;
use std::path::Path;

/// Names the directory.
const VARIABLE: &str = "CASEMATE_CASES";

#[test]
fn layers_of_the_caller() {
    let Some(cases) = std::env::var_os(VARIABLE) else {
        eprintln!("skipped: layers_of_the_caller: {VARIABLE} names no directory");
        return;
    };
    let directory = Path::new(&cases).join("layers");
    let convert = |name: &str| layer::hash(File::open(directory.join(name)).expect(name), &Limits::default());
    let wide = convert("ultra22.tar.zst").expect("a window of 128 MiB");
    assert_eq!(
        wide.root_hash.to_string(),
        "5d8f91f9774663d4413de367377ba3819da7e755dcce9bf134cbb372db8ef8aa"
    );
    assert!(matches!(convert("x.tar.xz"), Err(ConvertError::Format("xz"))));
}
