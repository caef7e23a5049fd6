//! A container as `ctr` runs it.

use super::{Ended, Lab, Policy, Program};
use crate::lab::Runtime;
use anyhow::{Result, ensure};
use std::io::PipeWriter;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long a container may take to stop after it was killed or its process exited.
const STOPS_WITHIN: Duration = Duration::from_secs(60);

/// A container to be run.
pub struct Container {
    runtime: Runtime,
    image: String,
    id: String,
    options: Vec<String>,
    command: Vec<String>,
    stdin: Vec<u8>,
}

/// A container that was started with `ctr run --detach`.
pub struct Running {
    id: String,
}

impl Container {
    pub(super) fn new(runtime: Runtime, image: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let id = format!("story-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        Self {
            runtime,
            image: image.to_owned(),
            id,
            options: Vec::new(),
            command: Vec::new(),
            stdin: Vec::new(),
        }
    }

    /// Sets its id.
    pub fn named(mut self, id: &str) -> Self {
        self.id = id.to_owned();
        self
    }

    /// Replaces the image's command.
    pub fn command<const N: usize>(mut self, words: [&str; N]) -> Self {
        self.command = words.map(str::to_owned).to_vec();
        self
    }

    /// Sets its policy.
    pub fn under(self, policy: &Policy) -> Self {
        let annotation = policy.annotation();
        self.option("--annotation", &annotation)
    }

    /// Sets its standard input.
    pub fn stdin(mut self, bytes: &[u8]) -> Self {
        self.stdin = bytes.to_vec();
        self
    }

    /// Adds an option of `ctr run`.
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.options.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// The id that it will have.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Runs it in the foreground until it exits; containerd then removes it.
    pub fn run(self) -> Result<Ended> {
        self.start_in_foreground()?.end()
    }

    /// Runs it in the foreground without waiting for the exit.
    pub fn start_in_foreground(self) -> Result<Program> {
        let mut program = Program::start(&self.words(&["--rm"]), &self.stdin)?;
        if !self.stdin.is_empty() {
            // ctr passes on end of file only if the task exists by then.
            program.go_on_until(|| is_running(&self.id))?;
        }
        program.end_input();
        Ok(program)
    }

    /// Runs it in the foreground; the caller reads its standard output from a pipe.
    pub fn start_into(self, output: PipeWriter) -> Result<Program> {
        let mut program = Program::start_into(&self.words(&["--rm"]), output)?;
        program.end_input();
        Ok(program)
    }

    /// Starts it in the background with its output going to `uri`.
    pub fn start_logging(self, uri: &str) -> Result<Running> {
        Ended::of(&self.words(&["--detach", "--log-uri", uri]))?.exits_with(0)?;
        Ok(Running { id: self.id })
    }

    /// Starts it in the background.
    pub fn start(self) -> Result<Running> {
        // Without FIFOs no reader is needed: the container's output is discarded.
        Ended::of(&self.words(&["--detach", "--null-io"]))?.exits_with(0)?;
        Ok(Running { id: self.id })
    }

    /// Creates the container in containerd, without a task.
    pub fn made(self) -> Result<String> {
        Ended::of(&self.words_of(&["container", "create"], &[]))?.exits_with(0)?;
        Ok(self.id)
    }

    fn words(&self, mode: &[&str]) -> Vec<String> {
        self.words_of(&["run"], mode)
    }

    fn words_of(&self, verb: &[&str], mode: &[&str]) -> Vec<String> {
        let fixed = [&["ctr"], verb, &["--runtime", self.runtime.name()], mode].concat();
        let words = fixed.iter().map(|word| (*word).to_owned());
        // `ctr container create` parses flags anywhere before this sign, and would take a shell's -c for its own.
        let named = ["--", &self.image, &self.id].map(str::to_owned);
        words
            .chain(self.options.iter().cloned())
            .chain(named)
            .chain(self.command.iter().cloned())
            .collect()
    }
}

/// Whether containerd has a running task of that id.
pub fn is_running(id: &str) -> bool {
    let list = std::process::Command::new("ctr")
        .args(["task", "list"])
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    String::from_utf8_lossy(&list)
        .lines()
        .any(|line| line.split_ascii_whitespace().next() == Some(id) && line.ends_with("RUNNING"))
}

impl Running {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Runs an exec in it, in the foreground.
    pub fn exec<const N: usize>(&self, exec_id: &str, words: [&str; N]) -> Result<Ended> {
        Ended::of(&[&["ctr", "task", "exec", "--exec-id", exec_id, &self.id], &words[..]].concat())
    }

    /// Sends a signal to its init.
    pub fn signal(&self, signal: &str) -> Result<()> {
        Ended::of(&["ctr", "task", "kill", "--signal", signal, &self.id])?.exits_with(0)?;
        Ok(())
    }

    /// `RUNNING`, `STOPPED`, …; empty if containerd has no such task.
    pub fn status(&self) -> Result<String> {
        let list = Ended::of(&["ctr", "task", "list"])?.exits_with(0)?;
        let line = list
            .text()
            .lines()
            .find(|line| line.split_ascii_whitespace().next() == Some(&self.id))
            .map(str::to_owned);
        Ok(line
            .and_then(|line| line.split_ascii_whitespace().last().map(str::to_owned))
            .unwrap_or_default())
    }

    /// Kills it and deletes it.
    pub fn killed(self, lab: &Lab) -> Result<()> {
        self.signal("SIGKILL")?;
        self.ends_with(lab, 137)
    }

    /// Waits until it has stopped and deletes it; its exit code must be `wanted`.
    pub fn ends_with(self, lab: &Lab, wanted: i32) -> Result<()> {
        lab.until(&format!("container {} stops", self.id), STOPS_WITHIN, || {
            self.status().ok().filter(|status| status == "STOPPED")
        })?;
        self.delete_with(wanted)
    }

    /// Deletes the stopped task and the container; its exit code must be `wanted`.
    fn delete_with(self, wanted: i32) -> Result<()> {
        let ended = Ended::of(&["ctr", "task", "delete", &self.id])?;
        // ctr prints the code in a warning and itself exits with 0 (1.6) or that code.
        let code = ended
            .said()
            .split("non-zero exit code ")
            .nth(1)
            .map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
        let code = code.and_then(|digits| digits.parse().ok()).unwrap_or(ended.status);
        ensure!(
            code == wanted,
            "container {} exited with {code}, not {wanted}; ctr printed: {}",
            self.id,
            ended.said()
        );
        Ended::of(&["ctr", "container", "delete", &self.id])?.exits_with(0)?;
        Ok(())
    }
}
