//! `casemate conformance policy`: replays recorded decisions through the enforcer that the agent uses.

use crate::output::print;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Replays every scenario of `file`, one a line, plain or compressed with zstd; returns how many passed and how many failed.
pub fn run(file: &Path) -> Result<(usize, usize)> {
    let text = policy_conformance::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let (mut passed, mut failed) = (0, 0);
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match policy_conformance::replay(line) {
            Ok(()) => passed += 1,
            Err(failure) => {
                failed += 1;
                print(&failure.to_string())?;
            }
        }
    }
    ensure!(passed + failed > 0, "{} holds no scenarios", file.display());
    print(&format!("{passed} passed, {failed} failed"))?;
    Ok((passed, failed))
}
