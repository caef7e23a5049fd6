//! Counts of host resources that must not grow with the number of containers that ran.

use super::{Traces, traces, victim::Victim};
use anyhow::{Context, Result, ensure};
use std::fmt;
use std::path::Path;

/// Growth allowed for each container that ran, for logs and metadata that containerd and the host keep.
/// The memory of a leaked guest, VMM or shim is thousands of KiB.
const KIB_EACH: u64 = 128;
/// Variation of Go's heap and the kernel's caches.
const KIB_NOISE: u64 = 24 * 1024;
/// Variation of containerd's connections and goroutines.
const DESCRIPTORS_NOISE: usize = 6;

/// Counts at one point in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Processes of the host, without kernel threads, whose number varies with the kernel's work.
    pub processes: usize,
    /// Unix sockets of the host.
    pub sockets: usize,
    /// Mounts.
    pub mounts: usize,
    /// Cgroups.
    pub cgroups: usize,
    /// Open files of containerd.
    pub descriptors: usize,
    /// Files in the runtime's state directories and in its cache.
    pub files: usize,
    /// containerd's proportional set size.
    pub containerd_kib: u64,
    /// `MemAvailable` of the host.
    pub available_kib: u64,
}

impl Load {
    /// Counts now, after dropping clean caches.
    pub fn now() -> Result<Self> {
        // drop_caches drops clean pages only; sync makes them clean.
        nix::unistd::sync();
        std::fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop caches")?;
        let traces = Traces::now()?;
        let containerd = Victim::Containerd.find("").context("containerd does not run")?;
        Ok(Self {
            processes: count(Path::new("/proc"), is_program)?,
            // The first line is a heading.
            sockets: lines("/proc/net/unix")?.saturating_sub(1),
            mounts: traces.mounts.len(),
            cgroups: traces.cgroups.len(),
            descriptors: count(Path::new(&format!("/proc/{containerd}/fd")), |_| true)?,
            files: traces.sockets.len() + files_below(Path::new("/var/lib/casemate"))?,
            containerd_kib: traces::pss_kib(containerd)?,
            available_kib: kib("/proc/meminfo", "MemAvailable:")?,
        })
    }

    /// Checks that after `runs` more containers no count has grown, and memory only within its bounds.
    pub fn has_not_grown_since(&self, before: &Self, runs: u64) -> Result<()> {
        let counts = [
            ("processes", self.processes, before.processes, 0),
            ("sockets", self.sockets, before.sockets, DESCRIPTORS_NOISE),
            ("mounts", self.mounts, before.mounts, 0),
            ("cgroups", self.cgroups, before.cgroups, 0),
            ("open files of containerd", self.descriptors, before.descriptors, DESCRIPTORS_NOISE),
            ("files", self.files, before.files, 0),
        ];
        for (what, now, then, allowed) in counts {
            ensure!(now <= then + allowed, "{what} grew from {then} to {now} in {runs} runs");
        }
        let bound = runs * KIB_EACH + KIB_NOISE;
        let grown = self.containerd_kib.saturating_sub(before.containerd_kib);
        ensure!(grown <= bound, "containerd grew by {grown} KiB in {runs} runs; {bound} are allowed");
        let lost = before.available_kib.saturating_sub(self.available_kib);
        ensure!(lost <= bound, "the host lost {lost} KiB in {runs} runs; {bound} are allowed");
        Ok(())
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            processes,
            sockets,
            mounts,
            cgroups,
            descriptors,
            files,
            containerd_kib,
            available_kib,
        } = self;
        write!(
            f,
            "{processes} processes, {sockets} unix sockets, {mounts} mounts, {cgroups} cgroups, {descriptors} files open in \
             containerd, {files} files of state and cache, containerd {containerd_kib} KiB, available {available_kib} KiB"
        )
    }
}

fn count(dir: &Path, wanted: impl Fn(&str) -> bool) -> Result<usize> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    Ok(entries
        .filter_map(|entry| entry.ok())
        .filter(|entry| entry.file_name().to_str().is_some_and(&wanted))
        .count())
}

/// Whether a directory of /proc belongs to a user-space process: kernel threads have no command line.
fn is_program(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_digit())
        && std::fs::read(Path::new("/proc").join(name).join("cmdline")).is_ok_and(|line| !line.is_empty())
}

fn lines(file: &str) -> Result<usize> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    Ok(text.lines().count())
}

/// The number of a line such as `MemAvailable:   1234 kB`.
fn kib(file: &str, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next());
    value
        .and_then(|digits| digits.parse().ok())
        .with_context(|| format!("{file} has no {name}"))
}

fn files_below(dir: &Path) -> Result<usize> {
    let mut found = 0;
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.with_context(|| format!("cannot list {}", dir.display()))?.path();
        found += if path.is_dir() { files_below(&path)? } else { 1 };
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load() -> Load {
        Load {
            processes: 50,
            sockets: 30,
            mounts: 20,
            cgroups: 2,
            descriptors: 25,
            files: 4,
            containerd_kib: 60_000,
            available_kib: 2_000_000,
        }
    }

    #[test]
    fn a_leak_of_any_kind_is_growth() {
        let before = load();
        before.has_not_grown_since(&before, 180).unwrap();
        let after = |change: fn(&mut Load)| {
            let mut after = load();
            change(&mut after);
            after.has_not_grown_since(&before, 180)
        };
        assert!(after(|l| l.processes += 1).is_err());
        assert!(after(|l| l.mounts += 1).is_err());
        assert!(after(|l| l.cgroups += 1).is_err());
        assert!(after(|l| l.files += 1).is_err());
        assert!(after(|l| l.sockets += 180).is_err());
        assert!(after(|l| l.descriptors += 180).is_err());
        // The memory of one shim or VMM, leaked with each run.
        assert!(after(|l| l.available_kib -= 180 * 500).is_err());
        assert!(after(|l| l.containerd_kib += 180 * 500).is_err());
        assert!(after(|l| l.available_kib -= 5000).is_ok());
    }

    #[test]
    fn a_line_of_meminfo_is_parsed() {
        assert!(kib("/proc/meminfo", "MemAvailable:").unwrap() > 0);
        assert!(kib("/proc/meminfo", "NoSuch:").is_err());
    }
}
