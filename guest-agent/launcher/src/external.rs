//! A process of the guest itself, outside every container: same root, namespaces and devices as the agent, less its shield.

use std::{
    fs,
    io::{self, ErrorKind},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Command, Stdio},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    pty::openpty,
};
use oci_spec::runtime::{Process, Spec};

use crate::{
    cgroup::{self, CgroupError},
    terminal,
};

/// Why it was not started.
#[derive(Debug, thiserror::Error)]
pub enum ExternalError {
    /// The agent sent a spec that lacks a part this program needs.
    #[error("the spec has no {0}")]
    Missing(&'static str),
    /// The cgroup of the guest's own processes.
    #[error("{0}")]
    Cgroup(#[from] CgroupError),
    /// No such program.
    #[error("executable '{0}' not found in $PATH")]
    NotFound(String),
    /// Not to be executed.
    #[error("executable '{0}' does not have correct permissions")]
    NotExecutable(String),
    /// The working directory is none.
    #[error("cannot enter the working directory: {0}")]
    WorkingDirectory(io::Error),
    /// Another step failed.
    #[error("{what}: {error}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        error: io::Error,
    },
}

fn io_error<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> ExternalError {
    move |error| ExternalError::Io { what, error: error.into() }
}

/// Starts the process of `spec` in the cgroup that it names. Descriptors 0 to 2 are the process's, unless it asks for a terminal.
pub fn start(spec: &Spec) -> Result<(u32, Option<OwnedFd>), ExternalError> {
    let process = spec.process().as_ref().ok_or(ExternalError::Missing("process"))?;
    // Both are inherited: the agent's own score would keep the process from the OOM killer, and whatever it starts counts with it.
    let score = process.oom_score_adj().ok_or(ExternalError::Missing("OOM score"))?;
    fs::write("/proc/self/oom_score_adj", score.to_string()).map_err(io_error("setting the OOM score"))?;
    cgroup::join(spec)?;
    let mut command = command(process)?;
    if !terminal::is_wanted(spec) {
        return Ok((spawn(&mut command)?, None));
    }
    let terminal = openpty(None, None).map_err(io_error("making a terminal"))?;
    // The agent's end is not the process's.
    fcntl(&terminal.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(io_error("making a terminal"))?;
    for set in [Command::stdin, Command::stdout, Command::stderr] {
        let slave = terminal.slave.as_fd().try_clone_to_owned().map_err(io_error("making a terminal"))?;
        set(&mut command, Stdio::from(slave));
    }
    drop(terminal.slave);
    // SAFETY: the closure runs between fork and exec of a program with one thread, so no lock can be held by another; it
    // makes two system calls and allocates nothing.
    unsafe { command.pre_exec(lead_session) };
    Ok((spawn(&mut command)?, Some(terminal.master)))
}

fn command(process: &Process) -> Result<Command, ExternalError> {
    let words = process.args().as_deref().unwrap_or_default();
    let (program, arguments) = words.split_first().ok_or(ExternalError::Missing("command"))?;
    // spawn would report a bad directory as it does a missing program.
    let directory = fs::metadata(process.cwd()).map_err(ExternalError::WorkingDirectory)?;
    if !directory.is_dir() {
        return Err(ExternalError::WorkingDirectory(ErrorKind::NotADirectory.into()));
    }
    let environment = process
        .env()
        .iter()
        .flatten()
        .map(|entry| entry.split_once('=').unwrap_or((entry, "")));
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment).current_dir(process.cwd());
    Ok(command)
}

fn spawn(command: &mut Command) -> Result<u32, ExternalError> {
    let name = command.get_program().to_string_lossy().into_owned();
    // The child outlives this program, and its new parent, the agent, collects it.
    match command.spawn() {
        Ok(child) => Ok(child.id()),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(ExternalError::NotFound(name)),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(ExternalError::NotExecutable(name)),
        Err(error) => Err(io_error("starting the process")(error)),
    }
}

/// Makes the calling process the leader of a session with its standard input as terminal.
fn lead_session() -> io::Result<()> {
    nix::unistd::setsid()?;
    // SAFETY: TIOCSCTTY takes a number and touches no memory.
    nix::errno::Errno::result(unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(json: &str) -> Result<u32, ExternalError> {
        let process: Process = serde_json::from_str(json).unwrap();
        spawn(command(&process)?.stdout(Stdio::null()))
    }

    #[test]
    fn what_cannot_be_started_says_why() {
        assert!(started(r#"{"user":{"uid":0,"gid":0},"args":["true"],"cwd":"/","env":["PATH=/bin:/usr/bin"]}"#).is_ok());
        let of = |args: &str, cwd: &str| {
            started(&format!(
                r#"{{"user":{{"uid":0,"gid":0}},"args":{args},"cwd":"{cwd}","env":["PATH=/bin"]}}"#
            ))
        };
        assert!(matches!(of(r#"["no-such-program"]"#, "/"), Err(ExternalError::NotFound(name)) if name == "no-such-program"));
        assert!(matches!(of(r#"["/etc"]"#, "/"), Err(ExternalError::NotExecutable(_))));
        assert!(matches!(of(r#"["true"]"#, "/no/such"), Err(ExternalError::WorkingDirectory(_))));
        assert!(matches!(of(r#"["true"]"#, "/etc/passwd"), Err(ExternalError::WorkingDirectory(_))));
        assert!(matches!(of("[]", "/"), Err(ExternalError::Missing("command"))));
    }
}
