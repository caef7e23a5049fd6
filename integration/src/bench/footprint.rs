//! Host memory that a running container costs besides what the container itself uses.

use super::ctr::Sleeper;
use super::guest::memory;
use super::report::Row;
use crate::lab::Runtime;
use crate::testbed::images::BUSYBOX;
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

const MIB: f64 = 1024.0;

/// Rows for the shim, the VMM and the guest's touched memory.
pub fn measure() -> Result<Vec<Row>> {
    let _casemate = Sleeper::start(Runtime::Casemate, BUSYBOX)?;
    let _runc = Sleeper::start(Runtime::Runc, BUSYBOX)?;
    let shim = of("containerd-shim-casemate-v2")?.1;
    let (guest, vmm) = of("casemate-vmm")?;
    let runc = of("containerd-shim-runc-v2")?.1;
    Ok(vec![
        Row::of("shim", shim, "MiB").compared_with("runc's shim", runc),
        Row::of("VMM", vmm, "MiB"),
        Row::of("shim and VMM", shim + vmm, "MiB").compared_with("runc's shim", runc),
        Row::of("guest memory touched", guest, "MiB"),
    ])
}

/// MiB of guest memory and of all other memory of the process `name`.
fn of(name: &str) -> Result<(f64, f64)> {
    let process = process(name).with_context(|| format!("no process {name} runs"))?;
    let smaps = std::fs::read_to_string(process.join("smaps")).context("cannot read smaps")?;
    let (guest, rest) = memory(&smaps);
    Ok((guest as f64 / MIB, rest as f64 / MIB))
}

/// Directory in /proc of a process of that program.
pub(super) fn process(name: &str) -> Option<PathBuf> {
    let processes = std::fs::read_dir("/proc").ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let program = |process: &Path| std::fs::read(process.join("cmdline")).ok().filter(|text| !text.is_empty());
    processes.into_iter().find(|process| {
        program(process).is_some_and(|text| {
            let first = text.split(|byte| *byte == 0).next().unwrap_or_default();
            Path::new(&*String::from_utf8_lossy(first))
                .file_name()
                .is_some_and(|file| file == name)
        })
    })
}
