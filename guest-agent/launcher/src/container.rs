//! A container's init, through libcontainer.

use std::{
    fs, io,
    os::fd::OwnedFd,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
};

use libcontainer::{
    container::builder::ContainerBuilder,
    error::LibcontainerError,
    syscall::syscall::SyscallType,
    workload::{self, Executor, ExecutorError, ExecutorValidationError},
};
use oci_spec::runtime::Spec;

use crate::{
    cgroup::{self, CgroupError},
    descriptors, device_filter,
    terminal::{self, TerminalError},
    worker::{self, WorkerError},
};

/// Where libcontainer keeps the state of containers, in memory of the guest.
const STATE_ROOT: &str = "/run/casemate/runtime";

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// libcontainer refused or failed.
    #[error("{}", flat(.0))]
    Libcontainer(#[from] LibcontainerError),
    /// The spec names no cgroup.
    #[error("{0}")]
    Cgroup(#[from] CgroupError),
    /// The terminal did not come.
    #[error("{0}")]
    Terminal(#[from] TerminalError),
    /// The worker, in which libcontainer runs.
    #[error("{0}")]
    Worker(#[from] WorkerError),
    /// Files and sockets of the launcher itself.
    #[error("{what}: {error}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        error: io::Error,
    },
    /// libcontainer made no process.
    #[error("there is no process")]
    NoProcess,
}

/// The message with all its causes, on one line.
fn flat(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> ContainerError {
    move |error| ContainerError::Io { what, error }
}

/// Makes the container: its init waits for the start notice in `notify.sock` of its state directory.
///
/// # Errors
/// The spec cannot be carried out; what was made of the container by then is the agent's to clear away.
pub fn create(id: &str, bundle: &Path, spec: &Spec) -> Result<(u32, Option<OwnedFd>), ContainerError> {
    // libcontainer reads the spec from here itself; the directory belongs to the agent.
    fs::create_dir_all(bundle).map_err(io_error("making the bundle"))?;
    let json = serde_json::to_vec(spec)
        .map_err(io::Error::from)
        .map_err(io_error("writing the spec"))?;
    fs::write(bundle.join("config.json"), json).map_err(io_error("writing the spec"))?;
    let cgroup = cgroup::of(spec)?;
    fs::create_dir_all(&cgroup).map_err(io_error("making the cgroup"))?;
    device_filter::attach(&cgroup).map_err(io_error("attaching the device filter"))?;

    let console = terminal::is_wanted(spec).then(|| Console::listen(bundle)).transpose()?;
    let socket = console.as_ref().map(|console| console.path.clone());
    let pid = worker::run(&[], || build(id, bundle, socket))?;
    Ok((pid.as_raw() as u32, console.map(Console::terminal).transpose()?))
}

/// Runs in the worker: the init becomes its sibling, so that it is the launcher's child.
fn build(id: &str, bundle: &Path, console: Option<PathBuf>) -> Result<u32, ContainerError> {
    let container = ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_root_path(STATE_ROOT)?
        .with_console_socket(console)
        .with_executor(Program(workload::default::get_executor()))
        .validate_id()?
        .as_init(bundle)
        .with_systemd(false)
        .with_detach(true)
        .as_sibling(true)
        .build()?;
    Ok(container.pid().ok_or(ContainerError::NoProcess)?.as_raw() as u32)
}

/// The program of an init, which libcontainer validates as its last act before it waits for the start, and executes then.
#[derive(Clone)]
struct Program(Box<dyn Executor>);

impl Executor for Program {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        self.0.exec(spec)
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        self.0.validate(spec)?;
        let closed = descriptors::close_files();
        closed.map_err(|error| ExecutorValidationError::ArgValidationError(format!("closing descriptors: {error}")))
    }
}

/// The socket on which libcontainer hands over the terminal's master.
struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Console {
    fn listen(bundle: &Path) -> Result<Self, ContainerError> {
        let path = bundle.join("console.sock");
        let listener = UnixListener::bind(&path).map_err(io_error("making the console socket"))?;
        Ok(Self { listener, path })
    }

    /// The master, which already waits in the socket when libcontainer has returned.
    fn terminal(self) -> Result<OwnedFd, ContainerError> {
        let (stream, _) = self.listener.accept().map_err(io_error("taking the terminal"))?;
        Ok(terminal::receive(&stream)?)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_each_cause_once() {
        let error = ContainerError::from(LibcontainerError::OtherIO(io::Error::from_raw_os_error(libc::EACCES)));
        let text = error.to_string();
        assert_eq!(text.matches("Permission denied").count(), 1, "{text}");
    }
}
