//! The part of the launcher that enters a container: a child without the agent's socket, so that no process in the container's
//! namespaces ever holds it.
//!
//! ```text
//! launcher (agent's socket) ──fork──► worker (report only) ──clone(CLONE_PARENT)──► the new process
//! ```
//! The new process is the launcher's own child, because the worker exits once it has reported. The report is as hostile as the
//! container: a container process that may trace others can reach the new process until its execve.

#![expect(unsafe_code, reason = "fork, and _exit in the child")]

use std::{
    io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read, Write},
    os::fd::{AsFd, BorrowedFd},
};

use launcher_protocol::{Answer, Cause};
use nix::{
    sys::wait::{Id, WaitPidFlag, waitid, waitpid},
    unistd::{ForkResult, Pid, fork},
};

use crate::descriptors;

/// Longest report in bytes. It is written atomically, because it is shorter than PIPE_BUF.
const REPORT_MAX_BYTES: u64 = 128;

/// The worker's report.
#[derive(Debug, PartialEq, Eq)]
pub enum Report {
    /// The pid of a child of this process.
    Started(Pid),
    /// No process was started.
    Failed(Cause),
    /// The worker exited without a report, or reported a pid that is not a child: an unknown process may run.
    Unknown,
}

/// Where a worker, or a process that it created, reports. Only the first report is used.
pub struct Reporter(PipeWriter);

impl Reporter {
    /// A second write end of the same pipe.
    ///
    /// # Errors
    /// The process has too many descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Reports; a report that cannot be sent is seen as the exit of the worker.
    pub fn report(&self, answer: Answer) {
        if let Ok(mut line) = serde_json::to_vec(&answer) {
            line.push(b'\n');
            let _ = (&self.0).write_all(&line);
        }
    }
}

/// Runs `work` in the worker, which keeps the standard descriptors and `kept`.
///
/// `work` returns the pid of a child of this process (not of the worker), or why there is none.
///
/// # Errors
/// There is no worker: the kernel cannot create a pipe or a process.
pub fn run(kept: &[BorrowedFd<'_>], work: impl FnOnce(&Reporter) -> Result<u32, Cause>) -> io::Result<Report> {
    let (reader, writer) = io::pipe()?;
    // SAFETY: this program has one thread, so no other thread can hold a lock that the child would wait for.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let reporter = Reporter(writer);
            reporter.report(answer(kept, &reporter, work));
            // SAFETY: _exit takes a number and does not return. No destructor of this process runs: the descriptors that they
            // would close are closed.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let report = receive(reader);
            // The worker does nothing after its report.
            waitpid(child, None)?;
            Ok(match report {
                Report::Started(pid) if pid == child || !is_child(pid) => Report::Unknown,
                report => report,
            })
        }
    }
}

fn answer(kept: &[BorrowedFd<'_>], reporter: &Reporter, work: impl FnOnce(&Reporter) -> Result<u32, Cause>) -> Answer {
    let kept = [kept, &[reporter.0.as_fd()]].concat();
    if descriptors::close_all_but(&kept).is_err() {
        return Answer::Failed(Cause::Other);
    }
    work(reporter).map_or_else(Answer::Failed, Answer::Started)
}

/// Reads the first report without waiting for end of file: a started process holds the pipe until its execve.
fn receive(pipe: PipeReader) -> Report {
    let mut line = Vec::new();
    let read = BufReader::new(pipe.take(REPORT_MAX_BYTES)).read_until(b'\n', &mut line);
    match read.ok().and_then(|_| serde_json::from_slice(&line).ok()) {
        Some(Answer::Started(pid)) => i32::try_from(pid).map_or(Report::Unknown, |pid| Report::Started(Pid::from_raw(pid))),
        Some(Answer::Failed(cause)) => Report::Failed(cause),
        None => Report::Unknown,
    }
}

/// Whether `pid` is a child of this process, running or exited.
fn is_child(pid: Pid) -> bool {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    pid.as_raw() > 0 && waitid(Id::Pid(pid), look).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(bytes: &[u8]) -> Report {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(bytes).unwrap();
        drop(writer);
        receive(reader)
    }

    #[test]
    fn only_the_first_report_is_used() {
        let (reader, writer) = io::pipe().unwrap();
        let reporter = Reporter(writer);
        reporter.report(Answer::Failed(Cause::NotFound));
        reporter.report(Answer::Started(7));
        assert_eq!(receive(reader), Report::Failed(Cause::NotFound));
        assert_eq!(received(b"{\"Started\":258}\n"), Report::Started(Pid::from_raw(258)));
        for bad in [
            &b""[..],
            b"\n",
            b"{\"Started\":4294967295}\n",
            b"{\"Started\":-1}\n",
            b"{\"Started\"",
            &[b'x'; 4096],
        ] {
            assert_eq!(received(bad), Report::Unknown, "{bad:?}");
        }
    }

    #[test]
    fn only_pids_of_children_are_accepted() {
        for pid in [0, 1, std::process::id()] {
            assert_eq!(run(&[], |_| Ok(pid)).unwrap(), Report::Unknown, "{pid}");
        }
        assert_eq!(
            run(&[], |_| Ok(Pid::this().as_raw() as u32)).unwrap(),
            Report::Unknown,
            "the worker itself"
        );
        assert_eq!(run(&[], |_| Err(Cause::Mount)).unwrap(), Report::Failed(Cause::Mount));
    }

    #[test]
    fn the_worker_holds_the_descriptors_it_was_given() {
        let (_secret, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let (reader, kept) = io::pipe().unwrap();
        // The standard three, the pipe that was kept, the report, and the directory being read.
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count() == 6;
        let report = run(&[kept.as_fd()], |_| Err(if open() { Cause::Mount } else { Cause::Other }));
        assert_eq!(report.unwrap(), Report::Failed(Cause::Mount));
        drop((reader, kept));
    }
}
