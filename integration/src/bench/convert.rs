//! Conversion of a directory tree to a block image with hashes: our converter, compared with `mkfs.erofs` and `veritysetup` on the same
//! tree, and with the upper bound, SHA-256 on one core. Runs on the host in memory, so that no disk is measured.

use super::report::Row;
use crate::testbed::{host, job::Build};
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Memory-backed on every Linux.
const MEMORY: &str = "/dev/shm";
/// Source of the tree: programs and libraries, as images contain them; and how many bytes of it are used.
const SOURCE: &str = "/usr/lib/x86_64-linux-gnu";
const TREE_BYTES: u64 = 192 << 20;
/// Duration of the SHA-256 measurement over 4 KiB blocks.
const SPEED_SECONDS: &str = "2";
pub(super) const MIB: f64 = 1_048_576.0;

/// Measures; returns all rows.
pub fn measure(build: &Build) -> Result<Vec<Row>> {
    let dir = tempfile::tempdir_in(MEMORY).context("no memory for the tree")?;
    let at = |name: &str| dir.path().join(name);
    let bytes = copy_tree(Path::new(SOURCE), &at("tree"))?;
    let mib = bytes as f64 / MIB;
    host::run(
        Command::new("tar")
            .args(["--sort=name", "-cf"])
            .arg(at("layer.tar"))
            .arg("-C")
            .arg(at("tree"))
            .arg("."),
    )?;

    let seconds = timed(
        Command::new(build.programs.join("casemate"))
            .args(["layer", "convert"])
            .arg(at("layer.tar"))
            .arg(at("ours")),
    )?;
    let ours = mib / seconds;
    let bound = sha256_speed()?;
    let row = Row::of("casemate layer convert", ours, "MiB/s").detail("tree_mib", mib);
    let erofs = erofs(&at("tree"), &at("erofs"), &at("hashes"));
    let row = match erofs {
        Ok(seconds) => row.compared_with("mkfs.erofs+veritysetup", mib / seconds),
        Err(error) => {
            eprintln!("    erofs-utils: {error:#}");
            row
        }
    };
    Ok(vec![
        row,
        Row::of("bound: one core's SHA-256", ours, "MiB/s").compared_with("openssl speed", bound),
    ])
}

fn erofs(tree: &Path, image: &Path, hashes: &Path) -> Result<f64> {
    let mkfs = host::find("mkfs.erofs").context("mkfs.erofs is not installed: `make setup` installs erofs-utils")?;
    let verity = host::find("veritysetup").context("veritysetup is not installed")?;
    Ok(timed(Command::new(mkfs).arg("--quiet").arg(image).arg(tree))? + timed(Command::new(verity).arg("format").arg(image).arg(hashes))?)
}

/// Seconds that a command takes.
pub(super) fn timed(command: &mut Command) -> Result<f64> {
    let started = Instant::now();
    host::run(command)?;
    Ok(started.elapsed().as_secs_f64())
}

/// Copies regular files in the directory's order until [`TREE_BYTES`] are reached; returns the number of bytes.
fn copy_tree(from: &Path, to: &Path) -> Result<u64> {
    std::fs::create_dir_all(to).context("cannot create the tree")?;
    let mut files: Vec<_> = std::fs::read_dir(from)
        .with_context(|| format!("cannot list {}", from.display()))?
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .map(|entry| entry.path())
        .collect();
    files.sort();
    let mut bytes = 0;
    for file in files {
        let length = file.metadata().with_context(|| format!("cannot examine {}", file.display()))?.len();
        if bytes + length > TREE_BYTES {
            continue;
        }
        std::fs::copy(&file, to.join(file.file_name().unwrap_or_default())).with_context(|| format!("cannot copy {}", file.display()))?;
        bytes += length;
    }
    Ok(bytes)
}

/// MiB/s from the machine-readable line of `openssl speed`, `+F:22:sha256:<bytes per second>`.
pub(super) fn sha256_speed() -> Result<f64> {
    let said = host::run(Command::new("openssl").args(["speed", "-mr", "-seconds", SPEED_SECONDS, "-bytes", "4096", "-evp", "sha256"]))?;
    let line = said
        .lines()
        .find(|line| line.starts_with("+F:"))
        .context("openssl printed no speed")?;
    let rate: f64 = line
        .rsplit(':')
        .next()
        .and_then(|word| word.parse().ok())
        .context("the speed that openssl printed is not a number")?;
    Ok(rate / MIB)
}
