//! Registry tokens over HTTP: distinct users and repositories under 10 000 rules, beside no rules and beside the signatures alone.

mod database;
mod load;

use super::attest;
use super::report::{Row, median};
use crate::testbed::job::Build;
use anyhow::{Context, Result};
use database::Database;
use load::{Load, Pace};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Memory-backed on every Linux, so that the disk of this machine is not measured.
const MEMORY: &str = "/dev/shm";
/// Projects, each with a user of its own who may push there.
const PROJECTS: usize = 1000;
/// Rules of each project in the row that has a target.
const RULES: usize = 10;
/// Rules of one project, for the growth.
const GROWTH: [usize; 4] = [10, 100, 1000, 10_000];
/// Time of one measurement, and how many of them there are of each service; they take turns, and the median counts.
const TIME: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;
/// How long a service may take until it answers.
const START: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// Measures with the programs of `build`; returns all rows.
pub fn measure(build: &Build) -> Result<Vec<Row>> {
    let dir = tempfile::tempdir_in(MEMORY).context("no memory for databases")?;
    let signatures = attest::signatures("ecdsap256", "+F4:")?;
    let empty = Service::start(build, dir.path(), "empty", PROJECTS, 0)?;
    let full = Service::start(build, dir.path(), "full", PROJECTS, RULES)?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.push(empty.load().run(Pace::Most, TIME)?.rate);
        with.push(full.load().run(Pace::Most, TIME)?.rate);
    }
    let (without, with) = (median(&without).unwrap_or_default(), median(&with).unwrap_or_default());
    let half = full.load().run(Pace::Rate(with / 2.0), TIME)?;
    let memory = full.resident_mib()?;
    drop((empty, full));

    let mut rows = vec![
        Row::of("10 000 rules in 1 000 projects", with, "/s")
            .compared_with("no rules", without)
            .target("≥ 0.8"),
        Row::of("the same", with, "/s")
            .compared_with("openssl ecdsap256", signatures)
            .target("≥ 0.5"),
        Row::of("99th percentile at half load", half.p99 * 1e3, "ms")
            .compared_with("the median", half.median * 1e3)
            .target("≤ 5")
            .detail("rate", half.rate),
        Row::of("memory of the service", memory, "MiB").target("≤ 30"),
    ];
    for rules in GROWTH {
        let service = Service::start(build, dir.path(), &format!("growth-{rules}"), 1, rules)?;
        let rate = service.load().run(Pace::Most, TIME)?.rate;
        rows.push(Row::of(&format!("one project with {rules} rules"), rate, "/s").compared_with("no rules", without));
    }
    Ok(rows)
}

/// A running `casemate registry serve`, which is killed when this is dropped.
struct Service {
    process: Child,
    address: String,
    database: Database,
}

impl Service {
    fn start(build: &Build, dir: &Path, name: &str, projects: usize, rules: usize) -> Result<Self> {
        let casemate = build.programs.join("casemate");
        let home = dir.join(name);
        std::fs::create_dir(&home).context("cannot create a directory")?;
        let database = Database::fill(&casemate, &home, projects, rules)?;
        let address = format!("127.0.0.1:{}", super::pull::free_port()?);
        let config = database.service(&casemate, &home, &address)?;
        let log = std::fs::File::create(home.join("log")).context("cannot write a log")?;
        let process = Command::new(&casemate)
            .args(["registry", "serve", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start the token service")?;
        let service = Self {
            process,
            address,
            database,
        };
        let started = Instant::now();
        while let Err(error) = std::net::TcpStream::connect(&service.address) {
            let log = || std::fs::read_to_string(home.join("log")).unwrap_or_default();
            anyhow::ensure!(started.elapsed() < START, "the token service does not answer: {error}\n{}", log());
            std::thread::sleep(POLL);
        }
        Ok(service)
    }

    fn load(&self) -> Load<'_> {
        Load {
            address: &self.address,
            requests: &self.database.requests,
        }
    }

    /// Resident memory, in MiB.
    fn resident_mib(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).context("the token service has ended")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse().context("no number in VmRSS")?;
        Ok(kib / 1024.0)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
