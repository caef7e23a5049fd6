//! `ctr` commands timed on both runtimes.

use super::report::median;
use crate::lab::Runtime;
use anyhow::{Context, Result, ensure};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Casemate, then runc.
pub const BOTH: [Runtime; 2] = [Runtime::Casemate, Runtime::Runc];

/// A container of `ctr run`, by its id.
pub fn run_words(runtime: Runtime, options: &[&str], image: &str, id: &str, command: &[&str]) -> Vec<String> {
    let fixed = ["run", "--runtime", runtime.name()];
    let words = fixed.iter().chain(options).chain([&image, &id]).chain(command);
    words.map(|word| (*word).to_owned()).collect()
}

/// `ctr` with the arguments `words`.
pub fn ctr(words: &[String]) -> Command {
    let mut command = Command::new("ctr");
    command.args(words).stdin(Stdio::null());
    command
}

/// Runs a command that must succeed; returns its time in seconds and what it wrote to both outputs.
pub fn timed(command: &mut Command) -> Result<(f64, Vec<u8>)> {
    let started = Instant::now();
    let output = command
        .output()
        .with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let seconds = started.elapsed().as_secs_f64();
    let said = [output.stdout, output.stderr].concat();
    ensure!(
        output.status.success(),
        "{command:?} exited with {}: {}",
        output.status,
        crate::testbed::host::tail(&said, 1000)
    );
    Ok((seconds, said))
}

/// Medians over `rounds` of `once` for each runtime, Casemate first. The runtimes alternate; the first round is dropped.
pub fn in_turns(rounds: usize, mut once: impl FnMut(Runtime, usize) -> Result<f64>) -> Result<[f64; 2]> {
    let mut taken = [const { Vec::new() }; 2];
    for round in 0..rounds {
        for (runtime, taken) in BOTH.into_iter().zip(&mut taken) {
            let figure = once(runtime, round)?;
            println!("round {round}: {} {figure:.3}", runtime.short());
            if round > 0 {
                taken.push(figure);
            }
        }
    }
    let [ours, theirs] = taken.map(|taken| median(&taken));
    Ok([ours.context("no round succeeded")?, theirs.context("no round succeeded")?])
}

/// A container that sleeps in the background; dropping it kills and removes it.
pub struct Sleeper(String);

impl Sleeper {
    /// Starts it.
    pub fn start(runtime: Runtime, image: &str) -> Result<Self> {
        let id = format!("sleeper-{}", runtime.short());
        timed(&mut ctr(&run_words(
            runtime,
            &["--detach", "--null-io"],
            image,
            &id,
            &["sleep", "100000"],
        )))?;
        Ok(Self(id))
    }

    /// Runs an exec in it and waits for the exit.
    pub fn exec(&self, exec_id: &str, command: &[&str]) -> Result<f64> {
        let fixed = ["task", "exec", "--exec-id", exec_id, &self.0];
        let words: Vec<String> = fixed.iter().chain(command).map(|word| (*word).to_owned()).collect();
        Ok(timed(&mut ctr(&words))?.0)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // The machine is discarded after the benchmark; this is for later measurements in the same machine.
        for words in [&["task", "delete", "--force", &self.0][..], &["container", "delete", &self.0]] {
            let _ = Command::new("ctr").args(words).output();
        }
    }
}
