//! Starts a process of the guest itself, outside every container: root, namespaces and devices of the agent, without its OOM
//! protection.

#![expect(unsafe_code, reason = "a closure between fork and exec, and one ioctl on a terminal")]

use std::{
    fs,
    io::{self, ErrorKind},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Command, Stdio},
};

use launcher_protocol::{Cause, External};
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    pty::openpty,
};

use crate::{Outcome, cgroup};

/// OOM score adjustment of a process of the guest, which is protected no better than others.
const OOM_SCORE: i32 = 0;

/// Starts the process. Descriptors 0 to 2 are the process's, unless it asks for a terminal.
///
/// # Errors
/// No process is left running.
pub fn start(request: &External) -> Result<Outcome, Cause> {
    cgroup::join(&request.cgroup, OOM_SCORE)?;
    let mut command = command(request)?;
    if !request.terminal {
        return Ok(Outcome::Started(spawn(&mut command)?, None));
    }
    let master = give_terminal(&mut command).map_err(|_| Cause::Other)?;
    Ok(Outcome::Started(spawn(&mut command)?, Some(master)))
}

/// Creates a terminal, makes its slave the process's standard descriptors and the process its session leader.
fn give_terminal(command: &mut Command) -> io::Result<OwnedFd> {
    let terminal = openpty(None, None)?;
    // The new process must not hold the agent's end.
    fcntl(&terminal.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    for set in [Command::stdin, Command::stdout, Command::stderr] {
        set(command, Stdio::from(terminal.slave.as_fd().try_clone_to_owned()?));
    }
    // SAFETY: the closure runs between fork and exec of a program with one thread, so no lock can be held by another; it
    // makes two system calls and allocates nothing.
    unsafe { command.pre_exec(lead_session) };
    Ok(terminal.master)
}

fn command(request: &External) -> Result<Command, Cause> {
    let (program, arguments) = request.args.split_first().ok_or(Cause::NotFound)?;
    // spawn would report a bad directory as a missing program.
    let directory = fs::metadata(&request.cwd).map_err(|_| Cause::WorkingDirectory)?;
    if !directory.is_dir() {
        return Err(Cause::WorkingDirectory);
    }
    let environment = request.env.iter().map(|entry| entry.split_once('=').unwrap_or((entry, "")));
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment).current_dir(&request.cwd);
    Ok(command)
}

fn spawn(command: &mut Command) -> Result<u32, Cause> {
    // The child outlives this program; its new parent, the agent, reaps it.
    match command.spawn() {
        Ok(child) => Ok(child.id()),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Cause::NotFound),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(Cause::NotExecutable),
        Err(error) if error.raw_os_error() == Some(libc::ENOEXEC) => Err(Cause::Format),
        Err(_) => Err(Cause::Other),
    }
}

/// Makes the calling process a session leader with its standard input as controlling terminal.
fn lead_session() -> io::Result<()> {
    nix::unistd::setsid()?;
    // SAFETY: TIOCSCTTY takes a number and touches no memory.
    nix::errno::Errno::result(unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(args: &[&str], cwd: &str) -> Result<u32, Cause> {
        let request = External {
            args: args.iter().map(|word| (*word).to_owned()).collect(),
            env: vec!["PATH=/bin:/usr/bin".to_owned()],
            cwd: cwd.to_owned(),
            ..External::default()
        };
        spawn(command(&request)?.stdout(Stdio::null()))
    }

    #[test]
    fn a_process_that_cannot_be_started_has_a_cause() {
        assert!(started(&["true"], "/").is_ok());
        assert_eq!(started(&["no-such-program"], "/"), Err(Cause::NotFound));
        assert_eq!(started(&["/etc"], "/"), Err(Cause::NotExecutable));
        assert_eq!(started(&["true"], "/no/such"), Err(Cause::WorkingDirectory));
        assert_eq!(started(&["true"], "/etc/passwd"), Err(Cause::WorkingDirectory));
        assert_eq!(started(&[], "/"), Err(Cause::NotFound));
    }
}
