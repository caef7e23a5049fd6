//! A fault on the host affects one container only, is reported with the right status, and leaves nothing behind.

pub mod clock;
pub mod containerd;
pub mod full;
pub mod kill;
pub mod launcher;
pub mod readers;

use crate::lab::{Ended, Lab, Program};
use anyhow::{Context, Result};
use std::time::Duration;

/// Time limit until the effect of a request shows.
const SHOWS_WITHIN: Duration = Duration::from_secs(60);
/// The namespace's cgroup: if it exists, each VMM gets a cgroup below it, as in a pod.
const NAMESPACE_CGROUP: &str = "/sys/fs/cgroup/default";
/// Where containerd's client library creates FIFOs.
const FIFOS: &str = "/run/containerd/fifo";
/// How often the removal of a container that is still stopping is tried.
const REMOVAL_ATTEMPTS: usize = 20;

/// Creates a parent cgroup for VMMs.
fn with_cgroups() -> Result<()> {
    std::fs::create_dir_all(NAMESPACE_CGROUP).context("cannot create the namespace's cgroup")
}

/// Removes what a killed `ctr` left: containerd's record and ctr's FIFOs. Everything else must already be gone.
fn forget_containers(but: &[&str]) -> Result<()> {
    forget_fifos(but)?;
    for n in 0.. {
        let known = Ended::of(&["ctr", "container", "list", "-q"])?.exits_with(0)?.text();
        let left: Vec<&str> = known.lines().filter(|id| !but.contains(id)).collect();
        if left.is_empty() {
            break;
        }
        anyhow::ensure!(n < REMOVAL_ATTEMPTS, "containers cannot be removed: {left:?}");
        for id in left {
            Ended::of(&["ctr", "task", "delete", "--force", id])?;
            Ended::of(&["ctr", "container", "delete", id])?;
        }
    }
    Ok(())
}

/// `ctr` creates a directory of FIFOs for each process and removes it only if it exits normally.
fn forget_fifos(but: &[&str]) -> Result<()> {
    for dir in std::fs::read_dir(FIFOS)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
    {
        let names = std::fs::read_dir(&dir).into_iter().flatten().filter_map(|entry| entry.ok());
        let mut names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        if !names.any(|name| but.iter().any(|id| name.starts_with(&format!("{id}-")))) {
            std::fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
    }
    Ok(())
}

/// Waits until a program has exited or `ready` returns true; false if it has exited.
fn until_ready(lab: &Lab, what: &str, program: &mut Program, mut ready: impl FnMut() -> bool) -> Result<bool> {
    lab.until(what, SHOWS_WITHIN, || {
        if ready() {
            return Some(Ok(true));
        }
        match program.has_ended() {
            Ok(false) => None,
            Ok(true) => Some(Ok(false)),
            Err(error) => Some(Err(error)),
        }
    })?
}
