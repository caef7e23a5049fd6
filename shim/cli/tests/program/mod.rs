//! Runs `casemate` as an operator does.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs `casemate SUBCOMMAND …` in `directory` with this standard input.
pub fn run(subcommand: &str, directory: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_casemate"));
    if subcommand == "policy" {
        // Images and root hashes of the user who runs the tests are neither read nor written.
        command.env("XDG_CACHE_HOME", directory.join(".cache"));
    }
    let mut child = command
        .arg(subcommand)
        .args(arguments)
        .current_dir(directory)
        // Servers of tests are on the loopback, whatever proxy the machine has.
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input may have ended already.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}
