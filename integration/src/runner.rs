//! Tells stories in copies of a prepared L1, some at a time, and says what came of each.

pub mod suites;
pub mod summary;

use crate::{
    lab::{Runtime, Scope, Set},
    stories::{
        report::{Outcome, Report},
        story::Story,
    },
    testbed::{
        accel::Accel,
        host,
        machine::{CONSOLE, LIVE, Limits, Machine, RESULTS, Stuck, VMM_CONSOLE},
        results::fetch,
        snapshot::Testbed,
    },
};
use anyhow::{Context, Result};
use std::collections::VecDeque;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A story prints a line at each step; emulated or not, no step takes this long without one.
const QUIET: Duration = Duration::from_secs(120);
/// Stories that one machine tells in a row at most.
const PER_MACHINE: usize = 8;
/// How often a story is told again because the machine, not the story, broke down.
const RETRIES: u32 = 2;
/// How much of a console is shown for a story that failed, in bytes.
const SHOWN_BYTES: usize = 3000;
/// Largest report that is read.
const REPORT_BYTES: u64 = 1 << 20;

/// What shows on a console that the emulated processor failed, which is rare ([`crate::testbed::machine`] says how). No story
/// crashes L1's kernel, and a guest that was booted a thousand times the same way does not panic by itself.
const EMULATION_FAULTS: &[(&str, &str)] = &[
    (CONSOLE, "Kernel panic - not syncing"),
    (CONSOLE, "BUG: "),
    (VMM_CONSOLE, "triple fault in the guest"),
    (VMM_CONSOLE, "Kernel panic - not syncing"),
];

/// One story on one runtime.
#[derive(Clone, Copy)]
pub struct Task {
    /// The story.
    pub story: &'static Story,
    /// What containerd is told to run it with.
    pub runtime: Runtime,
    /// How much of it, and by which chance.
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

/// What came of a task.
pub struct Done {
    /// The task.
    pub task: Task,
    /// Passed, failed or skipped, with the reason.
    pub report: Report,
    /// Wall time, restoring included.
    pub took: Duration,
    /// How often the machine hung or broke down and the story was told again.
    pub retries: u32,
}

/// Tells every task, `at_once` at a time, with files below `out`; calls `told` as each ends.
pub fn tell_all(testbed: &Testbed, tasks: &[Task], at_once: usize, out: &Path, told: &(dyn Fn(&Done) + Sync)) -> Vec<Done> {
    let waiting = Mutex::new(tasks.iter().copied().enumerate().collect::<VecDeque<_>>());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for worker in 1..=at_once.max(1) {
            let (waiting, done) = (&waiting, &done);
            scope.spawn(move || {
                let mut teller = Teller {
                    testbed,
                    out,
                    worker,
                    machines: 0,
                    open: None,
                };
                while let Some((n, task)) = take(waiting) {
                    let result = teller.tell(task);
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

/// Tells one story after another. Short ones share a machine while all is well: the first container in a fresh copy
/// takes several times as long as the next.
struct Teller<'a> {
    testbed: &'a Testbed,
    out: &'a Path,
    worker: usize,
    machines: usize,
    open: Option<Open>,
}

/// A machine in which stories have been told.
struct Open {
    machine: Machine,
    dir: PathBuf,
    told: usize,
}

/// How long each of a machine's files was when a story began.
type Lengths = [(&'static str, u64); 3];

impl Teller<'_> {
    /// Tells one story; again where the machine, not the story, got stuck or broke down.
    fn tell(&mut self, task: Task) -> Done {
        let started = Instant::now();
        if task.scope.set == Set::Full {
            eprintln!("begins  {}", task.title());
        }
        let dir = self.out.join(task.directory());
        // What an earlier run left must not be taken for this one's.
        let _ = std::fs::remove_dir_all(&dir);
        let mut retries = 0;
        let report = loop {
            match self.attempt(task, &dir) {
                Ok(report) => {
                    let fault = (report.outcome == Outcome::Failed)
                        .then(|| self.broken_processor(&dir, &report.message))
                        .flatten();
                    let Some(words) = fault.filter(|_| retries < RETRIES) else {
                        break report;
                    };
                    retries += 1;
                    eprintln!("BROKEN  {} — {words:?} on a console; told again. {}", task.title(), report.message);
                    let _ = std::fs::rename(&dir, dir.with_extension(format!("broken-{retries}")));
                }
                Err(error) => {
                    // Whatever a story does, L1's own kernel may neither hang nor panic: the emulated processor has its faults.
                    let broken = error.downcast_ref::<Stuck>().is_some();
                    let message = format!("{error:#}\n{}", consoles(&dir));
                    if broken && retries < RETRIES {
                        retries += 1;
                        eprintln!("HANG    {} — told again. {message}", task.title());
                        let _ = std::fs::rename(&dir, dir.with_extension(format!("hung-{retries}")));
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
            retries,
        }
    }

    /// What shows that the emulated processor failed under a story; `message` is why the story failed.
    fn broken_processor(&self, dir: &Path, message: &str) -> Option<&'static str> {
        if *self.testbed.accel() == Accel::Kvm {
            return None;
        }
        let says = |name: &str, words: &str| {
            let bytes = std::fs::read(dir.join(name)).unwrap_or_default();
            bytes.windows(words.len()).any(|window| window == words.as_bytes())
        };
        EMULATION_FAULTS
            .iter()
            // A VM's console goes with the VM, maybe before it was copied; the shim tells its last lines.
            .find(|(file, words)| says(file, words) || *file == VMM_CONSOLE && message.contains(words))
            .map(|(_, words)| *words)
    }

    fn attempt(&mut self, task: Task, dir: &Path) -> Result<Report> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let shares = task.story.shares_machine(task.scope.set);
        let mut open = match self.open.take() {
            Some(open) if shares && open.told < PER_MACHINE => open,
            _ => self.fresh(dir)?,
        };
        let before = open.lengths();
        let results = open.length(RESULTS);
        let told = open.tell(task, results, dir);
        open.copy_since(before, dir);
        // A machine in which anything went wrong is not used again.
        let report = told?;
        if shares && report.outcome != Outcome::Failed {
            open.told += 1;
            self.open = Some(open);
        } else {
            open.machine.off();
        }
        Ok(report)
    }

    fn fresh(&mut self, story_dir: &Path) -> Result<Open> {
        self.machines += 1;
        let dir = self.out.join(format!("machine-{}.{}", self.worker, self.machines));
        let _ = std::fs::remove_dir_all(&dir);
        let machine = self
            .testbed
            .machine(&dir)
            .with_context(|| format!("the machine of {}, files in {}", story_dir.display(), dir.display()))?;
        Ok(Open { machine, dir, told: 0 })
    }
}

impl Open {
    fn tell(&mut self, task: Task, results: u64, dir: &Path) -> Result<Report> {
        let line = format!(
            "run /job/story tell {} --runtime {} {}",
            task.story.name,
            task.runtime.short(),
            task.scope.words()
        );
        self.machine.obey(
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

    /// Gives a story's directory what was written while it was told.
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

fn read_report(dir: &Path) -> Result<Report> {
    let file = std::fs::File::open(dir.join("out").join(Report::FILE)).context("the story ended without a report")?;
    let mut text = String::new();
    file.take(REPORT_BYTES)
        .read_to_string(&mut text)
        .context("cannot read the report")?;
    serde_json::from_str(&text).context("the report is not what a story writes")
}

/// The ends of the story's output and of both consoles: L1's and those of the VMs in it.
fn consoles(dir: &Path) -> String {
    let part = |title: &str, file: PathBuf| {
        let bytes = std::fs::read(&file).unwrap_or_default();
        let text = host::tail(&bytes, SHOWN_BYTES);
        let body = if text.trim().is_empty() { "(nothing)" } else { text.trim() };
        format!("--- {title} ({})\n{}\n", file.display(), body.replace('\r', ""))
    };
    [
        part("what the story printed", dir.join(LIVE)),
        part("console of the VMs", dir.join(VMM_CONSOLE)),
        part("console of L1", dir.join(CONSOLE)),
    ]
    .concat()
}
