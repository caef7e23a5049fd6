//! A pattern and a path, separated by the first line's end: one match is right by a slow and plain definition.
#![no_main]

use libfuzzer_sys::fuzz_target;
use registry_rules::PathPattern;

/// Every prefix of the path that the pattern so far can have taken.
fn plainly(pattern: &str, path: &str) -> bool {
    let path = path.as_bytes();
    let mut ends = vec![false; path.len() + 1];
    ends[0] = true;
    for byte in pattern.to_ascii_lowercase().into_bytes() {
        let mut next = vec![false; path.len() + 1];
        for (n, reached) in ends.iter().enumerate() {
            match (reached, byte) {
                (false, _) => {}
                (true, b'*') => next[n..].fill(true),
                (true, _) => {
                    if path.get(n) == Some(&byte) {
                        next[n + 1] = true;
                    }
                }
            }
        }
        ends = next;
    }
    ends[path.len()]
}

fuzz_target!(|text: &str| {
    let (pattern, path) = text.split_once('\n').unwrap_or((text, ""));
    assert_eq!(PathPattern::new(pattern).matches(path), plainly(pattern, path));
});
