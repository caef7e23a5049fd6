//! The same `ctr` command on both runtimes, timed.

use super::report::median;
use crate::lab::Runtime;
use anyhow::{Context, Result, ensure};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Ours, then the peer.
pub const BOTH: [Runtime; 2] = [Runtime::Casemate, Runtime::Runc];

/// A container of `ctr run`, by its id.
pub fn run_words(runtime: Runtime, options: &[&str], image: &str, id: &str, command: &[&str]) -> Vec<String> {
    let fixed = ["run", "--runtime", runtime.name()];
    let words = fixed.iter().chain(options).chain([&image, &id]).chain(command);
    words.map(|word| (*word).to_owned()).collect()
}

/// `ctr` with `words`.
pub fn ctr(words: &[String]) -> Command {
    let mut command = Command::new("ctr");
    command.args(words).stdin(Stdio::null());
    command
}

/// Runs it to its end, which must be a success; seconds, and what it wrote to both outputs.
pub fn timed(command: &mut Command) -> Result<(f64, Vec<u8>)> {
    let started = Instant::now();
    let output = command
        .output()
        .with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let seconds = started.elapsed().as_secs_f64();
    let said = [output.stdout, output.stderr].concat();
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {}",
        output.status,
        crate::testbed::host::tail(&said, 1000)
    );
    Ok((seconds, said))
}

/// Medians over `rounds` of what `once` gives for each runtime, ours first, taken in turns; the first round is dropped.
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

/// A container that sleeps, in the background; gone when dropped.
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

    /// Runs a further process in it and waits for its end.
    pub fn exec(&self, exec_id: &str, command: &[&str]) -> Result<f64> {
        let fixed = ["task", "exec", "--exec-id", exec_id, &self.0];
        let words: Vec<String> = fixed.iter().chain(command).map(|word| (*word).to_owned()).collect();
        Ok(timed(&mut ctr(&words))?.0)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // The machine ends with the benchmark; this is for those that follow in the same one.
        for words in [&["task", "delete", "--force", &self.0][..], &["container", "delete", &self.0]] {
            let _ = Command::new("ctr").args(words).output();
        }
    }
}
