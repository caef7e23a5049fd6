//! The agent's side of `casemate-launcher`: one process for each container or exec to be started.

mod program;

use std::{
    io::{self, IoSliceMut, Read, Write},
    os::fd::{AsRawFd, OwnedFd},
    os::unix::{net::UnixStream, process::CommandExt},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use agent_protocol::limits::{KILL_DEADLINE, LAUNCHER_DEADLINE};
use nix::{
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
    unistd::Pid,
};
use policy::ContainerId;

pub use self::program::{NAME, Program};
use crate::{
    paths,
    reaper::{ExitWatch, Reaper},
    stdio::ProcessEnds,
    sys,
};

/// Between two looks at a launcher that was killed.
const POLL: Duration = Duration::from_millis(2);
/// Longest error text taken from the launcher, in bytes.
const ERROR_BYTES: u64 = 2048;

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum LauncherError {
    /// The program could not be run or talked to.
    #[error("the launcher failed")]
    Io(#[from] io::Error),
    /// It said why.
    #[error("the process cannot be started: {0}")]
    Refused(Cause),
    /// It said something else.
    #[error("the launcher gave no answer")]
    Answer,
    /// It said nothing in time, or went away: what it has done by then is unknown.
    #[error("the launcher did not answer within {LAUNCHER_DEADLINE:?}")]
    Silent,
}

/// Why the launcher could not start a process. Its own words tell of the guest's files and stay inside; what the host
/// may know is which of these they mean, and where a program is concerned, the name that the host gave it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The words are runc's, by which clients tell 127 from other failures.
    #[error("exec: {0:?}: executable file not found in $PATH")]
    NotFound(String),
    /// The program is a directory, or lacks the right to be executed.
    #[error("exec: {0:?}: permission denied")]
    NotExecutable(String),
    /// The working directory cannot be entered.
    #[error("process.cwd: the working directory cannot be entered")]
    WorkingDirectory,
    /// The host's seccomp profile cannot be loaded.
    #[error("linux.seccomp: the profile cannot be loaded")]
    Seccomp,
    /// A mount of the spec does not work out.
    #[error("mounts: one of them cannot be made")]
    Mount,
    /// A limit of the spec is refused.
    #[error("linux.resources: a limit cannot be set")]
    Resources,
    /// Something else.
    #[error("the guest cannot make it as its document says")]
    Other,
}

impl Cause {
    /// From the launcher's words. `program` is the first argument of the host's document.
    fn of(words: &str, program: &str) -> Self {
        let says = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
        if says(&["not found in $PATH", "PATH environment variable is not set"]) {
            Self::NotFound(program.to_owned())
        } else if says(&["does not have correct permissions", "check permissions for executable", "EACCES"]) {
            Self::NotExecutable(program.to_owned())
        } else if says(&["cwd", "chdir", "working directory"]) {
            Self::WorkingDirectory
        } else if says(&["seccomp"]) {
            Self::Seccomp
        } else if says(&["cgroup"]) {
            Self::Resources
        } else if says(&["mount", "rootfs"]) {
            Self::Mount
        } else {
            Self::Other
        }
    }
}

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub enum Verb {
    /// A container's init, which waits for its start.
    Create,
    /// A further process, which runs at once.
    Exec,
    /// A process of the guest, which runs at once.
    External,
}

/// A new process.
pub struct Started {
    /// As the agent sees it.
    pub pid: Pid,
    /// Tells its end.
    pub exit: ExitWatch,
    /// The terminal's master, if the spec asks for one.
    pub terminal: Option<OwnedFd>,
}

/// Runs the launcher with `spec`; blocks until the process exists.
pub fn launch(
    program: &Program,
    reaper: &Reaper,
    verb: Verb,
    id: &ContainerId,
    spec: &serde_json::Value,
    ends: ProcessEnds,
) -> Result<Started, LauncherError> {
    let (mut ours, theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(LAUNCHER_DEADLINE))?;
    ours.set_write_timeout(Some(LAUNCHER_DEADLINE))?;
    let theirs = OwnedFd::from(theirs);
    let mut command = Command::new(program.path());
    command
        .arg0(NAME)
        .arg(match verb {
            Verb::Create => "create",
            Verb::Exec => "exec",
            Verb::External => "external",
        })
        .arg(id.as_hex())
        .arg(paths::bundle(id))
        .arg(theirs.as_raw_fd().to_string())
        .env_clear()
        .stdin(ends.stdin)
        .stdout(ends.stdout)
        .stderr(ends.stderr);
    let (launcher, ended) = reaper.spawn(&mut command, &theirs)?;
    // Both hold the process's ends of its pipes, which must have no writer in the agent.
    drop(command);
    drop(theirs);
    match converse(&mut ours, spec) {
        // The launcher stays until `ours` is closed, so this comes before anybody can reap the process.
        Ok((pid, terminal)) => Ok(Started {
            pid,
            exit: reaper.register(pid),
            terminal,
        }),
        Err(error) => {
            // It may hang; what it made by then is the caller's to clear away, once it can make no more.
            let _ = reaper.signal(launcher, libc::SIGKILL);
            wait_for(&ended);
            Err(match error {
                Broken::Refused(words) => {
                    LauncherError::Refused(Cause::of(&words, spec["process"]["args"][0].as_str().unwrap_or_default()))
                }
                Broken::Answer => LauncherError::Answer,
                Broken::Io => LauncherError::Silent,
            })
        }
    }
}

/// Waits for the end of a process that was killed, on a thread that may block.
fn wait_for(ended: &ExitWatch) {
    let deadline = Instant::now() + KILL_DEADLINE;
    while ended.borrow().is_none() && Instant::now() < deadline {
        thread::sleep(POLL);
    }
}

/// A conversation that ended without a process.
#[derive(Debug)]
enum Broken {
    /// In the launcher's own words.
    Refused(String),
    Answer,
    Io,
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

fn converse(socket: &mut UnixStream, spec: &serde_json::Value) -> Result<(Pid, Option<OwnedFd>), Broken> {
    let spec = serde_json::to_vec(spec).map_err(io::Error::from)?;
    let length = u32::try_from(spec.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    socket.write_all(&length.to_le_bytes())?;
    socket.write_all(&spec)?;
    answer(socket)
}

fn answer(socket: &mut UnixStream) -> Result<(Pid, Option<OwnedFd>), Broken> {
    let mut first = [0; 5];
    let mut space = nix::cmsg_space!([libc::c_int; 1]);
    let (count, terminal) = {
        let mut iov = [IoSliceMut::new(&mut first)];
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).map_err(io::Error::from)?;
        let mut terminal = None;
        for control in message.cmsgs().map_err(io::Error::from)? {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                terminal = sys::first_received(&numbers);
            }
        }
        (message.bytes, terminal)
    };
    match (first, count) {
        ([b'P', pid @ ..], 5) => {
            let pid = i32::try_from(u32::from_le_bytes(pid))
                .ok()
                .filter(|&pid| pid > 1)
                .ok_or(Broken::Answer)?;
            Ok((Pid::from_raw(pid), terminal))
        }
        ([b'E', ..], 1..) => {
            let mut text = first[1..count].to_vec();
            socket.take(ERROR_BYTES).read_to_end(&mut text)?;
            Err(Broken::Refused(String::from_utf8_lossy(&text).into_owned()))
        }
        _ => Err(Broken::Answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{ControlMessage, sendmsg};
    use std::io::IoSlice;

    #[test]
    fn the_launchers_words_stay_inside() {
        let words = [
            ("failed: executable 'nope' not found in $PATH", Cause::NotFound("nope".to_owned())),
            (
                "executable 'nope' at path '\"/etc\"' does not have correct permissions",
                Cause::NotExecutable("nope".to_owned()),
            ),
            ("failed to set cwd: /run/gcs/c/secret", Cause::WorkingDirectory),
            ("failed to prepare rootfs: /run/gcs/c/secret/rootfs: EINVAL", Cause::Mount),
            ("secret", Cause::Other),
        ];
        for (words, cause) in words {
            let found = Cause::of(words, "nope");
            assert!(!found.to_string().contains("secret"));
            assert_eq!(found, cause, "{words}");
        }
    }

    fn answer_to(bytes: &[u8]) -> Result<(Pid, Option<OwnedFd>), Broken> {
        let (mut ours, mut launchers) = UnixStream::pair().unwrap();
        launchers.write_all(bytes).unwrap();
        drop(launchers);
        answer(&mut ours)
    }

    #[test]
    fn answers_are_pids_or_errors() {
        assert_eq!(answer_to(b"P\x02\x01\0\0").unwrap().0, Pid::from_raw(0x102));
        let Broken::Refused(text) = answer_to(b"Eno such program").unwrap_err() else {
            panic!()
        };
        assert_eq!(text, "no such program");
        for bad in [&b""[..], b"P", b"P\x01\0\0\0", b"P\0\0\0\0", b"P\0\0\0\x80", b"X"] {
            assert!(matches!(answer_to(bad), Err(Broken::Answer)), "{bad:?}");
        }
    }

    #[test]
    fn a_terminal_comes_with_the_pid() {
        let (mut ours, launchers) = UnixStream::pair().unwrap();
        let (_reader, writer) = io::pipe().unwrap();
        let numbers = [writer.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&numbers)];
        sendmsg::<()>(
            launchers.as_raw_fd(),
            &[IoSlice::new(b"P\x07\0\0\0")],
            &rights,
            MsgFlags::empty(),
            None,
        )
        .unwrap();
        let (pid, terminal) = answer(&mut ours).unwrap();
        assert_eq!(pid, Pid::from_raw(7));
        assert!(terminal.is_some());
    }
}
