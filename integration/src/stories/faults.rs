//! A fault on the host affects one container, is reported with the right status, and leaves nothing behind.

pub mod clock;
pub mod containerd;
pub mod full;
pub mod kill;
pub mod launcher;
pub mod readers;

use crate::lab::{Ended, Lab, Program};
use anyhow::{Context, Result};
use std::time::Duration;

/// How long anything that was asked for may take until it shows.
const SHOWS_WITHIN: Duration = Duration::from_secs(60);
/// cgroup of the namespace: with it in place a VMM gets a cgroup of its own, as in a pod.
const NAMESPACE_CGROUP: &str = "/sys/fs/cgroup/default";
/// Where containerd's client library makes FIFOs.
const FIFOS: &str = "/run/containerd/fifo";
/// How often a container that is still ending is asked to go.
const REMOVALS: usize = 20;

/// Gives VMMs a parent cgroup.
fn with_cgroups() -> Result<()> {
    std::fs::create_dir_all(NAMESPACE_CGROUP).context("cannot make the namespace's cgroup")
}

/// Removes what a killed `ctr` left: containerd's record and its own FIFOs. Everything else must be gone already.
fn forget_containers(but: &[&str]) -> Result<()> {
    forget_fifos(but)?;
    for n in 0.. {
        let known = Ended::of(&["ctr", "container", "list", "-q"])?.exits_with(0)?.text();
        let left: Vec<&str> = known.lines().filter(|id| !but.contains(id)).collect();
        if left.is_empty() {
            break;
        }
        anyhow::ensure!(n < REMOVALS, "containers cannot be removed: {left:?}");
        for id in left {
            Ended::of(&["ctr", "task", "delete", "--force", id])?;
            Ended::of(&["ctr", "container", "delete", id])?;
        }
    }
    Ok(())
}

/// `ctr` makes a directory of FIFOs for each process and takes it away at its orderly end only.
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

/// Waits until a program has ended or `ready`; false if it has ended.
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
