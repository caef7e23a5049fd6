//! Regular expressions with the meaning they have in RE2, the dialect policies are written for.

use std::collections::HashMap;

use regex::Regex;

/// Compiled patterns, each compiled once.
#[derive(Default)]
pub(crate) struct Patterns {
    compiled: HashMap<String, Option<Regex>>,
}

/// The pattern is not RE2, or too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadPattern;

impl Patterns {
    pub(crate) fn is_match(&mut self, pattern: &str, text: &str, anchor: bool) -> Result<bool, BadPattern> {
        let pattern = if anchor { anchored(pattern) } else { pattern.to_owned() };
        if !self.compiled.contains_key(&pattern) {
            self.compiled.insert(pattern.clone(), Regex::new(&pattern).ok());
        }
        match self.compiled.get(&pattern) {
            Some(Some(regex)) => Ok(regex.is_match(text)),
            _ => Err(BadPattern),
        }
    }
}

/// Adds `^` and `$` where the text of the pattern lacks them. `a|b` becomes `^a|b$`, as existing policies are judged.
fn anchored(pattern: &str) -> String {
    let start = if pattern.starts_with('^') { "" } else { "^" };
    let end = if pattern.ends_with('$') { "" } else { "$" };
    format!("{start}{pattern}{end}")
}
