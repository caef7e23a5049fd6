//! Processes, as /proc shows them.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// Limit for whatever is waited for.
const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `look` finds something.
pub async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < DEADLINE, "not reached: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// This process's children.
pub fn children() -> Vec<u32> {
    of(std::process::id())
}

/// The children of a process that are alive.
pub fn of(parent: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| field(*pid, "PPid:") == Some(parent.to_string()) && is_alive(*pid))
        .collect()
}

/// Whether a process runs, and is no zombie.
pub fn is_alive(pid: u32) -> bool {
    field(pid, "State:").is_some_and(|state| !state.starts_with('Z') && !state.starts_with('X'))
}

/// Whether a process has its filter, after which it reads the blob.
pub fn is_confined(pid: u32) -> bool {
    field(pid, "Seccomp:").is_some_and(|mode| mode == "2")
}

/// The most memory that a process had, in KiB.
pub fn peak_kib(pid: &str) -> u64 {
    let peak = in_status(&format!("/proc/{pid}/status"), "VmHWM:");
    peak.and_then(|text| text.split_whitespace().next()?.parse().ok())
        .expect("a counter")
}

/// A field of `/proc/PID/status`.
pub fn field(pid: u32, name: &str) -> Option<String> {
    in_status(&format!("/proc/{pid}/status"), name)
}

fn in_status(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(Path::new(path)).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map(|rest| rest.trim().to_owned())
}
