//! Replays recorded decisions of the reference enforcer: a sample kept here, all of them where they are at hand.

use std::path::Path;

fn replay(text: &str) -> (usize, Vec<String>) {
    let mut passed = 0;
    let mut failed = Vec::new();
    for line in text.lines() {
        match policy::conformance::replay(line) {
            Ok(()) => passed += 1,
            Err(failure) => failed.push(failure.to_string().chars().take(500).collect()),
        }
    }
    (passed, failed)
}

#[test]
fn the_sample_is_decided_as_recorded() {
    let (passed, failed) = replay(include_str!("../vectors/decisions.jsonl"));
    assert!(failed.is_empty(), "{passed} passed, failed:\n{}", failed.join("\n"));
    assert!(passed > 20);
}

#[test]
fn every_recorded_decision_is_replayed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/policy.jsonl");
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: {} is not there", path.display());
        return;
    };
    let (passed, failed) = replay(&text);
    println!("{passed} passed, {} failed", failed.len());
    assert!(failed.is_empty(), "{passed} passed, failed:\n{}", failed.join("\n"));
}
