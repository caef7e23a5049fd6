//! What the interpreter gets of a Rego text: a normal form without large constants, checked.
//!
//! Generated policies are a few long lists and some short rules. The interpreter would evaluate such a list for every decision. Here
//! each is parsed once, and a call that returns the value replaces it in the text. Line numbers do not change.

use std::collections::BTreeSet;

use regorus::Value;
use thiserror::Error;

pub(crate) mod builtins;
mod calls;
mod constants;
pub(crate) mod problems;
mod shape;
mod signatures;
mod tokens;
mod types;

use calls::{refuse_forbidden, refuse_names, refuse_recursion};
use constants::{Known, constant};
use shape::{refuse_deep_brackets, refuse_long_expressions};
use tokens::{Token, tokens};

use crate::rego::positions::{Changes, Edit};
use crate::rego::{self, SyntaxError, normal};

/// Words that cannot be names of rules.
const KEYWORDS: &[&str] = &[
    "as", "contains", "data", "default", "else", "every", "false", "if", "import", "in", "input", "not", "null", "package", "some", "true",
    "with",
];

/// Why a text is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum SourceError {
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    #[error("line {line}: {name} is not available to policies")]
    Forbidden { name: String, line: usize },
    #[error("line {line}: the name of rule {name} is that of a built-in function")]
    Named { name: String, line: usize },
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
    /// The package, as the policy names it.
    pub(crate) package: String,
    /// What differs from the policy's own text, large constants aside.
    pub(crate) changes: Changes,
    /// Values of the calls `casemate_constant(N)` in the text.
    pub(crate) constants: Vec<Value>,
    /// Names under `data.metadata` in the text.
    pub(crate) metadata: BTreeSet<String>,
    /// Whether the text may read `data`: the word is in it, be it in a string or a comment.
    pub(crate) reads_data: bool,
}

/// Checks `text` and extracts its constants.
pub(crate) fn read(text: &str) -> Result<Source, SourceError> {
    // Constants are taken out before the text is parsed.
    rego::check_characters(text)?;
    let mut constants = Vec::new();
    let without = Changes::new(text, constant_edits(text, &mut constants)?);
    let reduced = without.text();
    let source = normal_form(&reduced, |at| without.is_replaced(at))?;
    Ok(Source { constants, ..source })
}

/// Checks `text`, and leaves its constants in it.
pub(crate) fn check(text: &str) -> Result<Source, SourceError> {
    normal_form(text, |_| false)
}

/// The normal form of a text. `generated` tells places that are no part of the policy.
fn normal_form(text: &str, generated: impl Fn(usize) -> bool) -> Result<Source, SourceError> {
    let module = rego::parse(text)?;
    refuse_names(text, &module)?;
    refuse_forbidden(text, &module, generated)?;
    refuse_recursion(&module)?;
    let changes = Changes::new(text, normal::edits(text, &module));
    let package = module.package.join(".");
    drop(module);
    let normal = changes.text();
    let tokens = tokens(&normal).map_err(|at| SourceError::Unbalanced(line(&normal, at)))?;
    refuse_long_expressions(&normal, &tokens)?;
    refuse_deep_brackets(&normal, &tokens)?;
    Ok(Source {
        reads_data: text.contains("data"),
        metadata: metadata_names(&tokens),
        package,
        changes,
        constants: Vec::new(),
        text: normal,
    })
}

/// Calls in place of large constants, whose values are appended to `constants`.
fn constant_edits(text: &str, constants: &mut Vec<Value>) -> Result<Vec<Edit>, SourceError> {
    let Ok(tokens) = tokens(text) else {
        // The parser says what is wrong.
        return Ok(Vec::new());
    };
    let mut edits = Vec::new();
    let mut known = Known::default();
    for index in 0..tokens.len() {
        let Some((value, range)) = constant(text, &tokens, index, &mut known) else {
            continue;
        };
        let call = format!("casemate_constant({})", constants.len());
        edits.push(Edit { range, text: call });
        constants.push(value);
    }
    Ok(edits)
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
