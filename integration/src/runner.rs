//! Runs stories in copies of a prepared L1, several at a time, and reports the result of each.

mod faults;
pub mod items;
pub mod secrets;
pub mod suites;
pub mod summary;
mod test_output;

use crate::{
    lab::{Runtime, Scope, Set},
    stories::{
        report::{Outcome, Report},
        story::Story,
    },
    testbed::{
        accel::Accel,
        host,
        machine::{CONSOLE, LIVE, Limits, Machine, RESULTS, VMM_CONSOLE},
        results::fetch,
        snapshot::Testbed,
    },
};
use anyhow::{Context, Result};
use faults::Fault;
use std::collections::VecDeque;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A story prints a line at each step; emulated or not, no step takes this long without one.
const QUIET: Duration = Duration::from_secs(120);
/// Most stories that run in one machine, one after another.
const PER_MACHINE: usize = 8;
/// How often a story is repeated after a fault of the emulator.
const RETRIES: usize = 2;
/// Bytes of a console that are shown for a failed story.
const SHOWN_BYTES: usize = 3000;
/// Largest report that is read.
const REPORT_BYTES: u64 = 1 << 20;

/// One story on one runtime.
#[derive(Clone, Copy)]
pub struct Task {
    /// The story.
    pub story: &'static Story,
    /// The runtime that containerd is asked for.
    pub runtime: Runtime,
    /// Its part and seed.
    pub scope: Scope,
}

impl Task {
    /// Such as `exit-code (runc)`, or `vmm-killed-anywhere (casemate, 3 of 8)`.
    pub fn title(&self) -> String {
        let Scope { part, parts, .. } = self.scope;
        let of = if parts > 1 { format!(", {part} of {parts}") } else { String::new() };
        format!("{} ({}{of})", self.story.name, self.runtime.short())
    }

    /// Its directory among the results.
    fn directory(&self) -> String {
        let Scope { part, parts, .. } = self.scope;
        let of = if parts > 1 { format!("-{part}") } else { String::new() };
        format!("{}-{}{of}", self.story.name, self.runtime.short())
    }
}

/// The result of a task.
pub struct Done {
    /// The task.
    pub task: Task,
    /// Passed or failed, with the reason.
    pub report: Report,
    /// Wall time, including restoring the machine.
    pub took: Duration,
    /// Faults of the emulator in earlier attempts, each followed by another attempt.
    pub faults: Vec<Fault>,
}

/// Runs every task, `at_once` at a time, with files below `out`; calls `on_done` as each ends.
pub fn run_all(testbed: &Testbed, tasks: &[Task], at_once: usize, out: &Path, on_done: &(dyn Fn(&Done) + Sync)) -> Vec<Done> {
    let waiting = Mutex::new(tasks.iter().copied().enumerate().collect::<VecDeque<_>>());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for number in 1..=at_once.max(1) {
            let (waiting, done) = (&waiting, &done);
            scope.spawn(move || {
                let mut worker = Worker {
                    testbed,
                    out,
                    number,
                    machines: 0,
                    open: None,
                };
                while let Some((n, task)) = take(waiting) {
                    let result = worker.run(task);
                    on_done(&result);
                    if let Ok(mut done) = done.lock() {
                        done.push((n, result));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(n, _)| *n);
    done.into_iter().map(|(_, result)| result).collect()
}

fn take(waiting: &Mutex<VecDeque<(usize, Task)>>) -> Option<(usize, Task)> {
    waiting.lock().ok()?.pop_front()
}

/// Runs stories one after another. Short ones share a machine until one fails: the first container in a fresh copy takes
/// several times as long as the next.
struct Worker<'a> {
    testbed: &'a Testbed,
    out: &'a Path,
    number: usize,
    machines: usize,
    open: Option<Open>,
}

/// A machine in which stories have run.
struct Open {
    machine: Machine,
    dir: PathBuf,
    stories: usize,
}

/// Lengths of the machine's files when the story began.
type Lengths = [(&'static str, u64); 3];

impl Worker<'_> {
    /// Runs one story, and again if the emulated processor failed.
    fn run(&mut self, task: Task) -> Done {
        let started = Instant::now();
        if task.scope.set == Set::Full {
            eprintln!("begins  {}", task.title());
        }
        let dir = self.out.join(task.directory());
        // Remove files of an earlier run, which would be mistaken for this one's.
        for n in 0..=RETRIES {
            let _ = std::fs::remove_dir_all(aside(&dir, n));
        }
        let mut faults = Vec::new();
        let report = loop {
            let (report, fault) = self.judged(task, &dir);
            match fault {
                Some(fault) if faults.len() < RETRIES => {
                    faults.push(fault);
                    let kept = aside(&dir, faults.len());
                    let _ = std::fs::rename(&dir, &kept);
                    eprintln!(
                        "FAULT   {}: {fault} ({}); runs again. {}",
                        task.title(),
                        kept.display(),
                        report.message
                    );
                }
                _ => break report,
            }
        };
        let report = match report.outcome {
            Outcome::Failed => Report {
                message: format!("{}\n{}", report.message, consoles(&dir)),
                ..report
            },
            _ => report,
        };
        Done {
            task,
            report,
            took: started.elapsed(),
            faults,
        }
    }

    /// One attempt: its report, and the emulator's fault if there is evidence that one caused the failure.
    fn judged(&mut self, task: Task, dir: &Path) -> (Report, Option<Fault>) {
        let emulated = *self.testbed.accel() != Accel::Kvm;
        match self.attempt(task, dir) {
            Ok(report) => {
                let failed = report.outcome == Outcome::Failed;
                let fault = (emulated && failed).then(|| Fault::of_failure(dir, &report.message)).flatten();
                (report, fault)
            }
            Err(error) => {
                let stuck = error.downcast_ref().copied().filter(|_| emulated);
                let report = Report {
                    outcome: Outcome::Failed,
                    message: format!("{error:#}"),
                    seconds: 0.0,
                };
                (report, stuck.and_then(|stuck| Fault::of_stuck(dir, stuck)))
            }
        }
    }

    fn attempt(&mut self, task: Task, dir: &Path) -> Result<Report> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let shares = task.story.shares_machine(task.scope.set);
        let mut open = match self.open.take() {
            Some(open) if shares && open.stories < PER_MACHINE => open,
            _ => self.fresh(dir)?,
        };
        let before = open.lengths();
        let results = open.length(RESULTS);
        let report = open.run(task, results, dir);
        open.copy_since(before, dir);
        // A machine in which anything failed is not used again.
        let report = report?;
        if shares && report.outcome != Outcome::Failed {
            open.stories += 1;
            self.open = Some(open);
        } else {
            open.machine.off();
        }
        Ok(report)
    }

    fn fresh(&mut self, story_dir: &Path) -> Result<Open> {
        self.machines += 1;
        let dir = self.out.join(format!("machine-{}.{}", self.number, self.machines));
        let _ = std::fs::remove_dir_all(&dir);
        let machine = self
            .testbed
            .machine(&dir)
            .with_context(|| format!("the machine of {}, files in {}", story_dir.display(), dir.display()))?;
        Ok(Open { machine, dir, stories: 0 })
    }
}

impl Open {
    fn run(&mut self, task: Task, results: u64, dir: &Path) -> Result<Report> {
        let line = format!(
            "run /job/story run {} --runtime {} {}",
            task.story.name,
            task.runtime.short(),
            task.scope.words()
        );
        self.machine.run_command(
            &line,
            Limits {
                quiet: QUIET,
                total: task.story.limit(task.scope.set),
            },
            &mut |_| (),
        )?;
        fetch(&mut self.machine, &self.dir, results, dir)?;
        read_report(dir)
    }

    fn length(&self, name: &str) -> u64 {
        std::fs::metadata(self.dir.join(name)).map_or(0, |file| file.len())
    }

    fn lengths(&self) -> Lengths {
        [CONSOLE, LIVE, VMM_CONSOLE].map(|name| (name, self.length(name)))
    }

    /// Copies what the machine's files gained during the story to the story's directory.
    fn copy_since(&self, before: Lengths, dir: &Path) {
        for (name, from) in before {
            let copied = || -> std::io::Result<u64> {
                let mut file = std::fs::File::open(self.dir.join(name))?;
                file.seek(SeekFrom::Start(from))?;
                std::io::copy(&mut file, &mut std::fs::File::create(dir.join(name))?)
            };
            if let Err(error) = copied() {
                eprintln!("        {name} of {} is not kept: {error}", dir.display());
            }
        }
    }
}

/// Where the files of an attempt are kept after fault number `n` (from 1); 0 is the last attempt.
fn aside(dir: &Path, n: usize) -> PathBuf {
    match n {
        0 => dir.to_owned(),
        n => dir.with_extension(format!("fault-{n}")),
    }
}

fn read_report(dir: &Path) -> Result<Report> {
    let file = std::fs::File::open(dir.join("out").join(Report::FILE)).context("the story exited without a report")?;
    let mut text = String::new();
    file.take(REPORT_BYTES)
        .read_to_string(&mut text)
        .context("cannot read the report")?;
    serde_json::from_str(&text).context("the report is not valid")
}

/// The last lines of the story's output and of the consoles of L1 and its VMs, and the directory of all files.
fn consoles(dir: &Path) -> String {
    let part = |title: &str, file: PathBuf| {
        let bytes = std::fs::read(&file).unwrap_or_default();
        let text = host::tail(&bytes, SHOWN_BYTES);
        let body = if text.trim().is_empty() { "(nothing)" } else { text.trim() };
        format!("--- {title} ({})\n{}\n", file.display(), body.replace('\r', ""))
    };
    let evidence = format!("--- all files, and in out/ the evidence from L1: {}\n", dir.display());
    [
        part("what the story printed", dir.join(LIVE)),
        part("console of the VMs", dir.join(VMM_CONSOLE)),
        part("console of L1", dir.join(CONSOLE)),
        evidence,
    ]
    .concat()
}
