//! Replays recorded decisions of the reference enforcer.

use std::path::Path;

fn run(path: &Path) -> (usize, Vec<String>) {
    let text = std::fs::read_to_string(path).expect("vector file");
    let mut passed = 0;
    let mut failed = Vec::new();
    for line in text.lines() {
        match policy::conformance::replay(line) {
            Ok(()) => passed += 1,
            Err(error) => failed.push(error.to_string()),
        }
    }
    (passed, failed)
}

#[test]
fn full_vectors() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors/policy.jsonl");
    let (passed, failed) = run(&path);
    for failure in &failed {
        println!("{}", failure.chars().take(600).collect::<String>());
    }
    println!("{passed} passed, {} failed", failed.len());
}
