//! Programs that benchmarks compare with, copied to L1 from this host with their libraries, so that L1's disk stays small.

use crate::testbed::host;
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs that L1 does not have.
const PROGRAMS: [&str; 2] = ["qemu-system-x86_64", "veritysetup"];
/// QEMU's microvm also loads the qboot firmware, from Debian's QEMU package.
const FIRMWARE: &str = "/usr/share/qemu/qboot.rom";
const LOADER: &str = "ld-linux-x86-64.so.2";
const BIN: &str = "/job/tools/bin";
const LIB: &str = "/job/tools/lib";
/// QEMU's firmware directory in L1.
pub const DATA: &str = "/job/tools/data";

/// Every file of the bundle: its path on this host, and its path in L1.
pub fn bundle() -> Result<Vec<(PathBuf, String)>> {
    let mut files = BTreeMap::new();
    for name in PROGRAMS {
        let program = host::find(name).with_context(|| format!("{name} is not installed: `make setup` installs it"))?;
        for library in libraries(&program)? {
            let file = library
                .file_name()
                .context("a library without a name")?
                .to_string_lossy()
                .into_owned();
            files.insert(format!("{LIB}/{file}"), library);
        }
        files.insert(format!("{BIN}/{name}"), program);
    }
    let firmware = PathBuf::from(FIRMWARE);
    files.insert(format!("{DATA}/qboot.rom"), firmware);
    Ok(files
        .into_iter()
        .map(|(there, here)| (here, there.trim_start_matches('/').to_owned()))
        .collect())
}

/// The libraries that a program is linked to, including the loader.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let text = host::run(Command::new("ldd").arg(program))?;
    let found: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect();
    if !found.iter().any(|library| library.ends_with(LOADER)) {
        bail!("{} is not a dynamically linked program", program.display());
    }
    Ok(found)
}

/// In L1: one of the bundled programs, run by the bundled loader with the bundled libraries.
pub fn command(name: &str) -> Command {
    let mut command = Command::new(format!("{LIB}/{LOADER}"));
    command.args(["--library-path", LIB, &format!("{BIN}/{name}")]);
    command
}
