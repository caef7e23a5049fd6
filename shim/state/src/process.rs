//! The identity of a process: pid and start time, so that a reused pid is not mistaken for it.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

/// A process on this host since its last boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process id.
    pub pid: u32,
    /// Clock ticks from the host's boot to the process's start (`/proc/<pid>/stat`, field 22).
    pub start_time: u64,
}

impl ProcessId {
    /// The process that has `pid` now; `None` when there is none.
    pub fn of(pid: u32) -> Option<Self> {
        stat(pid).map(|(start_time, _)| Self { pid, start_time })
    }

    /// Whether this process runs. A zombie has ended, and so has a process whose pid was reused.
    pub fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|(start_time, state)| start_time == self.start_time && !matches!(state, 'Z' | 'X'))
    }

    /// Sends SIGKILL and waits until the process has ended, at most `limit`. By a descriptor of the process: its id may be
    /// another's by the time of the signal.
    pub fn kill_and_wait(&self, limit: Duration) {
        let Some(process) = self.open() else { return };
        // It fails where the process has ended meanwhile.
        let _ = pidfd_send_signal(&process, Signal::KILL);
        let deadline = Instant::now() + limit;
        while self.is_alive() && Instant::now() < deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut ended = [PollFd::new(&process, PollFlags::IN)];
            let _ = poll(&mut ended, Timespec::try_from(left).ok().as_ref());
        }
    }

    /// A descriptor of this process, if it is alive: opened before the id is compared, so that it is this one's.
    fn open(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        self.is_alive().then_some(process)
    }
}

/// Start time and state of a process (proc(5), `/proc/<pid>/stat`).
fn stat(pid: u32) -> Option<(u64, char)> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(stat: &str) -> Option<(u64, char)> {
    // The name, field 2, may hold anything, parentheses and spaces included; the last one closes it.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // Field 3 was the state, so field 22 is 18 further on.
    let start_time = fields.nth(18)?.parse().ok()?;
    Some((start_time, state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_name_cannot_shift_the_fields() {
        let stat = "7 (a) R 1) S 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        assert_eq!(parse(stat), Some((4242, 'S')));
        assert_eq!(parse(""), None);
    }

    #[test]
    fn zombies_and_processes_with_another_start_time_are_not_alive() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = ProcessId::of(child.id()).unwrap();
        assert!(process.is_alive());
        let other = ProcessId {
            start_time: process.start_time + 1,
            ..process
        };
        assert!(!other.is_alive());
        other.kill_and_wait(Duration::from_secs(1));
        assert!(process.is_alive());
        process.kill_and_wait(Duration::from_secs(5));
        // A zombie until it is waited for.
        assert!(ProcessId::of(child.id()).is_some() && !process.is_alive());
        child.wait().unwrap();
        assert!(ProcessId::of(child.id()).is_none_or(|other| other != process));
    }
}
