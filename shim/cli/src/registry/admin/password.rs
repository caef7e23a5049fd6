//! A new password: from a terminal that does not show it, or from a file; never from the command line, which others can read.

use crate::input;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};
use registry_store::PasswordHash;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Most bytes of a password.
const MAX_BYTES: u64 = 1024;
/// What Ctrl-C types.
const INTERRUPT: u8 = 3;

/// Where a password comes from.
#[derive(Args)]
pub struct Password {
    /// Read the password from the first line of this file, `-` for standard input; default: ask for it on the terminal
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl Password {
    /// Reads the password and hashes it.
    pub fn hash(&self) -> Result<PasswordHash> {
        let text = match &self.password_file {
            Some(path) => {
                let (mut input, _) = input::open(path)?;
                let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES as usize + 2));
                input
                    .by_ref()
                    .take(MAX_BYTES + 2)
                    .read_to_end(&mut bytes)
                    .with_context(|| format!("cannot read {}", input::shown(path)))?;
                line(&bytes)?
            }
            None => asked()?,
        };
        Ok(token_service::hash_password(&text)?)
    }
}

/// The first line, without its end.
fn line(bytes: &[u8]) -> Result<Zeroizing<String>> {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    ensure!(!line.is_empty(), "the password is empty");
    ensure!(line.len() as u64 <= MAX_BYTES, "the password is longer than {MAX_BYTES} bytes");
    let text = std::str::from_utf8(line).ok().context("the password is not text")?;
    ensure!(!text.chars().any(char::is_control), "the password has a control character");
    Ok(Zeroizing::new(text.to_owned()))
}

/// Asks twice.
fn asked() -> Result<Zeroizing<String>> {
    ensure!(
        io::stdin().is_terminal(),
        "there is no terminal to ask for the password: give --password-file FILE, or - for standard input"
    );
    let silent = Silent::enter().context("cannot switch off the terminal's echo")?;
    let first = prompt("Password: ")?;
    let second = prompt("Again: ")?;
    drop(silent);
    ensure!(first == second, "the two are not the same");
    Ok(first)
}

fn prompt(text: &str) -> Result<Zeroizing<String>> {
    eprint!("{text}");
    io::stderr().flush().context("cannot write to the terminal")?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES as usize + 2));
    for byte in io::stdin().lock().bytes().take(MAX_BYTES as usize + 2) {
        match byte.context("cannot read from the terminal")? {
            b'\n' => break,
            INTERRUPT => bail!("no password was given"),
            byte => bytes.push(byte),
        }
    }
    eprintln!();
    line(&bytes)
}

/// The terminal on standard input without echo; dropping this restores its settings. Ctrl-C ends a line instead of the program,
/// which would leave the terminal silent.
struct Silent(Termios);

impl Silent {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO | LocalFlags::ISIG);
        silent.control_chars[SpecialCharacterIndices::VEOL as usize] = INTERRUPT;
        tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line_of_text() {
        assert_eq!(line(b"correct horse\r\nrest").unwrap().as_str(), "correct horse");
        assert_eq!(line(b" \xc3\xa4 ").unwrap().as_str(), " \u{e4} ");
        for bad in [&b""[..], b"\nx", b"a\x1bb", b"\xff", &[b'a'; 1025]] {
            assert!(line(bad).is_err(), "{bad:?}");
        }
    }
}
