//! `casemate conformance launch`: replays SEV-SNP launches through the code that plans and measures ours.

use crate::input;
use crate::output::print;
use anyhow::{Context, Result, ensure};
use std::path::Path;

/// Replays every vector of `file`; returns how many passed and how many failed.
pub fn run(file: &Path) -> Result<(usize, usize)> {
    let name = input::shown(file);
    let directory = file
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let outcome = launch_conformance::replay(&input::text(file)?, directory).with_context(|| format!("cannot replay {name}"))?;
    for skipped in &outcome.skipped {
        print(&format!("skipped: {skipped}"))?;
    }
    for failed in &outcome.failed {
        print(failed)?;
    }
    let (passed, failed) = (outcome.passed, outcome.failed.len());
    ensure!(passed + failed > 0, "{name} holds no vectors");
    print(&match outcome.skipped.len() {
        0 => format!("{passed} passed, {failed} failed"),
        skipped => format!("{passed} passed, {failed} failed, {skipped} skipped"),
    })?;
    Ok((passed, failed))
}
