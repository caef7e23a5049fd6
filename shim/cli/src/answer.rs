//! The answer of a command, line by line, on standard output.

use anyhow::Context;
use std::io::{ErrorKind, Write, stdout};

/// Whoever read the answer has seen enough of it, as `head` has.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the answer")]
pub struct NobodyReads;

/// Writes a line.
///
/// # Errors
/// [`NobodyReads`], or it cannot be written.
pub fn print(line: &str) -> anyhow::Result<()> {
    match writeln!(stdout(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(NobodyReads.into()),
        written => written.context("cannot write the answer"),
    }
}
