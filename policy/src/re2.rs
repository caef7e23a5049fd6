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
/// Patterns up to this length, without counters and classes, are never too large.
const MAX_UNCHECKED_BYTES: usize = 256;
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
    /// `\B`, which crate `regex` cannot express over ASCII.
    #[error("\\B has no equal here")]
    NoEqual,
    /// Too large when compiled.
    #[error("pattern is too large when compiled")]
    TooLarge,
}

impl PatternError {
    /// Whether RE2 would take the pattern, and it is we who do not: a policy with it must not load, since it would mean something else.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::TooLong | Self::TooDeep | Self::TooLarge | Self::NoEqual)
    }
}

/// Compiled patterns, each compiled once.
#[derive(Default)]
pub(crate) struct Patterns {
    anchored: Compiled,
    free: Compiled,
    /// Whether anchors hold for the whole pattern instead of its first and last alternative.
    whole: bool,
}

type Compiled = HashMap<String, Result<Regex, PatternError>>;

impl Patterns {
    /// From now on, anchors hold for whole patterns.
    pub(crate) fn anchor_whole(&mut self) {
        self.whole = true;
        self.anchored.clear();
    }

    /// Whether `pattern` is found in `text`; with `anchor`, from start to end as [`anchored`] has it.
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

/// Whether every character of the pattern stands for itself.
fn is_literal(pattern: &str) -> bool {
    pattern
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-' | b'=' | b':' | b',' | b' ' | b'@' | b'%'))
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

/// As [`check_pattern`], without compiling patterns that are small in any case: a policy may have thousands.
pub(crate) fn check_pattern_quickly(pattern: &str) -> Result<(), PatternError> {
    if pattern.len() > MAX_UNCHECKED_BYTES || pattern.contains(['{', '\\']) {
        return check_pattern(pattern);
    }
    translate::translate(&anchored(pattern)).map(|_| ())
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
