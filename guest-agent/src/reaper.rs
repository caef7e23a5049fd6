//! The only caller of waitpid, with the table of running processes and their exits.
//!
//! The serving process is a child subreaper, so launchers, inits and exec processes all exit as its children. A pid is
//! entered before it can be reaped (a launcher waits until the agent has entered the pid it reports), and a signal is
//! sent under the same lock that reaping takes, so it never reaches another process that has since got the same pid.

use std::{
    collections::HashMap,
    fs, io,
    os::fd::BorrowedFd,
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, fcntl},
    unistd::Pid,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// The exit of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code, or 128 + signal.
    pub status: u32,
    /// Nanoseconds since the epoch by the guest's clock.
    pub at_ns: u64,
}

/// Reports the exit of a process to any number of waiters, as long as it is kept.
pub type ExitWatch = watch::Receiver<Option<Exit>>;

/// The table of running children.
#[derive(Default)]
pub struct Reaper {
    running: Mutex<HashMap<Pid, watch::Sender<Option<Exit>>>>,
}

impl Reaper {
    /// Starts `command` with `inherited` left open under its own number.
    pub fn spawn(&self, command: &mut Command, inherited: &[BorrowedFd<'_>]) -> io::Result<(Pid, ExitWatch)> {
        let mut running = self.running();
        let set = |flags| {
            let mut inherited = inherited.iter();
            inherited.try_for_each(|descriptor| fcntl(descriptor, FcntlArg::F_SETFD(flags)).map(drop))
        };
        // Under the lock, so that no other child inherits the descriptors.
        let spawned = set(FdFlag::empty()).map_err(io::Error::from).and_then(|()| command.spawn());
        set(FdFlag::FD_CLOEXEC)?;
        let pid = Pid::from_raw(spawned?.id() as i32);
        Ok((pid, Self::enter(&mut running, pid)))
    }

    /// Enters a process that the launcher started and that cannot have been reaped yet.
    pub fn register(&self, pid: Pid) -> ExitWatch {
        Self::enter(&mut self.running(), pid)
    }

    fn enter(running: &mut HashMap<Pid, watch::Sender<Option<Exit>>>, pid: Pid) -> ExitWatch {
        let (sender, receiver) = watch::channel(None);
        running.insert(pid, sender);
        receiver
    }

    /// Kills a child of this process that was never entered. Any other process is left alone.
    pub fn kill_unknown_child(&self, pid: Pid) {
        let running = self.running();
        if !running.contains_key(&pid) && parent_of(pid) == Some(Pid::this()) {
            // A child that has just exited needs no signal.
            let _ = crate::sys::kill(pid, libc::SIGKILL);
        }
    }

    /// Sends a signal (any number, including real-time ones) to a process that still runs; false if it has exited.
    pub fn signal(&self, pid: Pid, number: i32) -> io::Result<bool> {
        let running = self.running();
        if !running.contains_key(&pid) {
            return Ok(false);
        }
        match crate::sys::kill(pid, number) {
            Ok(()) => Ok(true),
            Err(Errno::ESRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Reaps every exited child.
    fn reap(&self) {
        let mut running = self.running();
        loop {
            let (pid, status) = match crate::sys::reap() {
                Ok(Some(ended)) => ended,
                Err(Errno::EINTR) => continue,
                Ok(None) | Err(_) => return,
            };
            // Others are orphans of containers, for which no request waits.
            if let Some(sender) = running.remove(&pid) {
                let at_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
                sender.send_replace(Some(Exit { status, at_ns }));
            }
        }
    }

    /// Reaps until this process exits.
    pub async fn run(self: Arc<Self>) -> io::Result<()> {
        let mut children = signal(SignalKind::child())?;
        loop {
            self.reap();
            if children.recv().await.is_none() {
                return Ok(());
            }
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Pid, watch::Sender<Option<Exit>>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The parent of a process, from `/proc/<pid>/stat` after the name in parentheses (proc_pid_stat(5)).
fn parent_of(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(1)?.parse().ok().map(Pid::from_raw)
}

/// Waits for the exit of a process.
pub async fn ended(mut watch: ExitWatch) -> Exit {
    match watch.wait_for(Option::is_some).await {
        Ok(exit) => exit.unwrap_or(LOST),
        Err(_) => LOST,
    }
}

/// Reported if an exit was missed, which cannot happen while the reaper lives.
const LOST: Exit = Exit { status: 255, at_ns: 0 };

/// Held by a test that waits for children of its own: a reaper in another test would take them.
#[cfg(test)]
pub static CHILDREN: Mutex<()> = Mutex::new(());

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::fd::AsFd, process::Stdio};

    #[test]
    fn the_parent_is_read_from_stat() {
        assert_eq!(parent_of(Pid::this()), Some(Pid::parent()));
        assert_eq!(parent_of(Pid::from_raw(i32::MAX)), None);
    }

    /// One test for everything, because waitpid would reap another test's children.
    #[tokio::test]
    #[expect(clippy::await_holding_lock, reason = "the runtime of a test has one task")]
    async fn every_waiter_gets_the_exit() {
        let _children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
        let reaper = Arc::new(Reaper::default());
        tokio::spawn(reaper.clone().run());
        let (_ours, theirs) = io::pipe().unwrap();
        let shell = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]).stdin(Stdio::null());
            reaper.spawn(&mut command, &[theirs.as_fd()]).unwrap()
        };
        let (_, seven) = shell("exit 7");
        let (sleeper, killed) = shell("exec sleep 1000");
        let (one, two) = tokio::join!(ended(seven.clone()), ended(seven.clone()));
        assert_eq!(one.status, 7);
        assert_eq!(one, two);
        assert!(one.at_ns > 1_600_000_000_000_000_000);
        // The exit stays the same.
        assert_eq!(ended(seven).await, one);

        assert!(reaper.signal(sleeper, libc::SIGKILL).unwrap());
        assert_eq!(ended(killed).await.status, 128 + 9);
        // A real-time signal, for which libraries have no name.
        let (second, by_number) = shell("exec sleep 1000");
        assert!(reaper.signal(second, 40).unwrap());
        assert_eq!(ended(by_number).await.status, 128 + 40);
        assert!(
            !reaper.signal(sleeper, libc::SIGKILL).unwrap(),
            "its pid may belong to another process by now"
        );
    }
}
