//! `make bench`: measures Casemate and a comparable program (QEMU, runc, mkfs.erofs, …) in the same run.
//!
//! Each benchmark is one file below. Those that need KVM run in a fresh L1 under QEMU's instruction clock (one vCPU, 2 ns per
//! instruction, independent of the host's load); the others run on the host. A benchmark that fails or hangs becomes a row with the
//! reason. No test asserts a figure.

mod accept;
mod answer;
mod attest;
mod boot;
mod convert;
mod ctr;
mod exec;
mod footprint;
mod guest;
mod launch;
mod pods;
mod policy;
mod probe;
mod pull;
pub mod report;
mod run;
mod streams;
mod tokens;
mod tools;
mod verity;

use crate::lab::vm;
use crate::testbed::{
    accel::Accel,
    build,
    debian::Suite,
    images,
    job::{Build, Job},
    machine::{Limits, Stuck},
    results,
    snapshot::Testbed,
};
use anyhow::{Context, Result};
use report::{Report, Row};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

/// The installed guest in L1.
const KERNEL: &str = "/usr/local/share/casemate/vmlinux";
const INITRAMFS: &str = "/usr/local/share/casemate/initramfs.cpio";
const STAGE0: &str = "/usr/local/share/casemate/stage0";
/// Where a benchmark in L1 writes its rows.
const ROWS: &str = "rows.json";
const OUT: &str = "/job/out";
/// File name below the output directory.
pub const JSON: &str = "bench.json";
/// One machine of six to eight under the instruction clock hangs, with every VMM in it. It is stopped at these limits and the
/// benchmark runs in a new one.
const LIMITS: Limits = Limits {
    quiet: Duration::from_secs(90),
    total: Duration::from_secs(240),
};

/// Machines that a benchmark gets, the ones that hang included: with one hang in four they all hang once in 256 benchmarks.
const MACHINES: u32 = 4;

/// A benchmark and where it runs.
struct Benchmark {
    name: &'static str,
    title: &'static str,
    place: Place,
}

enum Place {
    /// In L1, by the instruction clock.
    Machine(fn() -> Result<Vec<Row>>),
    /// On the developer's machine.
    Host(fn(&Build) -> Result<Vec<Row>>),
}

const ALL: &[Benchmark] = &[
    Benchmark {
        name: "boot",
        title: "boot: exec → /init, 1 vCPU, 128 MiB, the same ELF kernel and 16 KiB initramfs (instruction clock)",
        place: Place::Machine(boot::measure),
    },
    Benchmark {
        name: "answer",
        title: "exec → the agent's first answer, 1 vCPU, 256 MiB, every device (instruction clock)",
        place: Place::Machine(answer::measure),
    },
    Benchmark {
        name: "run",
        title: "ctr run --rm … true (instruction clock)",
        place: Place::Machine(run::measure),
    },
    Benchmark {
        name: "exec",
        title: "ctr task exec … true (instruction clock)",
        place: Place::Machine(exec::measure),
    },
    Benchmark {
        name: "pods",
        title: "pods by CRI, and their network (instruction clock)",
        place: Place::Machine(pods::measure),
    },
    Benchmark {
        name: "streams",
        title: "stdio of a container (instruction clock)",
        place: Place::Machine(streams::measure),
    },
    Benchmark {
        name: "verity",
        title: "reading a file of an image, block hashes checked (instruction clock)",
        place: Place::Machine(verity::measure),
    },
    Benchmark {
        name: "footprint",
        title: "memory of an idle container's processes on the host, proportional share",
        place: Place::Machine(footprint::measure),
    },
    Benchmark {
        name: "convert",
        title: "a directory tree converted to a block image with hashes (this host's clock)",
        place: Place::Host(convert::measure),
    },
    Benchmark {
        name: "pull",
        title: "an image of a registry on this host, pulled and made into a policy (this host's clock)",
        place: Place::Host(pull::measure),
    },
    Benchmark {
        name: "launch",
        title: "the guest image under SEV-SNP: what firmware measures and stage0 verifies (counts; speed by this host's clock)",
        place: Place::Host(launch::measure),
    },
    Benchmark {
        name: "attest",
        title: "an attestation report verified, beside its signatures alone (this host's clock)",
        place: Place::Host(attest::measure),
    },
    Benchmark {
        name: "tokens",
        title: "registry tokens over HTTP, distinct users and repositories, ES256, clients on the same machine (this host's clock)",
        place: Place::Host(tokens::measure),
    },
    Benchmark {
        name: "policy",
        title: "policy decisions by number of containers, layers distinct or shared (this host's processor time)",
        place: Place::Host(policy::measure),
    },
];

/// Names of all benchmarks.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|benchmark| benchmark.name)
}

/// On the developer's machine: runs the benchmarks named in `wanted` (all, if it is empty) with the programs and the guest of `build`.
pub fn run(build: Build, suite: Suite, wanted: &[String], out: &Path) -> Result<Report> {
    let started = Instant::now();
    let chosen = || {
        ALL.iter()
            .filter(|benchmark| wanted.is_empty() || wanted.iter().any(|name| name == benchmark.name))
    };
    let testbed = match chosen().any(|benchmark| matches!(benchmark.place, Place::Machine(_))) {
        true => Some(testbed(&build, suite, out)),
        false => None,
    };
    let mut rows = Vec::new();
    for benchmark in chosen() {
        eprintln!("==> {}", benchmark.title);
        let measured = match (&benchmark.place, &testbed) {
            (Place::Host(measure), _) => measure(&build),
            (Place::Machine(_), Some(Ok(testbed))) => in_machine(testbed, benchmark.name, &out.join(benchmark.name)),
            (Place::Machine(_), Some(Err(error))) => Err(anyhow::anyhow!("no machine could be started: {error:#}")),
            (Place::Machine(_), None) => unreachable!("a machine exists whenever a chosen benchmark needs one"),
        };
        let measured = measured.unwrap_or_else(|error| vec![Row::failed(benchmark.name, &error)]);
        rows.extend(measured.into_iter().map(|row| Row {
            benchmark: benchmark.title.to_owned(),
            ..row
        }));
    }
    let machine = format!("Debian {} under the instruction clock", suite.name());
    Report::new(machine, started.elapsed().as_secs_f64(), rows)
}

fn testbed(build: &Build, suite: Suite, out: &Path) -> Result<Testbed> {
    let image = build::obtain(suite)?;
    let images = images::obtain()?;
    let mut more = tools::bundle()?;
    more.push((verity::image()?, verity::IMAGE_IN_JOB.to_owned()));
    let job = Job::pack_with(build, &images, &more, out)?;
    Testbed::prepare(image, Accel::Counted, job)
}

/// One benchmark in a fresh machine, or in up to [`MACHINES`] if the ones before hung.
fn in_machine(testbed: &Testbed, name: &str, dir: &Path) -> Result<Vec<Row>> {
    let attempt = || -> Result<Vec<Row>> {
        let _ = std::fs::remove_dir_all(dir);
        let mut machine = testbed.machine(dir)?;
        let mut said = std::io::stderr();
        let status = machine.run_command(&format!("run /job/story bench {name}"), LIMITS, &mut |bytes| {
            // Progress only: a closed terminal must not stop the benchmark.
            let _ = said.write_all(bytes);
        })?;
        anyhow::ensure!(status == 0, "it exited with {status}; its output is in {}", dir.display());
        results::collect(machine, dir)?;
        let text = std::fs::read(dir.join("out").join(ROWS)).context("it wrote no figures")?;
        serde_json::from_slice(&text).context("its figures are not valid JSON")
    };
    let hung = |error: &anyhow::Error| matches!(error.downcast_ref(), Some(Stuck::Quiet(_) | Stuck::Limit(_)));
    for machine in 1..MACHINES {
        match attempt() {
            Err(error) if hung(&error) => {
                eprintln!("    {name}: {error:#} from machine {machine} of {MACHINES}; running again");
            }
            measured => return measured,
        }
    }
    attempt()
}

/// In L1: runs the benchmark and writes its rows for the harness.
pub fn measure(name: &str) -> Result<()> {
    let benchmark = ALL.iter().find(|benchmark| benchmark.name == name);
    let Some(Place::Machine(measure)) = benchmark.map(|benchmark| &benchmark.place) else {
        anyhow::bail!("no benchmark that runs in L1 is called {name}");
    };
    let rows = measure()?;
    let text = serde_json::to_vec(&rows).context("cannot write JSON")?;
    std::fs::write(Path::new(OUT).join(ROWS), text).context("cannot write the figures")
}

/// Kernel command line of the installed guest, used with every VMM.
fn cmdline() -> Result<String> {
    Ok(vm::installed_manifest()?.cmdline)
}
