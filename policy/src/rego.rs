//! Rego as OPA 1.19 reads it: the grammar, and a text in the narrower grammar of the interpreter.
//!
//! The interpreter's own parser refuses texts that OPA loads, and loads texts that OPA refuses. So a policy is parsed here first, and
//! the interpreter gets a normal form of it ([`normal`]): what OPA refuses is refused, and positions in errors are those of the
//! original ([`positions`]).

pub(crate) mod ast;
mod lexer;
pub(crate) mod literal;
pub(crate) mod normal;
mod parser;
pub(crate) mod positions;

pub(crate) use lexer::check_characters;
pub(crate) use parser::parse;

use thiserror::Error;

/// Words that name no variable and no rule.
pub(crate) const KEYWORDS: &[&str] = &[
    "as", "contains", "default", "else", "every", "false", "if", "import", "in", "not", "null", "package", "some", "true", "with",
];

/// Why OPA refuses a text: what it found, and where.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {problem}")]
pub(crate) struct SyntaxError {
    pub(crate) line: usize,
    /// In characters.
    pub(crate) column: usize,
    pub(crate) problem: String,
    /// The text is valid, but exceeds a limit of this implementation.
    pub(crate) limit: bool,
}

impl SyntaxError {
    /// An error at a byte offset of `text`.
    pub(crate) fn new(text: &str, at: usize, problem: impl Into<String>) -> Self {
        let (line, column) = positions::line_and_column(text, at);
        Self {
            line,
            column,
            problem: problem.into(),
            limit: false,
        }
    }

    /// A limit that is exceeded at a byte offset of `text`.
    pub(crate) fn limit(text: &str, at: usize, problem: impl Into<String>) -> Self {
        Self {
            limit: true,
            ..Self::new(text, at, problem)
        }
    }
}

#[cfg(test)]
mod tests;
