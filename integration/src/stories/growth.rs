//! Many containers, sequentially and in parallel, leak no resource of the host.

use crate::{
    lab::{Lab, Set, growth::Load},
    stories::story::{Machines, OURS, Story},
    testbed::images::BUSYBOX,
};
use anyhow::{Context, Result};

/// The stories of this file.
pub const STORIES: &[Story] = &[
    Story {
        name: "growth-sequential",
        about: "200 containers one after another: no growth of processes, sockets, mounts, files or memory",
        runtimes: OURS,
        set: Set::Full,
        machines: Machines::Spread { machines: 1, minutes: 60 },
        run: sequential,
    },
    Story {
        name: "growth-parallel",
        about: "10 containers at a time, three times: no growth",
        runtimes: OURS,
        set: Set::Full,
        machines: Machines::Own { minutes: 20 },
        run: parallel,
    },
];

const SEQUENTIAL_SHORT: u32 = 4;
const SEQUENTIAL: u32 = 200;
/// After one run in so many, everything that is created once exists.
const SETTLED: u32 = 10;
const PARALLEL: u32 = 10;
const PARALLEL_ROUNDS: u32 = 3;
/// Memory of a container in MiB; ten of them fit into L1.
const SMALL: &str = "io.casemate.memory=128";

fn sequential(lab: &Lab) -> Result<()> {
    let runs = lab.scope().rounds(SEQUENTIAL_SHORT, SEQUENTIAL);
    let settled = (runs / SETTLED).max(1);
    let mut before = None;
    for n in 1..=runs {
        println!("  run {n} of {runs}");
        let word = format!("run {n}");
        lab.container(BUSYBOX)
            .command(["echo", &word])
            .run()?
            .exits_with(0)?
            .prints(&word)?;
        if n == settled {
            lab.nothing_is_left()?;
            let load = Load::now()?;
            println!("  after run {n}: {load}");
            before = Some(load);
        }
    }
    lab.nothing_is_left()?;
    let after = Load::now()?;
    println!("  after run {runs}: {after}");
    after.has_not_grown_since(&before.context("nothing was counted")?, u64::from(runs - settled))
}

fn parallel(lab: &Lab) -> Result<()> {
    let mut before = None;
    for n in 1..=PARALLEL_ROUNDS {
        let words: Vec<String> = (0..PARALLEL).map(|m| format!("run {n}.{m}")).collect();
        let programs: Result<Vec<_>> = words
            .iter()
            .map(|word| {
                lab.container(BUSYBOX)
                    .option("--annotation", SMALL)
                    .command(["echo", word])
                    .start_in_foreground()
            })
            .collect();
        for (program, word) in programs?.into_iter().zip(&words) {
            program.end()?.exits_with(0)?.prints(word)?;
        }
        lab.nothing_is_left()?;
        let load = Load::now()?;
        println!("  after {} runs: {load}", n * PARALLEL);
        match &before {
            None => before = Some(load),
            Some(before) => load.has_not_grown_since(before, u64::from((n - 1) * PARALLEL))?,
        }
    }
    Ok(())
}
