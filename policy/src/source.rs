//! Checks of Rego text before the interpreter parses it, and extraction of large constants.
//!
//! Generated policies are a few long lists and some short rules. The interpreter would evaluate such a list for every decision. Here
//! each is parsed once, and a call that returns the value replaces it in the text. Line numbers do not change.

use std::collections::BTreeSet;

use regorus::Value;
use thiserror::Error;

mod calls;
mod constants;
mod shape;
mod tokens;

use calls::{refuse_forbidden, refuse_recursion};
use constants::{Known, constant};
use shape::{refuse_deep_brackets, refuse_long_expressions};
use tokens::{Token, tokens};

/// Words that cannot be names of rules.
const KEYWORDS: &[&str] = &[
    "as", "contains", "data", "default", "else", "every", "false", "if", "import", "in", "input", "not", "null", "package", "some", "true",
    "with",
];

/// Why a text is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum SourceError {
    #[error("line {line}: {name} is not available to policies")]
    Forbidden { name: String, line: usize },
    #[error("rule {0} is recursive")]
    Recursive(String),
    #[error("line {0}: unterminated string or unbalanced bracket")]
    Unbalanced(usize),
    #[error("line {0}: the expression is too long")]
    TooLong(usize),
    #[error("line {0}: brackets nest too deep")]
    TooDeep(usize),
}

/// A text for the interpreter.
#[derive(Debug, Default)]
pub(crate) struct Source {
    pub(crate) text: String,
    /// Values of the calls `casemate_constant(N)` in the text.
    pub(crate) constants: Vec<Value>,
    /// Names under `data.metadata` in the text.
    pub(crate) metadata: BTreeSet<String>,
}

/// Checks that the interpreter can parse `text` within reasonable time.
pub(crate) fn check_shape(text: &str) -> Result<(), SourceError> {
    shape(text).map(drop)
}

fn shape(text: &str) -> Result<Vec<Token<'_>>, SourceError> {
    let tokens = tokens(text).map_err(|at| SourceError::Unbalanced(line(text, at)))?;
    refuse_long_expressions(text, &tokens)?;
    refuse_deep_brackets(text, &tokens)?;
    Ok(tokens)
}

/// Checks that the interpreter may evaluate `text` unchanged.
pub(crate) fn check(text: &str) -> Result<(), SourceError> {
    let tokens = shape(text)?;
    refuse_forbidden(text, &tokens)?;
    refuse_recursion(&tokens)
}

/// Checks `text` and extracts its constants.
pub(crate) fn read(text: &str) -> Result<Source, SourceError> {
    let tokens = tokens(text).map_err(|at| SourceError::Unbalanced(line(text, at)))?;
    refuse_long_expressions(text, &tokens)?;
    refuse_forbidden(text, &tokens)?;
    refuse_recursion(&tokens)?;
    let mut source = Source {
        metadata: metadata_names(&tokens),
        ..Source::default()
    };
    let mut copied = 0;
    let mut known = Known::default();
    for index in 0..tokens.len() {
        let Some((value, range)) = constant(text, &tokens, index, &mut known) else {
            continue;
        };
        source.text.push_str(text.get(copied..range.start).unwrap_or(""));
        source.text.push_str(&format!("casemate_constant({})", source.constants.len()));
        let lines = text.get(range.clone()).unwrap_or("").matches('\n').count();
        source.text.extend(std::iter::repeat_n('\n', lines));
        source.constants.push(value);
        copied = range.end;
    }
    source.text.push_str(text.get(copied..).unwrap_or(""));
    check_shape(&source.text)?;
    Ok(source)
}

fn is_call(tokens: &[Token<'_>], index: usize) -> bool {
    matches!(tokens.get(index + 1), Some(Token::Open(b'(', _)))
}

fn line(text: &str, at: usize) -> usize {
    text.as_bytes()
        .get(..at)
        .unwrap_or_default()
        .iter()
        .filter(|b| **b == b'\n')
        .count()
        + 1
}

/// Whether the token begins a rule: at the start of a line, outside brackets, after a complete statement.
fn starts_statement(tokens: &[Token<'_>], index: usize) -> bool {
    index == 0
        || (matches!(tokens.get(index - 1), Some(Token::Newline { outside: true }))
            && match tokens
                .get(..index)
                .into_iter()
                .flatten()
                .rev()
                .find(|token| !matches!(token, Token::Newline { .. }))
            {
                None | Some(Token::Close(..) | Token::Text(..) | Token::Number(..)) => true,
                Some(Token::Path(word, _)) => !matches!(*word, "if" | "else" | "in" | "default" | "not" | "some" | "every" | "with" | "as"),
                Some(_) => false,
            })
}

fn metadata_names(tokens: &[Token<'_>]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (index, token) in tokens.iter().enumerate() {
        let Token::Path(path, _) = token else { continue };
        let mut parts = path.split('.').skip_while(|part| *part != "metadata").skip(1);
        match (parts.next(), tokens.get(index + 1), tokens.get(index + 2)) {
            (Some(name), _, _) => {
                names.insert(name.to_owned());
            }
            (None, Some(Token::Open(b'[', _)), Some(Token::Text(text, _))) if path.ends_with("metadata") => {
                let name = text.trim_matches('"');
                if name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && name.starts_with(|c: char| c.is_ascii_alphabetic()) {
                    names.insert(name.to_owned());
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !KEYWORDS.contains(&name.as_str()));
    names
}

#[cfg(test)]
mod tests;
