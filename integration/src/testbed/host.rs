//! Runs programs on the developer's machine and finds what they need.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// How much of a failed program's output is shown, in bytes from its end.
const SHOWN_BYTES: usize = 4000;

/// Runs a program until it exits and returns its standard output.
///
/// # Errors
/// If it cannot be started, or fails: then with the end of its output.
pub fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        let args: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
        bail!(
            "{name} {} failed ({}):\n{}",
            args.join(" "),
            output.status,
            tail(&said, SHOWN_BYTES)
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("{name} wrote something that is not UTF-8"))
}

/// The last `limit` bytes as text.
pub fn tail(bytes: &[u8], limit: usize) -> String {
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(limit)..]).into_owned()
}

/// Where `program` is, by PATH and the directories for administrators.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin"])
        .map(|dir| Path::new(dir).join(program))
        .find(|file| file.is_file())
}

/// A directory below `${XDG_CACHE_HOME:-~/.cache}/casemate`, created.
pub fn cache_dir(below: &str) -> Result<PathBuf> {
    let dir = guest_image::cache::root()?.join(below);
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// Building the test machine needs root: its tree has owners and device nodes.
pub fn require_root(what: &str) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("{what} needs root: run it again with sudo");
    }
    Ok(())
}

/// Field `name` of a `KEY=value` file such as /etc/os-release.
pub fn os_release(name: &str) -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .map(|value| value.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_output() {
        let error = run(Command::new("sh").args(["-c", "echo out; echo why >&2; exit 3"]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("why") && error.contains("exit status: 3"), "{error}");
        assert_eq!(run(Command::new("echo").arg("x")).unwrap(), "x\n");
    }

    #[test]
    fn the_tail_is_the_end() {
        assert_eq!(tail(b"abcdef", 2), "ef");
        assert_eq!(tail(b"ab", 20), "ab");
    }
}
