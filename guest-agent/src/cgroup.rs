//! The cgroup v2 tree: one cgroup for each container, below one for all.

pub mod counters;
pub mod freezer;
pub mod limits;
pub mod oom;

use std::{
    collections::HashSet,
    fs,
    io::{self, ErrorKind},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use launcher_protocol::CGROUP_ROOT;
use nix::unistd::Pid;
use policy::ContainerId;

use crate::{
    paths::{self, CGROUP_PARENT},
    sys::PidFd,
};

/// Interval at which a cgroup that is about to become empty is checked.
const POLL: Duration = Duration::from_millis(2);

/// Processes that are held by descriptor at a time.
const HELD: usize = 256;

/// Creates the parent of all containers' cgroups, enables every controller for them, and creates the cgroup of the guest's own processes.
pub fn prepare() -> io::Result<()> {
    let root = PathBuf::from(CGROUP_ROOT);
    let parent = root.join(CGROUP_PARENT);
    fs::create_dir_all(&parent)?;
    let controllers = fs::read_to_string(root.join("cgroup.controllers"))?;
    let all = controllers
        .split_whitespace()
        .map(|name| format!("+{name}"))
        .collect::<Vec<_>>()
        .join(" ");
    for directory in [root, parent] {
        fs::write(directory.join("cgroup.subtree_control"), &all)?;
    }
    fs::create_dir_all(directory(&paths::guest()))?;
    Ok(())
}

fn directory(id: &ContainerId) -> PathBuf {
    PathBuf::from(format!("{CGROUP_ROOT}{}", paths::cgroup(id)))
}

/// Creates the container's cgroup.
pub fn create(id: &ContainerId) -> io::Result<()> {
    fs::create_dir_all(directory(id))
}

/// Sends SIGKILL to every process of the container, including processes that are just being forked.
pub fn kill(id: &ContainerId) -> io::Result<()> {
    absent_is_fine(fs::write(directory(id).join("cgroup.kill"), "1"))
}

/// Sends a signal to every process of the container.
///
/// A process that exits meanwhile may leave its pid to one outside. So those listed are held by descriptor, and only those that
/// the cgroup still lists get the signal.
pub fn signal(id: &ContainerId, number: i32) -> io::Result<()> {
    for pids in processes(id)?.chunks(HELD) {
        let held = pids.iter().filter_map(|&pid| Some((pid, PidFd::open(Pid::from_raw(pid)).ok()?)));
        let held = held.collect::<Vec<_>>();
        let listed = processes(id)?.into_iter().collect::<HashSet<_>>();
        for (_, process) in held.iter().filter(|(pid, _)| listed.contains(pid)) {
            // A process that has just exited needs no signal.
            let _ = process.signal(number);
        }
    }
    Ok(())
}

/// Pids in the container, as the agent sees them.
pub fn processes(id: &ContainerId) -> io::Result<Vec<i32>> {
    let text = match fs::read_to_string(directory(id).join("cgroup.procs")) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

/// Waits until no process is left; false if some still are at the deadline.
pub fn wait_empty(id: &ContainerId, within: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + within;
    while is_populated(id)? {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(POLL);
    }
    Ok(true)
}

/// As [`wait_empty`], for a task that must not block.
pub async fn emptied(id: &ContainerId, within: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + within;
    while is_populated(id)? {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(true)
}

fn is_populated(id: &ContainerId) -> io::Result<bool> {
    match fs::read_to_string(directory(id).join("cgroup.events")) {
        Ok(events) => Ok(events.lines().any(|line| line == "populated 1")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the empty cgroup and the cgroups that the container created below it.
pub fn remove(id: &ContainerId) -> io::Result<()> {
    remove_tree(directory(id), 0)
}

/// Deepest nesting that is removed; the kernel's own limit is `cgroup.max.depth`.
const DEPTH: usize = 64;

fn remove_tree(directory: PathBuf, depth: usize) -> io::Result<()> {
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if depth == DEPTH {
        return Err(ErrorKind::QuotaExceeded.into());
    }
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(entry.path(), depth + 1)?;
        }
    }
    absent_is_fine(fs::remove_dir(directory))
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
