//! Copies what a story or a benchmark left in L1's /job/out to the host.

use super::machine::{Limits, Machine, RESULTS};
use anyhow::{Context, Result};
use std::io::{Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

/// Time limit for packing the results.
const RESULTS_LIMIT: Limits = Limits {
    quiet: Duration::from_secs(30),
    total: Duration::from_secs(60),
};

/// Fetches /job/out and powers the machine off.
pub fn collect(mut machine: Machine, dir: &Path) -> Result<()> {
    fetch(&mut machine, dir, 0, dir)?;
    machine.off();
    Ok(())
}

/// Fetches /job/out into `dir`, from the machine whose files are in `files`; the new results begin at offset `from`.
pub fn fetch(machine: &mut Machine, files: &Path, from: u64, dir: &Path) -> Result<()> {
    machine
        .run_command("results", RESULTS_LIMIT, &mut |_| ())
        .context("packing the results")?;
    let mut results = std::fs::File::open(files.join(RESULTS)).context("cannot open the results")?;
    results.seek(SeekFrom::Start(from)).context("cannot read the results")?;
    tar::Archive::new(results)
        .unpack(dir.join("out"))
        .context("cannot unpack the results")
}
