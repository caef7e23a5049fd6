//! Replays the recorded decisions of hcsshim: those of the repository, or those of the file that `CASEMATE_POLICY_VECTORS` names.

use std::path::PathBuf;

use policy_conformance::{VECTORS, read, replay};

/// Scenarios of the repository's file.
const SCENARIOS: usize = 393;

#[test]
fn every_recorded_decision_is_replayed() {
    let named = std::env::var_os("CASEMATE_POLICY_VECTORS").map(PathBuf::from);
    let path = named.clone().unwrap_or_else(|| VECTORS.into());
    let text = read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    let mut passed = 0;
    let mut failed: Vec<String> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match replay(line) {
            Ok(()) => passed += 1,
            Err(failure) => failed.push(failure.to_string().chars().take(500).collect()),
        }
    }
    assert!(failed.is_empty(), "{passed} passed, failed:\n{}", failed.join("\n"));
    if named.is_none() {
        assert_eq!(passed, SCENARIOS);
    }
    assert!(passed > 0, "{} has no scenarios", path.display());
}

#[test]
fn a_decision_that_differs_fails() {
    let text = read(VECTORS.as_ref()).unwrap();
    let line = text.lines().find(|line| line.contains("\"allowed\":false")).unwrap();
    assert!(replay(line).is_ok());
    assert!(replay(&line.replace("\"allowed\":false", "\"allowed\":true")).is_err());
}
