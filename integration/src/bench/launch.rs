//! What of the guest image SEV-SNP firmware measures, and what stage0 verifies: counts, and the speed of `casemate image measure`
//! beside the hash that it spends its time on.

use super::accept;
use super::convert::{MIB, sha256_speed, timed};
use super::report::Row;
use crate::testbed::{host, job::Build};
use anyhow::{Context, Result};
use guest_image::kernel;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::Command;

const KIB: f64 = 1024.0;
/// vCPUs of the guest.
const VCPUS: &str = "1";

/// What `casemate image measure --json` says.
#[derive(Deserialize)]
struct Figures {
    pages: f64,
    hashed_bytes: f64,
    stage0_bytes: f64,
    verified_bytes: f64,
}

/// Measures the guest of `build`; returns all rows.
pub fn measure(build: &Build) -> Result<Vec<Row>> {
    let command = || {
        let mut command = Command::new(build.programs.join("casemate"));
        command.args(["image", "measure", "--json", "--vcpus", VCPUS]).arg(&build.guest);
        command
    };
    let said = host::run(&mut command())?;
    let figures: Figures = serde_json::from_str(&said).context("`casemate image measure` printed no figures")?;
    // The files are in memory now.
    let seconds = timed(&mut command())?;
    let mut rows = rows(&figures, seconds, sha256_speed()?);
    let packaged = match packaged(&build.guest) {
        Ok(bytes) => Row::of(PACKAGED, bytes / MIB, "MiB"),
        Err(error) => Row::failed(PACKAGED, &error),
    };
    rows.insert(rows.len() - 1, packaged);
    rows.extend(accept::measure()?);
    Ok(rows)
}

const PACKAGED: &str = "— with Debian's packaged kernel";

/// Bytes that stage0 would verify of the same guest with the packaged kernel, whose modules are in the initramfs.
fn packaged(guest: &Path) -> Result<f64> {
    let kernel = kernel::obtain(kernel::Kind::Packaged)?;
    let initramfs = guest.join("initramfs.cpio");
    let files = kernel.modules.iter().chain([&kernel.vmlinux, &initramfs]);
    let length = |file: &PathBuf| {
        Ok(std::fs::metadata(file)
            .with_context(|| format!("cannot read {}", file.display()))?
            .len())
    };
    Ok(files.map(length).sum::<Result<u64>>()? as f64)
}

fn rows(figures: &Figures, seconds: f64, sha256: f64) -> Vec<Row> {
    let hashed = (figures.verified_bytes + figures.stage0_bytes + figures.hashed_bytes) / MIB;
    vec![
        Row::of("measured pages, 1 vCPU", figures.pages, "pages")
            .target("24 and one a vCPU")
            .detail("hashed_kib", figures.hashed_bytes / KIB),
        Row::of("stage0", figures.stage0_bytes / KIB, "KiB").target("24"),
        Row::of("verified by stage0", figures.verified_bytes / MIB, "MiB").target("24"),
        Row::of("casemate image measure", hashed / seconds, "MiB/s")
            .compared_with("openssl speed", sha256)
            .detail("seconds", seconds),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_the_units_of_their_targets() {
        let figures = Figures {
            pages: 22.0,
            hashed_bytes: 14.0 * 4096.0,
            stage0_bytes: 8192.0,
            verified_bytes: 3.0 * MIB,
        };
        let values: Vec<_> = rows(&figures, 2.0, 1000.0)
            .into_iter()
            .map(|row| (row.value.unwrap(), row.unit))
            .collect();
        let expected = [(22.0, "pages"), (8.0, "KiB"), (3.0, "MiB"), (1.53125, "MiB/s")].map(|(value, unit)| (value, unit.to_owned()));
        assert_eq!(values, expected);
    }
}
