//! The part of the launcher that enters a container: a child without the agent's socket, so that nothing which is born in the
//! container's namespaces ever holds it.
//!
//! ```text
//! launcher (agent's socket) ──fork──► worker (report only) ──clone(CLONE_PARENT)──► the new process
//! ```
//! The new process is the launcher's own child, as the worker ends as soon as it has reported. What comes through the report
//! is as hostile as the container: a process in it that may trace others reaches the new process until its execve.

use std::{
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::fd::{AsFd, BorrowedFd},
};

use nix::{
    sys::wait::{Id, WaitPidFlag, waitid, waitpid},
    unistd::{ForkResult, Pid, fork},
};

use crate::descriptors;

/// What a failed worker says at most, in bytes.
pub const WORDS_MAX_BYTES: u64 = 4096;
/// In place of a pid: words follow.
const FAILED: u32 = 0;

/// Why the worker reported no process.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The worker could not be made or heard.
    #[error("the worker: {0}")]
    Io(#[from] io::Error),
    /// It said why it could not start the process.
    #[error("{0}")]
    Failed(String),
    /// It ended without a word; what it had started by then is unknown.
    #[error("the worker ended without a report")]
    Silent,
    /// It named a process that is none of this program's children.
    #[error("the worker reported a process that it did not make")]
    Stranger,
}

/// Runs `work` in the worker, which keeps the standard descriptors and `kept`, and returns the pid that it reports.
///
/// `work` returns the pid of a child of this process (not of the worker), or why there is none.
///
/// # Errors
/// The worker failed, ended, or lied.
pub fn run<E: std::fmt::Display>(kept: &[BorrowedFd<'_>], work: impl FnOnce() -> Result<u32, E>) -> Result<Pid, WorkerError> {
    let (report, writer) = io::pipe()?;
    // SAFETY: this program has one thread, so the child finds no lock held by a thread that it lacks.
    match unsafe { fork() }.map_err(io::Error::from)? {
        ForkResult::Child => {
            work_and_report(kept, writer, work);
            // SAFETY: _exit takes a number and does not return; no destructor of this process runs, as the descriptors that
            // they would close are closed.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let reported = receive(report);
            // Ended by now or about to: it does nothing after its report.
            waitpid(child, None).map_err(io::Error::from)?;
            let pid = reported?;
            if pid == child || !is_child(pid) {
                return Err(WorkerError::Stranger);
            }
            Ok(pid)
        }
    }
}

/// Nothing can be done about a report that cannot be sent: then the parent reads its end.
fn work_and_report<E: std::fmt::Display>(kept: &[BorrowedFd<'_>], mut writer: PipeWriter, work: impl FnOnce() -> Result<u32, E>) {
    let kept = [kept, &[writer.as_fd()]].concat();
    let result = match descriptors::close_all_but(&kept) {
        Ok(()) => work().map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let _ = match result {
        Ok(pid) => writer.write_all(&pid.to_le_bytes()),
        Err(words) => writer
            .write_all(&FAILED.to_le_bytes())
            .and_then(|()| writer.write_all(&(words.len() as u32).to_le_bytes()))
            .and_then(|()| writer.write_all(words.as_bytes())),
    };
    std::mem::forget(writer);
}

/// Reads a report. Its end is not waited for: a process that was started holds the pipe until its execve.
fn receive(mut report: PipeReader) -> Result<Pid, WorkerError> {
    let mut number = || {
        let mut bytes = [0; 4];
        match report.read_exact(&mut bytes) {
            Ok(()) => Ok(u32::from_le_bytes(bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(WorkerError::Silent),
            Err(error) => Err(WorkerError::Io(error)),
        }
    };
    match number()? {
        FAILED => {
            let length = u64::from(number()?).min(WORDS_MAX_BYTES);
            let mut words = Vec::new();
            report.take(length).read_to_end(&mut words)?;
            Err(WorkerError::Failed(String::from_utf8_lossy(&words).into_owned()))
        }
        pid => i32::try_from(pid).map(Pid::from_raw).map_err(|_| WorkerError::Stranger),
    }
}

/// Whether `pid` is a child of this process, ended or not.
fn is_child(pid: Pid) -> bool {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::Pid(pid), look).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(bytes: &[u8]) -> Result<Pid, WorkerError> {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(bytes).unwrap();
        drop(writer);
        receive(reader)
    }

    #[test]
    fn a_report_is_a_pid_or_words() {
        assert_eq!(received(b"\x02\x01\0\0").unwrap(), Pid::from_raw(0x102));
        assert_eq!(
            received(b"\0\0\0\0\x02\0\0\0no").unwrap_err().to_string(),
            "no",
            "and the length bounds it"
        );
        assert!(matches!(received(b"\0\0\0\0\xff\xff\xff\xffcut"), Err(WorkerError::Failed(words)) if words == "cut"));
        assert!(matches!(received(b"\x02"), Err(WorkerError::Silent)));
        assert!(matches!(received(b"\0\0\0\0"), Err(WorkerError::Silent)));
        assert!(matches!(received(&[0xff; 4]), Err(WorkerError::Stranger)));
    }

    #[test]
    fn only_children_of_this_process_are_believed() {
        let error = run(&[], || Ok::<_, String>(1)).unwrap_err();
        assert!(matches!(error, WorkerError::Stranger), "{error}");
        let itself = run(&[], || Ok::<_, String>(std::process::id())).unwrap_err();
        assert!(matches!(itself, WorkerError::Stranger), "{itself}");
        let said = run(&[], || Err("why")).unwrap_err();
        assert_eq!(said.to_string(), "why");
    }

    #[test]
    fn the_worker_holds_what_it_was_left() {
        let (_secret, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let (reader, kept) = io::pipe().unwrap();
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        // The standard three, the pipe that was kept, the report, and the directory that is read.
        let said = run(&[kept.as_fd()], || Err(open())).unwrap_err();
        assert_eq!(said.to_string(), "6");
        drop((reader, kept));
    }
}
