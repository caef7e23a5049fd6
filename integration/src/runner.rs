//! Tells stories in copies of a prepared L1, some at a time, and says what came of each.

use crate::{
    host,
    l1::{
        machine::{CONSOLE, Limits, Machine, RESULTS, Stuck, VMM_CONSOLE},
        snapshot::Testbed,
    },
    stories::{Outcome, Report, Runtime, Story},
};
use anyhow::{Context, Result};
use std::collections::VecDeque;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A story prints a line at each step; emulated or not, no step takes this long without one.
const QUIET: Duration = Duration::from_secs(120);
/// The longest story, several times over.
const STORY: Duration = Duration::from_secs(900);
/// Packing the results.
const RESULTS_LIMIT: Limits = Limits {
    quiet: Duration::from_secs(30),
    total: Duration::from_secs(60),
};
/// How much of a console is shown for a story that failed, in bytes.
const SHOWN_BYTES: usize = 3000;
/// Largest report that is read.
const REPORT_BYTES: u64 = 1 << 20;

/// One story on one runtime.
#[derive(Clone, Copy)]
pub struct Task {
    /// The story.
    pub story: &'static Story,
    /// What containerd is told to run it with.
    pub runtime: Runtime,
}

impl Task {
    /// Such as `exit-code (runc)`.
    pub fn title(&self) -> String {
        format!("{} ({})", self.story.name, self.runtime.short())
    }
}

/// What came of a task.
pub struct Done {
    /// The task.
    pub task: Task,
    /// Passed, failed or skipped, with the reason.
    pub report: Report,
    /// Wall time, restoring included.
    pub took: Duration,
    /// The machine hung once and the story was told again.
    pub retried: bool,
}

/// Tells every task, `at_once` at a time, with files below `out`; calls `told` as each ends.
pub fn tell_all(testbed: &Testbed, tasks: &[Task], at_once: usize, out: &Path, told: &(dyn Fn(&Done) + Sync)) -> Vec<Done> {
    let waiting = Mutex::new(tasks.iter().copied().enumerate().collect::<VecDeque<_>>());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once.max(1) {
            scope.spawn(|| {
                while let Some((n, task)) = take(&waiting) {
                    let result = tell(testbed, task, out);
                    told(&result);
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

/// Tells one story; once more where the machine, not the story, got stuck.
fn tell(testbed: &Testbed, task: Task, out: &Path) -> Done {
    let started = Instant::now();
    let dir = out.join(format!("{}-{}", task.story.name, task.runtime.short()));
    let mut retried = false;
    let report = loop {
        let attempt = attempt(testbed, task, &dir);
        match attempt {
            Ok(report) => break report,
            Err(error) => {
                let hang = matches!(error.downcast_ref::<Stuck>(), Some(Stuck::Quiet(_) | Stuck::Limit(_)));
                let message = format!("{error:#}\n{}", consoles(&dir));
                if hang && !retried {
                    retried = true;
                    eprintln!("HANG  {} — cut off, told once more. {message}", task.title());
                    continue;
                }
                break Report {
                    outcome: Outcome::Failed,
                    message,
                    seconds: 0.0,
                };
            }
        }
    };
    let report = match report.outcome {
        Outcome::Failed if report.seconds > 0.0 => Report {
            message: format!("{}\n{}", report.message, consoles(&dir)),
            ..report
        },
        _ => report,
    };
    Done {
        task,
        report,
        took: started.elapsed(),
        retried,
    }
}

fn attempt(testbed: &Testbed, task: Task, dir: &Path) -> Result<Report> {
    // What an earlier run left must not be taken for this one's.
    let _ = std::fs::remove_dir_all(dir);
    let mut machine = testbed.machine(dir)?;
    let line = format!("run /job/story tell {} --runtime {}", task.story.name, task.runtime.short());
    machine.obey(
        &line,
        Limits {
            quiet: QUIET,
            total: STORY,
        },
        &mut |_| (),
    )?;
    collect(machine, dir)?;
    read_report(dir)
}

/// Fetches /job/out and switches the machine off.
pub fn collect(mut machine: Machine, dir: &Path) -> Result<()> {
    machine.obey("results", RESULTS_LIMIT, &mut |_| ()).context("packing the results")?;
    machine.off();
    let results = std::fs::File::open(dir.join(RESULTS)).context("cannot open the results")?;
    tar::Archive::new(results)
        .unpack(dir.join("out"))
        .context("cannot unpack the results")
}

fn read_report(dir: &Path) -> Result<Report> {
    let file = std::fs::File::open(dir.join("out").join(Report::FILE)).context("the story ended without a report")?;
    let mut text = String::new();
    file.take(REPORT_BYTES)
        .read_to_string(&mut text)
        .context("cannot read the report")?;
    serde_json::from_str(&text).context("the report is not what a story writes")
}

/// The ends of both consoles: L1's and those of the VMs in it.
fn consoles(dir: &Path) -> String {
    let part = |title: &str, file: PathBuf| {
        let bytes = std::fs::read(&file).unwrap_or_default();
        let text = host::tail(&bytes, SHOWN_BYTES);
        let body = if text.trim().is_empty() { "(nothing)" } else { text.trim() };
        format!("--- {title} ({})\n{}\n", file.display(), body.replace('\r', ""))
    };
    part("console of the VMs", dir.join(VMM_CONSOLE)) + &part("console of L1", dir.join(CONSOLE))
}
