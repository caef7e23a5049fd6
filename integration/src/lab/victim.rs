//! Finds host processes that a container depends on by their command lines, and kills them.

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::path::Path;

/// Names in /proc, which the kernel truncates to 15 characters.
const SHIM: &str = "containerd-shim";
const VMM: &str = "casemate-vmm";
const CONTAINERD: &str = "containerd";
/// Most processes between a shim and its VMM.
const GENERATIONS: usize = 4;

/// The process to kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The container's VMM.
    Vmm,
    /// The process that serves the container's task.
    Shim,
    /// containerd itself.
    Containerd,
}

impl Victim {
    /// The process, if it exists.
    pub fn find(self, container: &str) -> Option<i32> {
        let all = processes();
        let shim = || all.iter().find(|p| p.name == SHIM && p.serves(container));
        match self {
            Self::Containerd => all.iter().find(|p| p.name == CONTAINERD).map(|p| p.pid),
            Self::Shim => shim().map(|p| p.pid),
            Self::Vmm => {
                let shim = shim()?.pid;
                let below = |p: &&Process| p.name == VMM && descends(&all, p.pid, shim);
                all.iter().find(below).map(|p| p.pid)
            }
        }
    }
}

/// Sends SIGKILL; returns false if the process is already gone.
pub fn kill_now(pid: i32) -> Result<bool> {
    match kill(Pid::from_raw(pid), Signal::SIGKILL) {
        Ok(()) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot kill process {pid}")),
    }
}

struct Process {
    pid: i32,
    parent: i32,
    name: String,
    words: Vec<String>,
}

impl Process {
    /// Matches `… -id CONTAINER …` without one of the short-lived actions `start` and `delete`.
    fn serves(&self, container: &str) -> bool {
        let named = self.words.windows(2).any(|pair| pair[0] == "-id" && pair[1] == container);
        named && !self.words.last().is_some_and(|word| word == "start" || word == "delete")
    }
}

fn descends(all: &[Process], pid: i32, ancestor: i32) -> bool {
    let mut pid = pid;
    (0..GENERATIONS).any(|_| {
        let parent = all.iter().find(|p| p.pid == pid).map_or(0, |p| p.parent);
        pid = parent;
        parent == ancestor
    })
}

fn processes() -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| entry.ok());
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            read(pid, &entry.path())
        })
        .collect()
}

/// None if the process has exited or is a zombie.
fn read(pid: i32, dir: &Path) -> Option<Process> {
    let stat = std::fs::read_to_string(dir.join("stat")).ok()?;
    // The name may contain anything, including parentheses.
    let (head, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let words = std::fs::read(dir.join("cmdline")).ok()?;
    let words = words.split(|&b| b == 0).map(|word| String::from_utf8_lossy(word).into_owned());
    (!matches!(state, "Z" | "X")).then(|| Process {
        pid,
        parent,
        name: head.split_once('(').map(|(_, name)| name.to_owned()).unwrap_or_default(),
        words: words.filter(|word| !word.is_empty()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_and_its_child_are_found() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let all = processes();
        let (own, pid) = (std::process::id() as i32, child.id() as i32);
        assert!(descends(&all, pid, own) && !descends(&all, own, pid));
        assert!(kill_now(pid).unwrap());
        child.wait().unwrap();
        assert!(!kill_now(pid).unwrap());
    }

    #[test]
    fn short_lived_actions_of_a_shim_are_not_its_server() {
        let process = |line: &str| Process {
            pid: 1,
            parent: 1,
            name: SHIM.into(),
            words: line.split(' ').map(str::to_owned).collect(),
        };
        assert!(process("shim -namespace default -id a -address x").serves("a"));
        assert!(!process("shim -namespace default -id ab -address x").serves("a"));
        assert!(!process("shim -namespace default -id a -address x start").serves("a"));
        assert!(!process("shim -namespace default -id a -bundle b delete").serves("a"));
    }
}
