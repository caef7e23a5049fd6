//! `ctr run --rm … true`, compared with runc, and the time of each phase.

use super::ctr::{ctr, in_turns, run_words, timed};
use super::report::{Row, median};
use crate::lab::Runtime;
use crate::testbed::images::BUSYBOX;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs::File;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Rounds. The first is dropped: it converts the layers, as the first use of any image does.
const ROUNDS: usize = 5;
const PHASE_ROUNDS: usize = 3;
/// containerd's log while it runs with `--log-level debug`, where its shims log the phases they reach.
const LOG: &str = "/run/containerd-debug.log";
const ANSWERS: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
/// First word of the shim's log line (`shim/src/timeline.rs`).
const REACHED: &str = "reached ";
/// The phases that the shim reaches, in order, each with a name for the time until then. Layers are prepared while the VM boots.
const PHASES: [(&str, &str); 9] = [
    ("serving", "containerd and shim start"),
    ("create", "containerd asks for the container"),
    ("vmm", "VM: spec, files, VMM started"),
    ("agent", "VM and kernel until the agent answers"),
    ("sandbox", "agent: policy and scratch disk"),
    ("rootfs", "agent: layers and overlay"),
    ("created", "container: created"),
    ("started", "container: started"),
    ("exited", "container: start to exit"),
];

/// Measures; returns all rows.
pub fn measure() -> Result<Vec<Row>> {
    let [ours, theirs] = in_turns(ROUNDS, |runtime, round| {
        let id = format!("run-{round}");
        Ok(timed(&mut ctr(&run_words(runtime, &["--rm"], BUSYBOX, &id, &["true"])))?.0)
    })?;
    let total = Row::of("ctr run", ours, "s").compared_with("runc", theirs).target("≤ 1.2 × runc");
    let mut rows = vec![total];
    match phases() {
        Ok(phases) => rows.extend(phases),
        Err(error) => rows.push(Row::failed("phases", &error)),
    }
    Ok(rows)
}

fn phases() -> Result<Vec<Row>> {
    restart_containerd()?;
    let mut spans: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for round in 0..PHASE_ROUNDS {
        let (reached, begun, ended) = run(&format!("phase-{round}"), &["--rm"])?;
        let mut before = begun;
        for (n, (name, _)) in PHASES.iter().enumerate() {
            let at = time_of(&reached, name)?;
            spans.entry(n).or_default().push(at - before);
            before = at;
        }
        spans.entry(PHASES.len()).or_default().push(ended - before);
        if let Some(at) = reached.get("layers") {
            spans.entry(PHASES.len() + 1).or_default().push(at - reached["create"]);
        }
        let (reached, ..) = run(&format!("memory-{round}"), &["--rm", "--annotation", "io.casemate.scratch=memory"])?;
        let in_memory = time_of(&reached, "sandbox")? - time_of(&reached, "agent")?;
        spans.entry(PHASES.len() + 2).or_default().push(in_memory);
    }
    let names = PHASES.iter().map(|(_, what)| *what).chain([
        "exit: power off, clean up",
        "layers found (in parallel with the boot)",
        "agent: policy and scratch in memory",
    ]);
    Ok(names
        .zip(spans.values())
        .filter_map(|(name, seconds)| Some(Row::of(name, median(seconds)?, "s")))
        .collect())
}

/// Runs a container; returns when each phase was reached, and when the run began and ended.
fn run(id: &str, options: &[&str]) -> Result<(BTreeMap<String, f64>, f64, f64)> {
    let begun = now()?;
    timed(&mut ctr(&run_words(Runtime::Casemate, options, BUSYBOX, id, &["true"])))?;
    let ended = now()?;
    let log = std::fs::read_to_string(LOG).context("cannot read containerd's log")?;
    Ok((reached(&log, begun), begun, ended))
}

fn time_of(reached: &BTreeMap<String, f64>, name: &str) -> Result<f64> {
    let at = reached.get(name).copied();
    at.with_context(|| format!("the shim's log has no time for {name:?}"))
}

/// When each phase was last reached after `begun`, by wall time.
fn reached(log: &str, begun: f64) -> BTreeMap<String, f64> {
    let lines = log.lines().filter_map(|line| line.split_once(REACHED));
    let points = lines.filter_map(|(_, rest)| {
        let mut words = rest.split_ascii_whitespace();
        let (name, at) = (words.next()?, words.next()?.trim_matches('"').parse::<f64>().ok()?);
        (at >= begun).then(|| (name.to_owned(), at))
    });
    points.collect()
}

/// containerd passes `-debug` to shims only when it logs at that level itself.
fn restart_containerd() -> Result<()> {
    let pid = timed(Command::new("pidof").arg("containerd"))?.1;
    let pid = String::from_utf8_lossy(&pid).trim().to_owned();
    timed(Command::new("kill").arg(&pid))?;
    let end = Instant::now() + ANSWERS;
    while std::path::Path::new("/proc").join(&pid).exists() {
        ensure!(Instant::now() < end, "containerd does not exit");
        sleep(POLL);
    }
    let log = File::create(LOG).context("cannot create containerd's log")?;
    // containerd outlives this program and stops with the machine.
    drop(
        Command::new("containerd")
            .args(["--log-level", "debug"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot share containerd's log")?)
            .stderr(log)
            .spawn()
            .context("cannot start containerd")?,
    );
    while timed(Command::new("ctr").arg("version")).is_err() {
        ensure!(Instant::now() < end, "containerd does not answer after its restart");
        sleep(POLL);
    }
    Ok(())
}

fn now() -> Result<f64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(now.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_found_in_containerds_log() {
        let log = "time=\"…\" level=debug msg=\"reached serving 10.5\" runtime=casemate\nlevel=info msg=\"other\"\n\
                   level=debug msg=\"reached create 11.25\" runtime=casemate\nlevel=debug msg=\"reached create 4.0\" runtime=casemate\n";
        let points = reached(log, 10.0);
        assert_eq!(
            points.into_iter().collect::<Vec<_>>(),
            [("create".to_owned(), 11.25), ("serving".to_owned(), 10.5)]
        );
    }
}
