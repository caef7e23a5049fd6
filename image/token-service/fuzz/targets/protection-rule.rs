//! A protection rule and a tag rule as somebody writes them, a field a line: faults or a rule, never both.
#![no_main]

use libfuzzer_sys::fuzz_target;
use registry_rules::{PathPattern, Rule, TagRule};

fuzz_target!(|text: &str| {
    let fields: Vec<&str> = text.split('\n').collect();
    let field = |n: usize| fields.get(n).copied();
    let project = "g/p".parse().expect("a name");
    let pattern = field(0).unwrap_or_default();
    if Rule::check(&project, pattern, field(1), field(2), false).is_empty() {
        assert!(pattern.to_ascii_lowercase().starts_with("g/p") && pattern.is_ascii());
        assert!(PathPattern::new(pattern).matches(pattern));
    }
    if let Err(faults) = TagRule::parts(pattern, field(1), field(2)) {
        assert!(!faults.is_empty());
    }
});
