//! Decisions of the policy engine by size of the policy, compared with the naive use of the same interpreter. hcsshim's medians,
//! measured on another machine, are details of the rows. Processor time in one process, without a VM.

use super::report::Row;
use crate::testbed::job::Build;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::process::Command;

/// Name of the comparison in the rows.
const BASELINE: &str = "naive regorus";
/// From this number of containers on, loading has a target.
const LARGE: usize = 1000;

/// What the measuring program writes.
#[derive(Deserialize)]
struct Figures {
    rows: Vec<Policy>,
    growth: Growth,
}

/// A policy and the decisions under it.
#[derive(Deserialize)]
struct Policy {
    shared: bool,
    containers: usize,
    policy_bytes: f64,
    memory: Memory,
    cells: Vec<Cell>,
}

#[derive(Deserialize)]
struct Memory {
    kib: f64,
    peak_kib: f64,
}

#[derive(Deserialize)]
struct Cell {
    name: String,
    ms: f64,
    p90_ms: f64,
    naive_ms: f64,
    hcsshim_ms: Option<f64>,
}

#[derive(Deserialize)]
struct Growth {
    decisions: u64,
    before_kib: f64,
    after_kib: f64,
}

/// Measures; returns all rows. The measuring program is an example of `policy-conformance`, because no product contains the naive engine.
pub fn measure(_: &Build) -> Result<Vec<Row>> {
    let dir = tempfile::tempdir().context("cannot create a directory for the figures")?;
    let file = dir.path().join("figures.json");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["run", "--quiet", "--release", "--package", "policy-conformance"])
        .args(["--example", "policy-bench", "--", "--json"])
        .arg(&file)
        .status()
        .context("cannot start cargo")?;
    anyhow::ensure!(status.success(), "the measuring program failed: {status}");
    let text = std::fs::read(&file).context("it wrote no figures")?;
    Ok(rows(&serde_json::from_slice(&text).context("its figures are not valid JSON")?))
}

fn rows(figures: &Figures) -> Vec<Row> {
    let decisions = figures
        .rows
        .iter()
        .flat_map(|policy| policy.cells.iter().map(|cell| decision(policy, cell)));
    let memory = figures.rows.iter().filter(|policy| !policy.shared).map(|policy| {
        Row::of(&format!("memory, {}", name(policy)), policy.memory.kib, "KiB")
            .detail("policy_kb", policy.policy_bytes / 1000.0)
            .detail("peak_kib_while_loading", policy.memory.peak_kib)
    });
    let Growth {
        decisions: count,
        before_kib,
        after_kib,
    } = figures.growth;
    let growth = Row::of(&format!("growth over {count} decisions"), after_kib - before_kib, "KiB")
        .target("0")
        .detail("before_kib", before_kib);
    decisions.chain(memory).chain([growth]).collect()
}

fn decision(policy: &Policy, cell: &Cell) -> Row {
    let row = Row::of(&format!("{}: {}", name(policy), cell.name), cell.ms, "ms")
        .compared_with(BASELINE, cell.naive_ms)
        .detail("p90_ms", cell.p90_ms);
    let row = match cell.hcsshim_ms {
        Some(median) => row.detail("hcsshim_ms", median),
        None => row,
    };
    match (cell.name.as_str(), policy.containers >= LARGE) {
        ("load", true) => row.target("≤ 0.33 ×, ≤ 120 ms"),
        ("load", false) => row,
        (_, large) if !large || policy.shared => row.target("≤ 0.10 ×"),
        _ => row,
    }
}

fn name(policy: &Policy) -> String {
    let layers = if policy.shared { "shared" } else { "distinct" };
    format!("{} {layers}", policy.containers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_become_rows_with_the_naive_engine_and_hcsshim() {
        let figures = r#"{"rows": [{"shared": true, "containers": 1000, "policy_bytes": 2069000, "memory": {"kib": 900, "peak_kib": 9000},
            "cells": [{"name": "load", "ms": 17.0, "p90_ms": 18.0, "naive_ms": 134.0, "hcsshim_ms": 1022.0},
                      {"name": "get_properties", "ms": 0.01, "p90_ms": 0.01, "naive_ms": 59.0}]}],
            "growth": {"decisions": 100000, "before_kib": 5000, "after_kib": 5004}}"#;
        let rows = rows(&serde_json::from_str(figures).unwrap());
        let load = &rows[0];
        assert_eq!((load.name.as_str(), load.value), ("1000 shared: load", Some(17.0)));
        assert_eq!(load.peer.as_ref().map(|peer| peer.value), Some(134.0));
        assert_eq!(load.details["hcsshim_ms"], 1022.0);
        assert!(!rows[1].details.contains_key("hcsshim_ms"));
        let growth = rows.last().unwrap();
        assert_eq!((growth.value, growth.target.as_deref()), (Some(4.0), Some("0")));
    }
}
