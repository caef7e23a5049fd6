//! Conversion of a directory tree to a block image with hashes: our converter, compared with `mkfs.erofs` and `veritysetup` on the same
//! tree, and with the upper bound, SHA-256 on one core; and its memory. Runs on the host in memory, so that no disk is measured.

use super::report::Row;
use crate::testbed::{host, job::Build};
use anyhow::{Context, Result};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Memory-backed on every Linux.
const MEMORY: &str = "/dev/shm";
/// Source of the tree: programs and libraries, as images contain them; and how many bytes of it are used.
const SOURCE: &str = "/usr/lib/x86_64-linux-gnu";
const TREE_BYTES: u64 = 192 << 20;
/// Duration of the SHA-256 measurement over 4 KiB blocks.
const SPEED_SECONDS: &str = "2";
/// Size of the layer whose conversion's memory is measured, and of each file in it.
const LARGE_BYTES: usize = 2 << 30;
const LARGE_FILE: usize = 16 << 20;
const POLL: Duration = Duration::from_millis(10);
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

    let convert = |output: &str| {
        let mut command = Command::new(build.programs.join("casemate"));
        command.args(["layer", "convert"]).arg(at("layer.tar")).arg(at(output));
        command
    };
    let ours = mib / timed(&mut convert("ours"))?;
    let both = 2.0 * mib / two_at_once([convert("ours"), convert("second")])?;
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
        Row::of("two layers at once, two cores", both, "MiB/s")
            .compared_with("openssl speed", bound)
            .target("≥ 0.6"),
        Row::of("memory of a 2 GiB layer's conversion", large(build, &at("large"))?, "MiB").target("≤ 64"),
    ])
}

/// Seconds until both commands have ended.
fn two_at_once(mut commands: [Command; 2]) -> Result<f64> {
    let started = Instant::now();
    std::thread::scope(|scope| {
        let running = commands.each_mut().map(|command| scope.spawn(|| host::run(command)));
        for command in running {
            command.join().map_err(|_| anyhow::anyhow!("a conversion was not waited for"))??;
        }
        Ok(started.elapsed().as_secs_f64())
    })
}

/// The most memory in MiB that a conversion of [`LARGE_BYTES`] has in use, with everything that its process has mapped and touched.
fn large(build: &Build, output: &Path) -> Result<f64> {
    let mut child = Command::new(build.programs.join("casemate"))
        .args(["layer", "convert", "-"])
        .arg(output)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start casemate")?;
    let input = child.stdin.take().context("no standard input")?;
    let status = format!("/proc/{}/status", child.id());
    std::thread::scope(|scope| {
        let written = scope.spawn(|| large_layer(input));
        let mut most = 0.0;
        while child.try_wait().context("cannot wait for casemate")?.is_none() {
            let text = std::fs::read_to_string(&status).unwrap_or_default();
            let high_water = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = high_water.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
            most = kib.map_or(most, |kib| kib / 1024.0);
            std::thread::sleep(POLL);
        }
        written
            .join()
            .map_err(|_| anyhow::anyhow!("the layer was not written"))?
            .context("cannot write a layer")?;
        anyhow::ensure!(child.wait().is_ok_and(|status| status.success()), "the conversion failed");
        Ok(most)
    })
}

/// Writes a layer of files that have nothing in common.
fn large_layer(to: impl Write) -> std::io::Result<()> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut tar = tar::Builder::new(to);
    let mut data = vec![0; LARGE_FILE];
    for number in 0..LARGE_BYTES / LARGE_FILE {
        random.fill(&mut data);
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("file-{number}"), &data[..])?;
    }
    tar.finish()
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
