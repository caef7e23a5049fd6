//! The agent's side of `casemate-launcher`: one launcher process for each container or exec.

mod namespaces;
mod program;

use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    process::Command,
    thread,
    time::{Duration, Instant},
};

use agent_protocol::limits::{KILL_DEADLINE, LAUNCHER_DEADLINE};
use launcher_protocol::{Answer, Cause, FrameError, Request, receive, send};
use nix::unistd::Pid;

pub use self::{
    namespaces::Namespaces,
    program::{NAME, Program},
};
use crate::{
    reaper::{ExitWatch, Reaper},
    stdio::ProcessEnds,
};

/// Interval at which a killed launcher is checked.
const POLL: Duration = Duration::from_millis(2);

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum LauncherError {
    /// The launcher could not be run, or its socket failed.
    #[error("the launcher failed")]
    Io(#[from] io::Error),
    /// The launcher reported a cause.
    #[error("the process cannot be started: {}", Refusal { cause: *cause, program })]
    Refused {
        /// The launcher's cause.
        cause: Cause,
        /// The program's name from the host's request.
        program: String,
    },
    /// The launcher exited or sent an invalid answer.
    #[error("the launcher gave no answer")]
    Answer,
    /// There was no answer within the deadline, or the launcher exited: what it has done by then is unknown.
    #[error("the launcher did not answer within {LAUNCHER_DEADLINE:?}")]
    Silent,
}

/// The text of a cause. For a program it is runc's text, by which clients recognise exit code 127.
struct Refusal<'a> {
    cause: Cause,
    program: &'a str,
}

impl std::fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cause, program } = self;
        match cause {
            Cause::NotFound => write!(f, "exec: {program:?}: executable file not found in $PATH"),
            Cause::NotExecutable => write!(f, "exec: {program:?}: permission denied"),
            Cause::Format => write!(f, "exec: {program:?}: exec format error"),
            Cause::WorkingDirectory => f.write_str("process.cwd: the working directory cannot be entered"),
            Cause::Seccomp => f.write_str("linux.seccomp: the profile cannot be loaded, or forbids what starting a process takes"),
            Cause::Mount => f.write_str("mounts: one of them cannot be made"),
            Cause::Resources => f.write_str("linux.resources: a limit cannot be set"),
            Cause::Sysctl => f.write_str("linux.sysctl: a parameter of the kernel cannot be set to that value"),
            Cause::Other => f.write_str("the guest cannot create it as its document says"),
        }
    }
}

/// A new process.
pub struct Started {
    /// As the agent sees it.
    pub pid: Pid,
    /// Its exit.
    pub exit: ExitWatch,
    /// The terminal's master, if the spec requests one.
    pub terminal: Option<OwnedFd>,
    /// The namespaces of a container's init.
    pub namespaces: Option<Namespaces>,
}

/// Runs the launcher with `request`; blocks until the process exists.
pub fn launch(program: &Program, reaper: &Reaper, request: &Request, ends: ProcessEnds) -> Result<Started, LauncherError> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(LAUNCHER_DEADLINE))?;
    ours.set_write_timeout(Some(LAUNCHER_DEADLINE))?;
    let theirs = OwnedFd::from(theirs);
    let mut command = Command::new(program.path());
    command
        .arg0(NAME)
        .arg(theirs.as_raw_fd().to_string())
        .env_clear()
        .stdin(ends.stdin)
        .stdout(ends.stdout)
        .stderr(ends.stderr);
    let (launcher, ended) = reaper.spawn(&mut command, &[theirs.as_fd()])?;
    // Both hold the process's ends of its pipes, which the agent must not keep open.
    drop(command);
    drop(theirs);
    let started = converse(&ours, request).and_then(|(pid, terminal)| {
        let is_init = matches!(request, Request::Create(_));
        Ok((pid, terminal, is_init.then(|| Namespaces::of(pid)).transpose()?))
    });
    match started {
        // The launcher waits until `ours` is closed, so the process cannot be reaped before its namespaces are open and its pid is
        // entered.
        Ok((pid, terminal, namespaces)) => Ok(Started {
            pid,
            exit: reaper.register(pid),
            terminal,
            namespaces,
        }),
        Err(error) => {
            // It may hang. Once it is dead, the caller removes what it created.
            let _ = reaper.signal(launcher, libc::SIGKILL);
            wait_for(&ended);
            Err(error)
        }
    }
}

/// Waits for the exit of a killed process, on a thread that may block.
fn wait_for(ended: &ExitWatch) {
    let deadline = Instant::now() + KILL_DEADLINE;
    while ended.borrow().is_none() && Instant::now() < deadline {
        thread::sleep(POLL);
    }
}

fn converse(socket: &UnixStream, request: &Request) -> Result<(Pid, Option<OwnedFd>), LauncherError> {
    let lost = |error| match error {
        FrameError::Io(_) => LauncherError::Silent,
        FrameError::Closed | FrameError::TooLong(_) | FrameError::Document(_) => LauncherError::Answer,
    };
    send(socket, request, None).map_err(lost)?;
    let (answer, terminal) = receive(socket).map_err(lost)?;
    match answer {
        Answer::Started(pid) => {
            let pid = i32::try_from(pid).ok().filter(|&pid| pid > 1).ok_or(LauncherError::Answer)?;
            Ok((Pid::from_raw(pid), terminal))
        }
        Answer::Failed(cause) => Err(LauncherError::Refused {
            cause,
            program: program_of(request).to_owned(),
        }),
    }
}

/// The program's name in the request.
fn program_of(request: &Request) -> &str {
    let args = match request {
        Request::Create(container) => &container.process.args,
        Request::Exec(exec) => &exec.process.args,
        Request::External(process) => &process.args,
    };
    args.first().map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use launcher_protocol::External;

    fn answer_to(answer: Option<Answer>) -> Result<(Pid, Option<OwnedFd>), LauncherError> {
        let (ours, launchers) = UnixStream::pair().unwrap();
        let request = Request::External(External {
            args: vec!["tool".to_owned()],
            ..External::default()
        });
        let launcher = thread::spawn(move || {
            let (received, _) = receive::<Request>(&launchers).unwrap();
            assert_eq!(program_of(&received), "tool");
            if let Some(answer) = answer {
                send(&launchers, &answer, None).unwrap();
            }
        });
        let result = converse(&ours, &request);
        launcher.join().unwrap();
        result
    }

    #[test]
    fn answers_are_pids_or_causes() {
        assert_eq!(answer_to(Some(Answer::Started(0x102))).unwrap().0, Pid::from_raw(0x102));
        for odd in [0, 1, u32::MAX] {
            assert!(matches!(answer_to(Some(Answer::Started(odd))), Err(LauncherError::Answer)), "{odd}");
        }
        assert!(matches!(answer_to(None), Err(LauncherError::Answer)));
        let refused = answer_to(Some(Answer::Failed(Cause::NotFound))).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the process cannot be started: exec: \"tool\": executable file not found in $PATH"
        );
    }
}
