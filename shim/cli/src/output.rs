//! A command's output, line by line, on standard output.

use anyhow::Context;
use std::io::{ErrorKind, Write, stdout};

/// The reader of standard output has closed it, as `head` does.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub struct ReaderGone;

/// Writes a line.
///
/// # Errors
/// [`ReaderGone`], or it cannot be written.
pub fn print(line: &str) -> anyhow::Result<()> {
    match writeln!(stdout(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        written => written.context("cannot write to standard output"),
    }
}
