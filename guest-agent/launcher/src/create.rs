//! Creates a container's init with libcontainer.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs, io,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    rc::Rc,
};

use launcher_protocol::{Answer, BUNDLES, Cause, Container, Process, Profile, STATE_ROOT};
use libcontainer::{
    container::builder::ContainerBuilder,
    error::LibcontainerError,
    syscall::syscall::SyscallType,
    workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError},
};
use oci_spec::runtime::Spec;

use crate::{
    Outcome, cgroup, descriptors, device_filter, exec, oci,
    program::Program,
    sysctl, terminal,
    worker::{self, Report, Reporter},
};

/// Creates the container; its init waits for the start notice.
///
/// # Errors
/// The request cannot be carried out; the agent removes what exists of the container by then.
pub fn create(container: &Container) -> Result<Outcome, Cause> {
    let bundle = Path::new(BUNDLES).join(&container.id);
    write_bundle(container, &bundle).map_err(|_| Cause::Other)?;
    make_cgroup(container).map_err(|_| Cause::Resources)?;
    let console = container.process.terminal.then(|| Console::listen(&bundle)).transpose();
    let console = console.map_err(|_| Cause::Other)?;
    let socket = console.as_ref().map(|console| console.path.clone());
    let report = worker::run(&[], |reporter| build(container, &bundle, socket, reporter));
    match report.map_err(|_| Cause::Other)? {
        Report::Started(pid) => {
            // Its program does not run yet, and a creation that fails before has changed nothing of the pod's.
            sysctl::write(Path::new(sysctl::ROOT), &container.sysctls).map_err(|_| Cause::Sysctl)?;
            let terminal = console.map(Console::terminal).transpose().map_err(|_| Cause::Other)?;
            Ok(Outcome::Started(pid.as_raw() as u32, terminal))
        }
        // libcontainer reports most failures of the init without their cause.
        Report::Failed(Cause::Other) if container.seccomp.as_ref().is_some_and(is_refused) => Err(Cause::Seccomp),
        Report::Failed(cause) => Err(cause),
        // The agent removes the whole container, so that nothing unknown is left.
        Report::Unknown => Err(Cause::Other),
    }
}

/// libcontainer reads the document from this directory, which belongs to the agent.
fn write_bundle(container: &Container, bundle: &Path) -> io::Result<()> {
    fs::create_dir_all(bundle)?;
    fs::write(bundle.join("config.json"), oci::config(container)?)
}

fn make_cgroup(container: &Container) -> io::Result<()> {
    let cgroup = cgroup::directory(&container.cgroup);
    fs::create_dir_all(&cgroup)?;
    device_filter::attach(&cgroup)
}

/// Runs in the worker: the init becomes its sibling, and so a child of the launcher.
fn build(container: &Container, bundle: &Path, console: Option<PathBuf>, reporter: &Reporter) -> Result<u32, Cause> {
    let init = Init {
        process: container.process.clone(),
        reporter: Rc::new(reporter.try_clone().map_err(|_| Cause::Other)?),
        program: Rc::default(),
    };
    let built = ContainerBuilder::new(container.id.clone(), SyscallType::default())
        .with_root_path(STATE_ROOT)
        .map(|builder| builder.with_console_socket(console).with_executor(init))
        .and_then(ContainerBuilder::validate_id)
        .and_then(|builder| {
            builder
                .as_init(bundle)
                .with_systemd(false)
                .with_detach(true)
                .as_sibling(true)
                .build()
        });
    let made = built.map_err(|error| cause_of(&error))?;
    made.pid().map(|pid| pid.as_raw() as u32).ok_or(Cause::Other)
}

/// The program of the init. libcontainer validates it last before it waits for the start, and executes it then.
#[derive(Clone)]
struct Init {
    process: Process,
    reporter: Rc<Reporter>,
    program: Rc<RefCell<Option<Program>>>,
}

impl Executor for Init {
    /// The init's own report precedes libcontainer's report of the same failure, so it is the one that counts.
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        let found = Program::find(&self.process).and_then(|program| {
            descriptors::close_files().map_err(|_| Cause::Other)?;
            Ok(program)
        });
        match found {
            Ok(program) => {
                self.program.replace(Some(program));
                Ok(())
            }
            Err(cause) => {
                self.reporter.report(Answer::Failed(cause));
                Err(ExecutorValidationError::ArgValidationError(format!("{cause:?}")))
            }
        }
    }

    /// The program has its own environment.
    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }

    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        let program = self.program.borrow_mut().take().ok_or(ExecutorError::InvalidArg)?;
        match program.execute() {
            Ok(never) => match never {},
            Err(cause) => Err(ExecutorError::Other(format!("{cause:?}"))),
        }
    }
}

/// Names of the steps at which an init or the process before it fails, in libcontainer 0.7 (`process/init/error.rs`,
/// `process/container_intermediate_process.rs`). It passes their errors on as text without a cause, so nothing else tells the
/// step. Of an init's plain system calls only those on its working directory can fail.
const STEPS: [(&str, Cause); 6] = [
    ("failed to unix syscall", Cause::WorkingDirectory),
    ("failed to verify if current working directory is safe", Cause::WorkingDirectory),
    ("failed to prepare rootfs", Cause::Mount),
    ("failed to mount path as", Cause::Mount),
    ("cgroup error", Cause::Resources),
    ("failed to set sysctl", Cause::Sysctl),
];

fn cause_of(error: &LibcontainerError) -> Cause {
    let words = error.to_string();
    let step = STEPS.iter().find(|(step, _)| words.contains(step));
    match (error, step) {
        (_, Some((_, cause))) => *cause,
        (LibcontainerError::CgroupManager(_) | LibcontainerError::CgroupCreate(_) | LibcontainerError::CgroupGet(_), None) => {
            Cause::Resources
        }
        _ => Cause::Other,
    }
}

/// Whether the kernel or libseccomp rejects the profile: tried in a process that then exits.
fn is_refused(profile: &Profile) -> bool {
    let report = worker::run(&[], |_| exec::load(profile).and(Err(Cause::Other)));
    matches!(report, Ok(Report::Failed(Cause::Seccomp)))
}

/// The socket on which libcontainer sends the terminal's master.
struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Console {
    fn listen(bundle: &Path) -> io::Result<Self> {
        let path = bundle.join("console.sock");
        Ok(Self {
            listener: UnixListener::bind(&path)?,
            path,
        })
    }

    /// The master, which is in the socket by the time libcontainer returns.
    fn terminal(self) -> io::Result<std::os::fd::OwnedFd> {
        let (stream, _) = self.listener.accept()?;
        terminal::receive(&stream)
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
    use libcontainer::{
        process::{
            channel::ChannelError, container_intermediate_process::IntermediateProcessError, container_main_process::ProcessError,
            init::error::InitProcessError,
        },
        rootfs::RootfsError,
        syscall::SyscallError,
    };

    /// As libcontainer builds it from the text that an init sent.
    fn of_init(error: &InitProcessError) -> Cause {
        let channel = ChannelError::ExecError(error.to_string());
        cause_of(&LibcontainerError::MainProcess(ProcessError::Channel(channel)))
    }

    #[test]
    fn the_steps_are_named_as_this_version_of_libcontainer_names_them() {
        let io = || SyscallError::IO(io::ErrorKind::NotFound.into());
        assert_eq!(of_init(&InitProcessError::RootFS(RootfsError::Syscall(io()))), Cause::Mount);
        assert_eq!(of_init(&InitProcessError::MountPathMasked(io())), Cause::Mount);
        assert_eq!(of_init(&InitProcessError::MountPathReadonly(io())), Cause::Mount);
        assert_eq!(of_init(&InitProcessError::SetHostname(io())), Cause::Other);
        let cgroup = IntermediateProcessError::Cgroup("no such file".to_owned()).to_string();
        let channel = ChannelError::OtherError(cgroup);
        assert_eq!(
            cause_of(&LibcontainerError::MainProcess(ProcessError::Channel(channel))),
            Cause::Resources
        );
        assert_eq!(cause_of(&LibcontainerError::Exist), Cause::Other);
    }
}
