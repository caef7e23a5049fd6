//! `make test`: runs every suite in order, then prints a table with numbers of passed, failed and skipped tests and the time of each.

use crate::{
    cache_resets::{self, Cuts},
    lab::Set,
    runner::{
        secrets,
        summary::{Counts, Summary},
        test_output::{conformance_counts, failed_targets, libtest_counts},
    },
    testbed::{host, one_program},
};
use anyhow::{Context, Result};
use guest_manifest::Manifest;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Prefix of lines on which tests and scripts report what they could not do.
const SKIPPED: &str = "skipped: ";
/// Conformance vectors: the name in `casemate conformance`, the environment variable with their path, and paths in
/// this repository, of which the first that exists is used.
const CONFORMANCE: &[(&str, &str, &[&str])] = &[
    ("layers", "CASEMATE_LAYER_VECTORS", &["image/layer/vectors/layers.json"]),
    (
        "launch",
        "CASEMATE_LAUNCH_VECTORS",
        &["vmm/measure/conformance/vectors/launch.json"],
    ),
    (
        "policy",
        "CASEMATE_POLICY_VECTORS",
        &["policy/conformance/vectors/policy.jsonl.zst"],
    ),
    ("registry", "CASEMATE_REGISTRY_VECTORS", &["image/registry/vectors/registry.json"]),
];

/// An input of guest images whose kernel was built for them.
const OWN_KERNEL: &str = "guest.fragment";

/// One suite's result.
pub struct Suite {
    name: String,
    counts: Counts,
    took: Duration,
    /// What was skipped or failed, with the reasons.
    remarks: Vec<String>,
}

impl Suite {
    /// A suite from the stories of one machine.
    pub fn of_stories(summary: &Summary) -> Self {
        Self {
            name: format!("stories on {}", summary.machine()),
            counts: summary.counts(),
            took: summary.took(),
            remarks: summary.remarks(),
        }
    }

    /// What is promised of pods, as the stories show it.
    pub fn of_items(counts: Counts, remarks: Vec<String>) -> Self {
        Self {
            name: "items of pods".to_owned(),
            counts,
            took: Duration::ZERO,
            remarks,
        }
    }

    /// A suite that could not start.
    pub fn broken(name: &str, error: &anyhow::Error) -> Self {
        let counts = Counts {
            failed: 1,
            ..Counts::default()
        };
        Self {
            name: name.to_owned(),
            counts,
            took: Duration::ZERO,
            remarks: vec![format!("failed: {error:#}")],
        }
    }
}

/// Environment variable with the set, for tests that have a long form too.
const SET: &str = "CASEMATE_TEST_SET";

/// Unit and property tests of every crate; their whole output goes to a file in `out`.
pub fn unit_tests(out: &Path, set: Set) -> Result<Suite> {
    let started = Instant::now();
    std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let log = out.join("unit-tests.log");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["test", "--release", "--workspace", "--no-fail-fast", "--", "--show-output"]);
    command.env(SET, set.name());
    eprintln!("==> unit and property tests (all output: {})", log.display());
    let (lines, success) = stream(&mut command, &log, |line| {
        line.starts_with("test result:") || line.contains("panicked at")
    })?;
    let mut suite = Suite {
        name: "unit and property tests".to_owned(),
        counts: Counts::default(),
        took: Duration::ZERO,
        remarks: Vec::new(),
    };
    for line in &lines {
        if let Some(counts) = libtest_counts(line) {
            suite.counts += counts;
        } else if line.trim_start().starts_with(SKIPPED) {
            suite.counts.skipped += 1;
            suite.remarks.push(line.trim().to_owned());
        } else if line.starts_with("test ") && line.ends_with("FAILED") {
            suite.remarks.push(format!("failed: {line}"));
        }
    }
    // Cargo names them on its standard error, which the log has in its place.
    let whole = if success {
        String::new()
    } else {
        String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned()
    };
    for (target, last) in failed_targets(&whole.lines().collect::<Vec<_>>()) {
        suite.remarks.push(format!("failed: cargo test {target}"));
        suite.remarks.extend(last.iter().map(|line| format!("    {line}")));
    }
    if !success && suite.counts.failed == 0 {
        suite.counts.failed = 1;
        suite.remarks.push(format!("failed: cargo test, see {}", log.display()));
    }
    suite.took = started.elapsed();
    Ok(suite)
}

/// The VMM's tests of private memory, in a machine whose KVM has such memory, with the `stage0` of a guest image.
pub fn private_memory(stage0: &Path, out: &Path) -> Result<Suite> {
    let started = Instant::now();
    eprintln!("==> private memory");
    let log = out.join("private-memory.log");
    let mut machine = one_program::command(&test_program("private_memory")?, stage0, &out.join("private-memory"))?;
    let (lines, _) = stream(&mut machine, &log, |line| line.starts_with("test "))?;
    let mut suite = Suite {
        name: "private memory".to_owned(),
        counts: Counts::default(),
        took: started.elapsed(),
        remarks: Vec::new(),
    };
    // A program that does not come to its end has failed.
    match lines.iter().find_map(|line| libtest_counts(line)) {
        Some(counts) if counts.passed > 0 => suite.counts = counts,
        _ => suite.counts.failed = 1,
    }
    if suite.counts.failed > 0 {
        suite.remarks.push(format!("failed: see {}", log.display()));
    }
    Ok(suite)
}

/// Looks for secrets in all that the suites before have written below `out`.
pub fn secrets(out: &Path) -> Result<Suite> {
    let started = Instant::now();
    let found = secrets::search(out)?;
    anyhow::ensure!(found.files > 0, "there is no output to search in {}", out.display());
    let leak = |path: &PathBuf| format!("failed: a secret is in {}", path.display());
    Ok(Suite {
        name: format!("no secret in {} files of output", found.files),
        counts: Counts {
            passed: usize::from(found.leaks.is_empty()),
            failed: found.leaks.len(),
            ..Counts::default()
        },
        took: started.elapsed(),
        remarks: found.leaks.iter().map(leak).collect(),
    })
}

/// Cuts the power of a machine with the kernel of the guest image in `guest` while it fills a layer cache.
pub fn power_cuts(guest: &Path, cuts: Cuts, out: &Path) -> Result<Suite> {
    let started = Instant::now();
    eprintln!(
        "==> power cuts while layers are converted: --count {} --seed {}",
        cuts.count, cuts.seed
    );
    let mut suite = Suite {
        name: "power cuts of the cache".to_owned(),
        counts: Counts::default(),
        took: Duration::ZERO,
        remarks: Vec::new(),
    };
    let manifest = guest.join(guest_manifest::FILE_NAME);
    let manifest = std::fs::read(&manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
    let manifest = Manifest::from_json(&manifest).context("the guest image cannot be used")?;
    if manifest.inputs.iter().all(|input| input.name != OWN_KERNEL) {
        suite.counts.skipped = 1;
        suite.remarks.push(format!(
            "{SKIPPED}the guest image has a packaged kernel, which has no driver for the disk built in"
        ));
        return Ok(suite);
    }
    let program = test_program("converter")?;
    let kernel = guest.join(&manifest.kernel.file);
    match cache_resets::run(&kernel, &program, cuts, &out.join("cache-resets")) {
        Ok(sentence) => {
            suite.counts.passed = cuts.count as usize;
            eprintln!("    {sentence}");
        }
        Err(error) => {
            suite.counts.failed = 1;
            suite.remarks.push(format!("failed: {error:#}"));
        }
    }
    suite.took = started.elapsed();
    Ok(suite)
}

/// The executable of an integration test, built if need be, with the features of the whole workspace.
fn test_program(name: &str) -> Result<PathBuf> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args([
        "test",
        "--release",
        "--workspace",
        "--test",
        name,
        "--no-run",
        "--message-format=json",
    ]);
    let messages = host::run(&mut command)?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
        .with_context(|| format!("cargo has built no test {name}"))
}

/// Replays the recorded vectors through `casemate conformance`.
pub fn conformance(programs: &Path, out: &Path) -> Result<Vec<Suite>> {
    let casemate = programs.join("casemate");
    CONFORMANCE
        .iter()
        .map(|(kind, variable, carried)| {
            let given = std::env::var_os(variable).filter(|path| !path.is_empty());
            replay(&casemate, kind, vectors(given, carried), out)
        })
        .collect()
}

/// A path from the environment is used even if no file exists there: the replay then fails with that reason.
fn vectors(given: Option<OsString>, carried: &[&str]) -> Option<PathBuf> {
    given
        .map(PathBuf::from)
        .or_else(|| carried.iter().map(PathBuf::from).find(|file| file.exists()))
}

fn replay(casemate: &Path, kind: &str, vectors: Option<PathBuf>, out: &Path) -> Result<Suite> {
    let mut suite = Suite {
        name: format!("conformance: {kind}"),
        counts: Counts::default(),
        took: Duration::ZERO,
        remarks: Vec::new(),
    };
    let Some(file) = vectors else {
        suite.counts.skipped = 1;
        suite.remarks.push(format!("{SKIPPED}there are no vectors"));
        return Ok(suite);
    };
    let started = Instant::now();
    eprintln!("==> casemate conformance {kind} {}", file.display());
    let mut command = Command::new(casemate);
    let (lines, success) = stream(
        command.args(["conformance", kind]).arg(&file),
        &out.join(format!("conformance-{kind}.log")),
        |_| false,
    )?;
    match lines.iter().rev().find_map(|line| conformance_counts(line)) {
        Some(counts) => {
            suite.counts = counts;
        }
        None => suite.remarks.push("failed: no line of counts".to_owned()),
    }
    let skipped: Vec<String> = lines.iter().filter(|line| line.starts_with(SKIPPED)).cloned().collect();
    suite.counts.skipped = skipped.len();
    suite.remarks.extend(skipped);
    // A replay of no vectors proves nothing.
    if suite.counts.failed == 0 && (!success || suite.counts.passed == 0) {
        suite.counts.failed = 1;
    }
    if suite.counts.failed > 0 {
        suite.remarks.extend(
            lines
                .iter()
                .filter(|line| line.to_ascii_lowercase().contains("fail"))
                .take(10)
                .cloned(),
        );
    }
    suite.took = started.elapsed();
    Ok(suite)
}

/// Runs a program, writes both outputs to `log` and prints the lines that `show` selects; returns all lines.
fn stream(command: &mut Command, log: &Path, show: impl Fn(&str) -> bool) -> Result<(Vec<String>, bool)> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut file = std::fs::File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
    let errors = file.try_clone().context("cannot share a log")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let mut lines = Vec::new();
    for line in BufReader::new(child.stdout.take().context("no standard output")?).split(b'\n') {
        let line = String::from_utf8_lossy(&line.with_context(|| format!("cannot read the output of {name}"))?).into_owned();
        writeln!(file, "{line}").with_context(|| format!("cannot write {}", log.display()))?;
        if show(&line) {
            eprintln!("    {line}");
        }
        lines.push(line);
    }
    let status = child.wait().with_context(|| format!("cannot wait for {name}"))?;
    if !status.success() {
        let text = std::fs::read(log).unwrap_or_default();
        eprintln!(
            "{name} failed ({status}); the end of {}:\n{}",
            log.display(),
            host::tail(&text, 4000)
        );
    }
    Ok((lines, status.success()))
}

/// The last lines of `make test`.
pub fn table(suites: &[Suite]) -> String {
    let mut text = String::from("\n");
    for suite in suites {
        for remark in &suite.remarks {
            text += &format!("{}: {remark}\n", suite.name);
        }
    }
    text += &format!(
        "\n{:28} {:>7} {:>30} {:>7} {:>8} {:>8}\n",
        "suite", "passed", "of these after emulator faults", "failed", "skipped", "seconds"
    );
    let mut total = Counts::default();
    let mut took = Duration::ZERO;
    for suite in suites {
        text += &row(&suite.name, suite.counts, suite.took);
        total += suite.counts;
        took += suite.took;
    }
    text += &row("total", total, took);
    // One line that is easy to find in a CI log.
    text + &format!("\n{} passed, {} failed, {} skipped\n", total.passed, total.failed, total.skipped)
}

fn row(name: &str, counts: Counts, took: Duration) -> String {
    format!(
        "{name:28} {:>7} {:>30} {:>7} {:>8} {:>8.0}\n",
        counts.passed,
        counts.after_faults,
        counts.failed,
        counts.skipped,
        took.as_secs_f32()
    )
}

/// Whether any suite has a failure.
pub fn any_failed(suites: &[Suite]) -> bool {
    suites.iter().any(|suite| suite.counts.failed > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_ends_with_the_total_as_a_row_and_as_a_sentence() {
        let counts = Counts {
            passed: 2,
            failed: 1,
            skipped: 3,
            after_faults: 1,
        };
        let suite = Suite {
            name: "x".to_owned(),
            counts,
            took: Duration::from_secs(5),
            remarks: vec!["skipped: why".to_owned()],
        };
        let text = table(&[suite]);
        assert!(text.contains("x: skipped: why"), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        let [.., row, "", sentence] = lines[..] else { panic!("{text}") };
        assert_eq!(row.split_ascii_whitespace().collect::<Vec<_>>(), ["total", "2", "1", "1", "3", "5"]);
        assert_eq!(sentence, "2 passed, 1 failed, 3 skipped");
    }

    #[test]
    fn vectors_that_are_given_come_before_those_of_the_repository() {
        let dir = tempfile::tempdir().unwrap();
        let carried = dir.path().join("b");
        std::fs::write(&carried, "").unwrap();
        let paths = [dir.path().join("a").display().to_string(), carried.display().to_string()];
        let paths = [&*paths[0], &*paths[1]];
        assert_eq!(vectors(Some("given".into()), &paths), Some("given".into()));
        assert_eq!(vectors(None, &paths), Some(carried));
        assert_eq!(vectors(None, &paths[..1]), None);
    }
}
