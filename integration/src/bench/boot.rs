//! Time from exec to `/init` in a VM with 1 vCPU and 128 MiB, compared with QEMU's microvm on the same kernel and 16 KiB initramfs.

use super::guest::{Devices, Guest, Sample, Started, Vmm};
use super::probe::{self, INIT_MARKER};
use super::report::{Row, median};
use super::{KERNEL, cmdline};
use anyhow::{Context, Result};
use std::path::Path;

/// Rounds, each with one boot of every candidate. The first is dropped, because it reads programs and libraries from disk.
const ROUNDS: usize = 6;
const BASELINE: &str = "qemu-microvm";

const NONE: Devices = Devices {
    layers: false,
    scratch: false,
    vsock: false,
    rng: false,
};
/// The candidates. Each device is added to the bare VM alone, to measure its cost.
const CANDIDATES: [(&str, Vmm); 7] = [
    (BASELINE, Vmm::Qemu),
    ("casemate-vmm-bare", Vmm::Casemate(NONE)),
    ("casemate-vmm-layers", Vmm::Casemate(Devices { layers: true, ..NONE })),
    ("casemate-vmm-scratch", Vmm::Casemate(Devices { scratch: true, ..NONE })),
    ("casemate-vmm-vsock", Vmm::Casemate(Devices { vsock: true, ..NONE })),
    ("casemate-vmm-rng", Vmm::Casemate(Devices { rng: true, ..NONE })),
    ("casemate-vmm-full", Vmm::Casemate(Devices::FULL)),
];

/// Measures; returns all rows.
pub fn measure() -> Result<Vec<Row>> {
    let dir = tempfile::tempdir().context("cannot create a directory")?;
    let initrd = dir.path().join("initramfs");
    std::fs::write(&initrd, probe::initramfs(0)?).context("cannot write the initramfs")?;
    let cmdline = cmdline()?;
    let guest = Guest::small(Path::new(KERNEL), &initrd, &cmdline);
    let mut samples = vec![Vec::new(); CANDIDATES.len()];
    let mut errors = vec![None; CANDIDATES.len()];
    for round in 0..ROUNDS {
        for (n, (name, vmm)) in CANDIDATES.iter().enumerate() {
            match Started::new(*vmm, &guest).and_then(|vm| vm.until(INIT_MARKER)) {
                Ok(sample) => {
                    println!("round {round}: {name} {:.3} s, {} exits", sample.seconds, sample.counters["exits"]);
                    if round > 0 {
                        samples[n].push(sample);
                    }
                }
                Err(error) => {
                    println!("round {round}: {name} {error:#}");
                    errors[n] = Some(format!("{error:#}"));
                }
            }
        }
    }
    let figures: Vec<_> = samples.iter().map(|samples| Figures::of(samples)).collect();
    let (qemu, bare) = (&figures[0], &figures[1]);
    let rows = CANDIDATES.iter().zip(&figures).zip(errors);
    Ok(rows
        .map(|(((name, _), figures), error)| match figures {
            Some(figures) => figures.row(name, qemu.as_ref(), bare.as_ref()),
            None => Row::failed(name, &anyhow::anyhow!(error.unwrap_or_else(|| "no boot succeeded".to_owned()))),
        })
        .collect())
}

/// Medians over the rounds.
struct Figures {
    seconds: f64,
    counters: Vec<(String, f64)>,
    memory_mib: f64,
    touched_mib: f64,
    threads: f64,
}

impl Figures {
    fn of(samples: &[Sample]) -> Option<Self> {
        let of = |get: &dyn Fn(&Sample) -> f64| median(&samples.iter().map(get).collect::<Vec<_>>());
        let names = samples.first()?.counters.keys();
        Some(Self {
            seconds: of(&|sample| sample.seconds)?,
            counters: names
                .filter_map(|name| Some((name.clone(), of(&|sample| sample.counters[name] as f64)?)))
                .collect(),
            memory_mib: of(&|sample| sample.memory_mib)?,
            touched_mib: of(&|sample| sample.touched_mib)?,
            threads: of(&|sample| sample.threads as f64)?,
        })
    }

    fn exits(&self) -> f64 {
        self.counters
            .iter()
            .find(|(name, _)| name == "exits")
            .map_or(0.0, |(_, value)| *value)
    }

    fn row(&self, name: &str, qemu: Option<&Self>, bare: Option<&Self>) -> Row {
        let mut row = Row::of(name, self.seconds, "s");
        for (name, value) in &self.counters {
            row = row.detail(name, *value);
        }
        row = row
            .detail("memory_mib", self.memory_mib)
            .detail("guest_touched_mib", self.touched_mib)
            .detail("threads", self.threads);
        if let (Some(qemu), true) = (qemu, name != BASELINE) {
            row = row.compared_with(BASELINE, qemu.seconds);
        }
        match bare {
            _ if name == "casemate-vmm-bare" => row = row.target("≤ 0.46 of QEMU, ≤ 900 exits, ≤ 2.4 MiB"),
            Some(bare) if name != BASELINE => {
                row = row
                    .detail("adds_seconds", self.seconds - bare.seconds)
                    .detail("adds_exits", self.exits() - bare.exits())
                    .detail("adds_memory_mib", self.memory_mib - bare.memory_mib);
            }
            _ => {}
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seconds: f64, exits: u64) -> Sample {
        Sample {
            seconds,
            counters: [("exits".to_owned(), exits)].into(),
            memory_mib: 2.0,
            touched_mib: 30.0,
            threads: 2,
        }
    }

    #[test]
    fn a_row_compares_with_qemu_and_names_the_cost_of_a_device() {
        let of = |seconds, exits| Figures::of(&[sample(seconds, exits), sample(seconds, exits)]).unwrap();
        let (qemu, bare, rng) = (of(0.4, 2000), of(0.1, 800), of(0.125, 900));
        let row = rng.row("casemate-vmm-rng", Some(&qemu), Some(&bare));
        assert_eq!(row.ratio_to_qemu, Some(0.3125));
        assert_eq!(row.details["adds_exits"], 100.0);
        assert!(bare.row("casemate-vmm-bare", Some(&qemu), Some(&bare)).target.is_some());
        assert_eq!(qemu.row(BASELINE, Some(&qemu), Some(&bare)).peer, None);
        assert!(Figures::of(&[]).is_none());
    }
}
