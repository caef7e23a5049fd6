//! Regular expressions with the meaning they have in RE2, the dialect policies are written for.
//!
//! A pattern is rewritten for crate `regex`, whose dialect differs where it matters: `\d`, `\s`, `\w` and `\b` mean ASCII in
//! RE2, classes know no set operators, a brace that is no counter is a brace, counters are limited. What RE2 refuses is
//! refused here; so is `\B`, which has no equal.

use std::collections::HashMap;

use regex::{Regex, RegexBuilder};
use thiserror::Error;

mod translate;

/// Longest pattern in bytes.
const MAX_PATTERN_BYTES: usize = 64 << 10;
/// Largest compiled pattern in bytes.
const MAX_COMPILED_BYTES: usize = 4 << 20;
/// Most compiled patterns kept: requests can bring patterns of their own.
const MAX_KEPT: usize = 8192;

/// Why a pattern is not usable. A rule with such a pattern never matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PatternError {
    /// Longer than 64 KiB.
    #[error("pattern is longer than {MAX_PATTERN_BYTES} bytes")]
    TooLong,
    /// Groups within groups.
    #[error("groups nest too deep")]
    TooDeep,
    /// A counter above 1000, alone or multiplied by those around it.
    #[error("invalid repeat count")]
    RepeatCount,
    /// `*`, `+`, `?` or a counter after nothing.
    #[error("missing argument to repetition operator")]
    NothingToRepeat,
    /// `**` and the like.
    #[error("invalid nested repetition operator")]
    NestedRepeat,
    /// A backslash with something that has no meaning after it, or none that can be kept.
    #[error("invalid escape sequence")]
    Escape,
    /// A class that is not closed, or has an unknown name or a range backwards.
    #[error("invalid character class")]
    Class,
    /// A group that is not closed or opened, or has unknown flags.
    #[error("invalid or unclosed group")]
    Group,
    /// Too large when compiled.
    #[error("pattern is too large when compiled")]
    TooLarge,
}

/// Compiled patterns, each compiled once.
#[derive(Default)]
pub(crate) struct Patterns {
    compiled: HashMap<String, Result<Regex, PatternError>>,
}

impl Patterns {
    /// Whether `pattern` is found in `text`; with `anchor`, from start to end as [`anchored`] has it.
    pub(crate) fn is_match(&mut self, pattern: &str, text: &str, anchor: bool) -> Result<bool, PatternError> {
        let pattern = if anchor { anchored(pattern) } else { pattern.to_owned() };
        if let Some(compiled) = self.compiled.get(&pattern) {
            return compiled.as_ref().map(|regex| regex.is_match(text)).map_err(|error| *error);
        }
        let compiled = compile(&pattern);
        let result = compiled.as_ref().map(|regex| regex.is_match(text)).map_err(|error| *error);
        if self.compiled.len() >= MAX_KEPT {
            self.compiled.clear();
        }
        self.compiled.insert(pattern, compiled);
        result
    }
}

/// Whether a rule with this pattern can ever match.
///
/// # Errors
/// Says what RE2 refuses in it.
pub fn check_pattern(pattern: &str) -> Result<(), PatternError> {
    compile(&anchored(pattern)).map(|_| ())
}

/// Whether `pattern` matches `text` as rules of a policy are judged: anchored by [`check_pattern`]'s rule.
///
/// # Errors
/// Says what RE2 refuses in the pattern.
pub fn matches_pattern(pattern: &str, text: &str) -> Result<bool, PatternError> {
    compile(&anchored(pattern)).map(|regex| regex.is_match(text))
}

/// Adds `^` and `$` where the text of the pattern lacks them. `a|b` becomes `^a|b$`, as existing policies are judged.
fn anchored(pattern: &str) -> String {
    let start = if pattern.starts_with('^') { "" } else { "^" };
    let end = if pattern.ends_with('$') { "" } else { "$" };
    format!("{start}{pattern}{end}")
}

fn compile(pattern: &str) -> Result<Regex, PatternError> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(PatternError::TooLong);
    }
    let translated = translate::translate(pattern)?;
    // The rewritten pattern is valid; what is left to refuse is its size.
    RegexBuilder::new(&translated)
        .size_limit(MAX_COMPILED_BYTES)
        .build()
        .map_err(|_| PatternError::TooLarge)
}

#[cfg(test)]
mod tests;
