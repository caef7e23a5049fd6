//! Regular expressions with the semantics of RE2, the dialect of policies.
//!
//! A pattern is rewritten for crate `regex`, whose dialect differs: in RE2 `\d`, `\s`, `\w` and `\b` are ASCII, classes have no set
//! operators, a brace that is no counter is a literal, and counters are limited. Patterns that RE2 refuses are refused, and so is
//! `\B`, which has no equivalent.

use std::collections::HashMap;

use regex::{Regex, RegexBuilder};
use thiserror::Error;

mod translate;

/// Longest pattern in bytes.
const MAX_PATTERN_BYTES: usize = 64 << 10;
/// Largest compiled pattern in bytes.
const MAX_COMPILED_BYTES: usize = 4 << 20;
/// Patterns up to this length without counters and classes are never too large.
const MAX_UNCHECKED_BYTES: usize = 256;
/// Maximum number of compiled patterns in the cache, since requests can contain patterns.
const MAX_KEPT: usize = 8192;

/// Why a pattern is unusable. A rule with such a pattern never matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PatternError {
    /// Longer than 64 KiB.
    #[error("pattern is longer than {MAX_PATTERN_BYTES} bytes")]
    TooLong,
    /// Groups are nested too deeply.
    #[error("groups nest too deep")]
    TooDeep,
    /// A counter above 1000, alone or multiplied by the enclosing counters.
    #[error("invalid repeat count")]
    RepeatCount,
    /// `*`, `+`, `?` or a counter after nothing.
    #[error("missing argument to repetition operator")]
    NothingToRepeat,
    /// `**` and the like.
    #[error("invalid nested repetition operator")]
    NestedRepeat,
    /// An escape that is undefined or has no equivalent.
    #[error("invalid escape sequence")]
    Escape,
    /// A class that is unclosed, or has an unknown name or a reversed range.
    #[error("invalid character class")]
    Class,
    /// A group with an unbalanced parenthesis or unknown flags.
    #[error("invalid or unclosed group")]
    Group,
    /// `\B`, which crate `regex` cannot express over ASCII.
    #[error("\\B is not supported")]
    NoEqual,
    /// Too large when compiled.
    #[error("pattern is too large when compiled")]
    TooLarge,
}

impl PatternError {
    /// Whether RE2 accepts the pattern and this engine does not. A policy with it must not load, since its meaning would change.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::TooLong | Self::TooDeep | Self::TooLarge | Self::NoEqual)
    }
}

/// A cache of compiled patterns.
#[derive(Default)]
pub(crate) struct Patterns {
    anchored: Compiled,
    free: Compiled,
    /// Whether anchors apply to the whole pattern instead of its first and last alternative.
    whole: bool,
}

type Compiled = HashMap<String, Result<Regex, PatternError>>;

impl Patterns {
    /// From now on, anchors apply to whole patterns.
    pub(crate) fn anchor_whole(&mut self) {
        self.whole = true;
        self.anchored.clear();
    }

    /// Whether `pattern` matches in `text`; with `anchor`, as anchored by [`anchored`].
    pub(crate) fn is_match(&mut self, pattern: &str, text: &str, anchor: bool) -> Result<bool, PatternError> {
        if anchor && is_literal(pattern) {
            return Ok(pattern == text);
        }
        let compiled = if anchor { &mut self.anchored } else { &mut self.free };
        if let Some(compiled) = compiled.get(pattern) {
            return compiled.as_ref().map(|regex| regex.is_match(text)).map_err(|error| *error);
        }
        let new = match (anchor, self.whole) {
            (true, true) => compile(&format!("^(?:{pattern})$")),
            (true, false) => compile(&anchored(pattern)),
            (false, _) => compile(pattern),
        };
        let result = new.as_ref().map(|regex| regex.is_match(text)).map_err(|error| *error);
        if compiled.len() >= MAX_KEPT {
            compiled.clear();
        }
        compiled.insert(pattern.to_owned(), new);
        result
    }
}

/// Whether every character of the pattern is a literal.
fn is_literal(pattern: &str) -> bool {
    pattern
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-' | b'=' | b':' | b',' | b' ' | b'@' | b'%'))
}

/// Whether a rule with this pattern can ever match.
///
/// # Errors
/// The reason why RE2 refuses the pattern.
pub fn check_pattern(pattern: &str) -> Result<(), PatternError> {
    compile(&anchored(pattern)).map(|_| ())
}

/// Whether `pattern` matches `text` as in rules of a policy, that is, anchored.
///
/// # Errors
/// The reason why RE2 refuses the pattern.
pub fn matches_pattern(pattern: &str, text: &str) -> Result<bool, PatternError> {
    compile(&anchored(pattern)).map(|regex| regex.is_match(text))
}

/// As [`check_pattern`], without compiling patterns that cannot be too large: a policy may have thousands.
pub(crate) fn check_pattern_quickly(pattern: &str) -> Result<(), PatternError> {
    if pattern.len() > MAX_UNCHECKED_BYTES || pattern.contains(['{', '\\']) {
        return check_pattern(pattern);
    }
    translate::translate(&anchored(pattern)).map(|_| ())
}

/// Adds `^` and `$` if the pattern lacks them. `a|b` becomes `^a|b$`, as in hcsshim.
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
    // The rewritten pattern is valid, so that only its size can be refused.
    RegexBuilder::new(&translated)
        .size_limit(MAX_COMPILED_BYTES)
        .build()
        .map_err(|_| PatternError::TooLarge)
}

#[cfg(test)]
mod tests;
