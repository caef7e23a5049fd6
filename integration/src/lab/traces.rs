//! What runtimes leave behind on a host: processes, mounts (network namespaces among them), sockets, files, links and containers.

use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

/// Names of a sandbox's processes.
const PROCESSES: &[&str] = &["containerd-shim", "casemate-vmm", "casemate", "runc"];
/// Directories in which sandboxes keep sockets and state.
const STATE: &[&str] = &[
    "/run/containerd/s",
    shim_state::DEFAULT_ROOT,
    "/run/containerd/io.containerd.runtime.v2.task",
    "/run/containerd/fifo",
];
/// How deep [`STATE`] is listed.
const DEPTH: usize = 4;
/// Mount point of the cgroups. The first level are containerd's namespaces, which runc creates and never removes.
const CGROUPS: &str = "/sys/fs/cgroup";

/// What exists at one point in time, by kind.
#[derive(Debug, Default)]
pub struct Traces {
    /// Processes: pid, name and command line.
    pub processes: BTreeSet<String>,
    /// Mount points.
    pub mounts: BTreeSet<String>,
    /// Sockets, and other files of running sandboxes.
    pub sockets: BTreeSet<String>,
    /// Cgroups of containers and VMs.
    pub cgroups: BTreeSet<String>,
    /// Network interfaces; queueing disciplines and filters go with theirs.
    pub links: BTreeSet<String>,
    /// Containers and tasks that containerd knows.
    pub containers: BTreeSet<String>,
}

impl Traces {
    /// Lists what exists now.
    pub fn now() -> Result<Self> {
        let mut sockets = BTreeSet::new();
        for dir in STATE {
            list(Path::new(dir), DEPTH, &mut sockets);
        }
        Ok(Self {
            processes: processes()?,
            mounts: mounts()?,
            sockets,
            cgroups: cgroups(),
            links: links()?,
            containers: containers()?,
        })
    }

    /// What exists now and is not in `before`.
    pub fn without(self, before: &Self) -> Self {
        let minus = |now: BTreeSet<String>, before: &BTreeSet<String>| now.difference(before).cloned().collect();
        Self {
            processes: minus(self.processes, &before.processes),
            mounts: minus(self.mounts, &before.mounts),
            sockets: minus(self.sockets, &before.sockets),
            cgroups: minus(self.cgroups, &before.cgroups),
            links: minus(self.links, &before.links),
            containers: minus(self.containers, &before.containers),
        }
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.kinds().iter().all(|(_, found)| found.is_empty())
    }

    fn kinds(&self) -> [(&'static str, &BTreeSet<String>); 6] {
        [
            ("processes", &self.processes),
            ("mounts", &self.mounts),
            ("sockets and state", &self.sockets),
            ("cgroups", &self.cgroups),
            ("links", &self.links),
            ("containers", &self.containers),
        ]
    }
}

impl fmt::Display for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, found) in self.kinds() {
            let found: Vec<&str> = found.iter().map(String::as_str).collect();
            let text = if found.is_empty() {
                "none".to_owned()
            } else {
                found.join("\n                     ")
            };
            writeln!(f, "  {kind:18} {text}")?;
        }
        Ok(())
    }
}

fn processes() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir("/proc")
        .context("cannot list processes")?
        .filter_map(|entry| entry.ok())
    {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if !pid.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        // A process may be gone by now. A zombie has no command line, but counts.
        let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if PROCESSES.iter().any(|prefix| name.starts_with(prefix)) {
            found.insert(format!("{pid} {} {}", name.trim(), command.trim()));
        }
    }
    Ok(found)
}

fn mounts() -> Result<BTreeSet<String>> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").context("cannot list mounts")?;
    Ok(text.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect())
}

fn cgroups() -> BTreeSet<String> {
    let below = |dir: &Path| -> Vec<_> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(|entry| entry.ok());
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    };
    let namespaces = below(Path::new(CGROUPS));
    namespaces
        .iter()
        .flat_map(|namespace| below(namespace))
        .map(|path| path.display().to_string())
        .collect()
}

fn links() -> Result<BTreeSet<String>> {
    let entries = std::fs::read_dir("/sys/class/net").context("cannot list network interfaces")?;
    let names = entries.filter_map(|entry| entry.ok()).map(|entry| entry.file_name());
    Ok(names.map(|name| name.to_string_lossy().into_owned()).collect())
}

fn containers() -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for kind in ["container", "task"] {
        let output = std::process::Command::new("ctr")
            .args([kind, "list", "-q"])
            .output()
            .context("cannot start ctr")?;
        found.extend(String::from_utf8_lossy(&output.stdout).lines().map(|id| format!("{kind} {id}")));
    }
    Ok(found)
}

fn list(dir: &Path, depth: usize, found: &mut BTreeSet<String>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.filter_map(|entry| entry.ok()) {
        let path = entry.path();
        if !path.is_dir() {
            found.insert(path.display().to_string());
        } else if depth > 0 && !path.ends_with("rootfs") {
            list(&path, depth - 1, found);
        }
    }
}

/// Process ids of running `program`s.
pub fn pids_of(program: &str) -> Result<Vec<i32>> {
    Ok(processes()?
        .iter()
        .filter_map(|line| line.split_once(' '))
        .filter(|(_, rest)| rest.split(' ').next() == Some(program))
        .filter_map(|(pid, _)| pid.parse().ok())
        .collect())
}

/// Process ids of running programs with exactly this name.
pub fn pids_named(name: &str) -> Result<Vec<i32>> {
    let entries = std::fs::read_dir("/proc").context("cannot list processes")?;
    let runs = |dir: &Path| {
        let stat = std::fs::read_to_string(dir.join("stat")).ok()?;
        let (before, after) = stat.rsplit_once(')')?;
        let (_, comm) = before.split_once('(')?;
        Some(comm == name && !after.trim_start().starts_with('Z'))
    };
    Ok(entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|dir| runs(dir) == Some(true))
        .filter_map(|dir| dir.file_name()?.to_str()?.parse().ok())
        .collect())
}

/// Proportional set size of a process in KiB.
pub fn pss_kib(pid: i32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("cannot read a process's memory")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .context("smaps_rollup has no Pss")?;
    let number = line.trim().trim_end_matches(" kB");
    number.parse().with_context(|| format!("{number} is not a number"))
}
