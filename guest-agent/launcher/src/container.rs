//! A container's init, or a further process in it, through libcontainer.

use std::{
    fs,
    io::{self, IoSliceMut, Read},
    os::fd::{AsRawFd, OwnedFd},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    rc::Rc,
};

use libcontainer::{
    container::builder::ContainerBuilder,
    error::LibcontainerError,
    notify_socket::{NotifyListener, NotifyListenerError, NotifySocket},
    process::{
        args::{ContainerArgs, ContainerType},
        container_main_process::{ProcessError, container_main_process},
    },
    syscall::syscall::SyscallType,
    workload,
};
use nix::sys::{
    prctl,
    socket::{ControlMessageOwned, MsgFlags, recvmsg},
};
use oci_spec::runtime::Spec;

use crate::{descriptors, device_filter};

/// Where libcontainer keeps the state of containers, in memory of the guest.
const STATE_ROOT: &str = "/run/casemate/runtime";
/// The cgroup v2 hierarchy.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";
/// What a failed exec writes at most, in bytes.
const EXEC_ERROR_MAX_BYTES: u64 = 4096;

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// libcontainer refused or failed.
    #[error("{}", flat(.0))]
    Libcontainer(#[from] LibcontainerError),
    /// libcontainer failed on the way to the new process.
    #[error("{}", flat(.0))]
    Process(#[from] ProcessError),
    /// The socket on which a new process waits for its start.
    #[error("{}", flat(.0))]
    Notify(#[from] NotifyListenerError),
    /// Files and sockets of the launcher itself.
    #[error("{what}: {error}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        error: io::Error,
    },
    /// The agent sent a spec that lacks a part this program needs.
    #[error("the spec has no {0}")]
    Missing(&'static str),
    /// The program could not be executed in the container.
    #[error("{0}")]
    Exec(String),
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
pub fn create(id: &str, bundle: &Path, spec: &Spec) -> Result<(u32, Option<OwnedFd>), ContainerError> {
    // libcontainer reads the spec from here itself; the directory belongs to the agent.
    fs::create_dir_all(bundle).map_err(io_error("making the bundle"))?;
    let json = serde_json::to_vec(spec)
        .map_err(io::Error::from)
        .map_err(io_error("writing the spec"))?;
    fs::write(bundle.join("config.json"), json).map_err(io_error("writing the spec"))?;
    let cgroup = cgroup_of(spec)?;
    fs::create_dir_all(&cgroup).map_err(io_error("making the cgroup"))?;
    device_filter::attach(&cgroup).map_err(io_error("attaching the device filter"))?;

    let console = wants_terminal(spec).then(|| Console::listen(bundle)).transpose()?;
    let container = ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_root_path(STATE_ROOT)?
        .with_console_socket(console.as_ref().map(|c| c.path.clone()))
        .validate_id()?
        .as_init(bundle)
        .with_systemd(false)
        .with_detach(true)
        .build()?;
    let pid = container.pid().ok_or(ContainerError::Missing("process"))?.as_raw();
    Ok((pid as u32, console.map(Console::terminal).transpose()?))
}

/// Starts a further process: `spec` names the namespaces to enter and the cgroup, and has the process to run.
///
/// libcontainer's own builder for this drops the seccomp profile of the container, so its arguments are put together here.
pub fn exec(id: &str, bundle: &Path, spec: Spec) -> Result<(u32, Option<OwnedFd>), ContainerError> {
    // Both are inherited, and the builder would do them, in this order. The agent's score would shield the new process from
    // the OOM killer, which would end the container's init in its place; and until its execve it is the launcher, into which
    // the container's processes must not look.
    let score = spec.process().as_ref().and_then(|process| process.oom_score_adj());
    let score = score.ok_or(ContainerError::Missing("OOM score"))?;
    fs::write("/proc/self/oom_score_adj", score.to_string()).map_err(io_error("setting the OOM score"))?;
    prctl::set_dumpable(false)
        .map_err(io::Error::from)
        .map_err(io_error("hiding the launcher"))?;
    let (ours, theirs) = UnixStream::pair().map_err(io_error("making the console socket"))?;
    let terminal = wants_terminal(&spec);
    let notify_path = bundle.join(format!("exec-{}.sock", std::process::id()));
    let _removed_at_the_end = Unlink(&notify_path);
    let notify_listener = NotifyListener::new(&notify_path)?;
    let (failure, failure_writer) = io::pipe().map_err(io_error("making a pipe"))?;
    let cgroups_path = cgroups_path(&spec)?.to_owned();
    let rootfs = spec.root().as_ref().ok_or(ContainerError::Missing("root"))?.path().clone();
    let container = libcontainer::container::Container::load(Path::new(STATE_ROOT).join(id))?;
    let arguments = ContainerArgs {
        container_type: ContainerType::TenantContainer {
            exec_notify_fd: failure_writer.as_raw_fd(),
        },
        syscall: SyscallType::default(),
        spec: Rc::new(spec),
        rootfs,
        console_socket: terminal.then(|| theirs.as_raw_fd()),
        notify_listener,
        preserve_fds: 0,
        container: Some(container),
        user_ns_config: None,
        cgroup_config: libcgroups::common::CgroupConfig {
            cgroup_path: cgroups_path,
            systemd_cgroup: false,
            container_name: id.to_owned(),
        },
        detached: true,
        executor: workload::default::get_executor(),
        no_pivot: false,
        stdin: None,
        stdout: None,
        stderr: None,
        as_sibling: false,
        pid_file: None,
    };
    let pid = container_main_process(&arguments)?.as_raw() as u32;
    let terminal = terminal.then(|| receive_terminal(&ours)).transpose()?;
    NotifySocket::new(&notify_path).notify_container_start()?;
    drop(failure_writer);
    // Closed unwritten by a successful execve.
    let mut why = String::new();
    let _ = failure.take(EXEC_ERROR_MAX_BYTES).read_to_string(&mut why);
    if why.is_empty() {
        Ok((pid, terminal))
    } else {
        Err(ContainerError::Exec(why))
    }
}

fn wants_terminal(spec: &Spec) -> bool {
    spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false)
}

fn cgroups_path(spec: &Spec) -> Result<&PathBuf, ContainerError> {
    spec.linux()
        .as_ref()
        .and_then(|linux| linux.cgroups_path().as_ref())
        .ok_or(ContainerError::Missing("cgroup"))
}

fn cgroup_of(spec: &Spec) -> Result<PathBuf, ContainerError> {
    let path = cgroups_path(spec)?;
    Ok(Path::new(CGROUP_ROOT).join(path.strip_prefix("/").unwrap_or(path)))
}

struct Unlink<'a>(&'a Path);

impl Drop for Unlink<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0);
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
        receive_terminal(&stream)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn receive_terminal(socket: &UnixStream) -> Result<OwnedFd, ContainerError> {
    let mut name = [0; 64];
    let mut iov = [IoSliceMut::new(&mut name)];
    let mut space = nix::cmsg_space!([libc::c_int; 1]);
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
        .map_err(io::Error::from)
        .map_err(io_error("taking the terminal"))?;
    let mut rights = message.cmsgs().map_err(io::Error::from).map_err(io_error("taking the terminal"))?;
    rights
        .find_map(|one| match one {
            ControlMessageOwned::ScmRights(numbers) => descriptors::received(&numbers),
            _ => None,
        })
        .ok_or(ContainerError::Missing("terminal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_each_cause_once() {
        let error = ContainerError::from(NotifyListenerError::Bind {
            source: io::Error::from_raw_os_error(libc::EACCES),
            name: "notify.sock".to_owned(),
        });
        assert_eq!(
            error.to_string(),
            "failed to bind notify socket: notify.sock: Permission denied (os error 13)"
        );
    }

    #[test]
    fn cgroups_lie_below_the_hierarchy() {
        let spec: Spec = serde_json::from_str(r#"{"ociVersion":"1.0.2","linux":{"cgroupsPath":"/casemate/abc"}}"#).unwrap();
        assert_eq!(cgroup_of(&spec).unwrap(), Path::new("/sys/fs/cgroup/casemate/abc"));
        let spec: Spec = serde_json::from_str(r#"{"ociVersion":"1.0.2","linux":{}}"#).unwrap();
        assert!(matches!(cgroup_of(&spec), Err(ContainerError::Missing("cgroup"))));
    }
}
