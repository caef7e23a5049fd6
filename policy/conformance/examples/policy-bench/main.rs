//! Times of decisions by size of the policy, compared with the naive engine and with hcsshim. `--json FILE` writes the rows to a file,
//! `--quick` omits the largest policies. Processor time is measured, which other processes do not affect.

#![forbid(unsafe_code)]

mod hcsshim;
mod memory;
mod policy;

use std::time::Duration;

use ::policy::Enforcer;
use ::policy::action::{Action, GetProperties};
use nix::time::{ClockId, clock_gettime};
use policy_conformance::Naive;
use serde_json::{Value, json};

use crate::policy::{LAYERS, Requests};

/// Containers in the policies.
const SIZES: &[usize] = &[1, 10, 100, 1000];
/// From this size on, fewer rounds.
const LARGE: usize = 1000;

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().collect();
    let is_given = |name: &str| arguments.iter().any(|argument| argument == name);
    let value = |name: &str| arguments.iter().skip_while(|argument| *argument != name).nth(1);
    if let Some(containers) = value("--memory") {
        return memory::measure(containers.parse()?, is_given("--shared"));
    }
    let mut rows = Vec::new();
    for shared in [false, true] {
        for size in SIZES.iter().filter(|size| !is_given("--quick") || **size < LARGE) {
            rows.push(row(*size, shared)?);
        }
    }
    let growth = memory::growth()?;
    print(&rows, &growth);
    if let Some(file) = value("--json") {
        std::fs::write(file, json!({"rows": rows, "growth": growth}).to_string())?;
    }
    Ok(())
}

/// Processor time of this thread.
fn now() -> Result<Duration, Error> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// The result of `act`, and its processor time.
fn timed<T, E: Into<Error>>(act: impl FnOnce() -> Result<T, E>) -> Result<(T, Duration), Error> {
    let start = now()?;
    let result = act();
    let time = now()?.saturating_sub(start);
    Ok((result.map_err(Into::into)?, time))
}

/// Sorted times of several rounds.
struct Times(Vec<Duration>);

impl Times {
    /// Times of `act`, which returns the time to count.
    fn of(rounds: usize, mut act: impl FnMut() -> Result<Duration, Error>) -> Result<Self, Error> {
        let mut times = (0..rounds).map(|_| act()).collect::<Result<Vec<_>, _>>()?;
        times.sort_unstable();
        Ok(Self(times))
    }

    /// The percentile in milliseconds.
    fn percentile(&self, percent: usize) -> f64 {
        let index = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(index).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    }
}

/// Both engines for the same requests.
struct Engines {
    ours: Enforcer,
    naive: Naive,
    rounds: usize,
    cells: Vec<Value>,
}

impl Engines {
    fn cell(&mut self, name: &str, ours: &Times, naive: &Times) {
        self.cells
            .push(json!({"name": name, "ms": ours.percentile(50), "p90_ms": ours.percentile(90), "naive_ms": naive.percentile(50)}));
    }

    /// Measures the load, and the first decision after it.
    fn load(&mut self, text: &str, requests: &Requests) -> Result<(), Error> {
        let mut first = Vec::new();
        let ours = Times::of(self.rounds.div_ceil(2), || {
            let (mut enforcer, time) = timed(|| Enforcer::new(text))?;
            first.push(timed(|| enforcer.enforce(requests.mount(0)).map(drop))?.1);
            Ok(time)
        })?;
        let mut naive_first = Vec::new();
        let naive = Times::of(self.rounds.div_ceil(4), || {
            let (mut naive, time) = timed(|| Naive::new(text))?;
            let input = serde_json::to_value(requests.mount(0))?;
            naive_first.push(timed(|| naive.enforce("mount_device", input, false))?.1);
            Ok(time)
        })?;
        self.cell("load", &ours, &naive);
        first.sort_unstable();
        naive_first.sort_unstable();
        self.cell("mount_device (1st)", &Times(first), &Times(naive_first));
        Ok(())
    }

    /// Measures a decision of both engines, rolled back each time, and then commits it.
    fn decide<A: Action + Clone>(&mut self, name: &str, action: &A, allowed: bool) -> Result<(), Error> {
        let input = serde_json::to_value(action)?;
        let ours = Times::of(self.rounds, || {
            let request = action.clone();
            let (decision, time) = timed(|| Ok::<_, Error>(self.ours.enforce(request).is_ok()))?;
            assert_eq!(decision, allowed, "{name}");
            Ok(time)
        })?;
        let naive = Times::of(self.rounds.div_ceil(4), || {
            let request = input.clone();
            let (decision, time) = timed(|| self.naive.enforce(A::POINT, request, false))?;
            assert_eq!(decision, allowed, "{name}");
            Ok(time)
        })?;
        self.cell(name, &ours, &naive);
        if allowed {
            self.make(action)?;
        }
        Ok(())
    }

    fn make<A: Action + Clone>(&mut self, action: &A) -> Result<(), Error> {
        self.ours.enforce(action.clone())?.commit();
        self.naive.enforce(A::POINT, serde_json::to_value(action)?, true)?;
        Ok(())
    }
}

fn row(containers: usize, shared: bool) -> Result<Value, Error> {
    let text = policy::policy(containers, shared);
    let memory = memory::of_policy(containers, shared)?;
    let mut engines = Engines {
        ours: Enforcer::new(&text)?,
        naive: Naive::new(&text)?,
        rounds: if containers >= LARGE { 7 } else { 20 },
        cells: Vec::new(),
    };
    let requests = Requests {
        container: containers - 1,
        shared,
    };
    engines.load(&text, &requests)?;
    engines.decide("mount_device", &requests.mount(0), true)?;
    for index in 1..LAYERS {
        engines.make(&requests.mount(index))?;
    }
    engines.decide("mount_overlay", &requests.overlay(), true)?;
    engines.decide("create deny (+reason)", &requests.create_denied(), false)?;
    engines.decide("create_container", &requests.create(), true)?;
    engines.decide("exec_in_container", &requests.exec(), true)?;
    engines.decide("get_properties", &GetProperties {}, true)?;
    let mut cells = Vec::new();
    for name in hcsshim::COLUMNS {
        let measured = engines.cells.iter().find(|cell| cell["name"] == *name);
        let mut cell = measured.cloned().ok_or("a column was not measured")?;
        if let Some(median) = hcsshim::median(shared, containers, name) {
            cell["hcsshim_ms"] = median.into();
        }
        cells.push(cell);
    }
    Ok(json!({"shared": shared, "containers": containers, "policy_bytes": text.len(), "memory": memory, "cells": cells}))
}

fn print(rows: &[Value], growth: &Value) {
    println!("Median milliseconds: engine / naive engine / hcsshim (Go, another machine)");
    for (title, shared) in [("DISTINCT", false), ("SHARED LAYERS", true)] {
        println!("\n{title}");
        println!("| containers | policy KB | memory KiB (peak) | {} |", hcsshim::COLUMNS.join(" | "));
        println!("|{}", "---|".repeat(hcsshim::COLUMNS.len() + 3));
        for row in rows.iter().filter(|row| row["shared"] == shared) {
            println!(
                "| {} | {:.1} | {} ({}) | {} |",
                row["containers"],
                row["policy_bytes"].as_f64().unwrap_or(0.0) / 1000.0,
                row["memory"]["kib"],
                row["memory"]["peak_kib"],
                row["cells"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(cell_text)
                    .collect::<Vec<_>>()
                    .join(" | ")
            );
        }
    }
    println!(
        "\nmemory over {} decisions: {} KiB before, {} KiB after",
        growth["decisions"], growth["before_kib"], growth["after_kib"]
    );
}

fn cell_text(cell: &Value) -> String {
    let number = |name: &str| cell[name].as_f64();
    format!(
        "{:.3} / {:.1} / {}",
        number("ms").unwrap_or(0.0),
        number("naive_ms").unwrap_or(0.0),
        number("hcsshim_ms").map_or("–".to_owned(), |median| median.to_string())
    )
}
