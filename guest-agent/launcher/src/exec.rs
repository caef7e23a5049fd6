//! A process in a container that runs.
//!
//! Not through libcontainer, whose process appears among the container's before it has left the guest's files and root's
//! privileges behind: whoever may trace processes in the container could follow its `/proc/<pid>/root` out (CVE-2016-9962 and
//! its kind). Here everything is done by a worker that the container's pid namespace does not show. Its last act is to clone
//! the process, which is born with the container's root, working directory, user and capabilities, and with no descriptor
//! but the standard ones and two pipes that end at its execve.

use std::{
    convert::Infallible,
    fs::{self, File},
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use libcontainer::{
    capabilities, seccomp,
    syscall::{Syscall, syscall::create_syscall},
    tty, utils,
    workload::{self, Executor},
};
use nix::{
    errno::Errno,
    sched::{CloneFlags, clone, setns},
    sys::{
        prctl,
        stat::{Mode, umask},
    },
    unistd::{Gid, Uid, chdir, getcwd, setgroups, setresgid, setresuid, setsid},
};
use oci_spec::runtime::{LinuxNamespaceType, LinuxSeccomp, Process, Spec};

use crate::{
    cgroup::{self, CgroupError},
    descriptors,
    terminal::{self, TerminalError},
    worker::{self, WORDS_MAX_BYTES, WorkerError},
};

/// Stack of the new process until its execve, in bytes.
const STACK_BYTES: usize = 256 << 10;

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The agent sent a spec that lacks a part this program needs.
    #[error("the spec has no {0}")]
    Missing(&'static str),
    /// The container's cgroup.
    #[error("{0}")]
    Cgroup(#[from] CgroupError),
    /// The worker.
    #[error("{0}")]
    Worker(#[from] WorkerError),
    /// The terminal.
    #[error("{0}")]
    Terminal(#[from] TerminalError),
    /// The working directory, in words by which the agent tells it from other causes.
    #[error("cannot enter the working directory: {0}")]
    WorkingDirectory(Errno),
    /// The profile cannot be loaded, or forbids what an exec needs.
    #[error("the seccomp profile: {0}")]
    Seccomp(String),
    /// The program could not be executed in the container, in libcontainer's words.
    #[error("{0}")]
    Program(String),
    /// Another step failed.
    #[error("{what}: {words}")]
    Step {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        words: String,
    },
}

fn step<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> ExecError {
    move |error| ExecError::Step {
        what,
        words: error.to_string(),
    }
}

/// Starts the process of `spec`, which names the namespaces to enter and the cgroup. Returns after its execve.
///
/// # Errors
/// Nothing of it runs, unless the worker was ended from outside ([`WorkerError::Silent`]).
pub fn exec(spec: &Spec) -> Result<(u32, Option<OwnedFd>), ExecError> {
    let process = spec.process().as_ref().ok_or(ExecError::Missing("process"))?;
    // The agent's own score would shield the new process from the OOM killer, which would end the container's init in its place.
    let score = process.oom_score_adj().ok_or(ExecError::Missing("OOM score"))?;
    fs::write("/proc/self/oom_score_adj", score.to_string()).map_err(step("setting the OOM score"))?;
    let namespaces = Namespaces::open(spec)?;
    let (failure, failed) = io::pipe().map_err(step("making a pipe"))?;
    let console = terminal::is_wanted(spec).then(UnixStream::pair).transpose();
    let (master, console) = console.map_err(step("making the console socket"))?.unzip();
    let console = console.map(OwnedFd::from);

    let kept = namespaces.0.iter().map(|(_, namespace)| namespace.as_fd());
    let kept = kept
        .chain([failed.as_fd()])
        .chain(console.as_ref().map(AsFd::as_fd))
        .collect::<Vec<_>>();
    let pid = worker::run(&kept, || enter(spec, process, &namespaces, &failed, console.as_ref()))?;
    drop((failed, console));
    let words = words_of(failure);
    if !words.is_empty() {
        return Err(ExecError::Program(words));
    }
    let terminal = master.as_ref().map(terminal::receive).transpose()?;
    Ok((pid.as_raw() as u32, terminal))
}

/// What the new process said of its execve: nothing if that succeeded and so closed the pipe.
fn words_of(failure: PipeReader) -> String {
    let mut words = Vec::new();
    let _ = failure.take(WORDS_MAX_BYTES).read_to_end(&mut words);
    String::from_utf8_lossy(&words).into_owned()
}

/// The container's namespaces, in the order in which they are entered.
struct Namespaces(Vec<(CloneFlags, File)>);

impl Namespaces {
    fn open(spec: &Spec) -> Result<Self, ExecError> {
        let listed = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
        let mut opened = Vec::new();
        for namespace in listed.ok_or(ExecError::Missing("namespaces"))? {
            let path = namespace.path().as_ref().ok_or(ExecError::Missing("path of a namespace"))?;
            let file = File::open(path).map_err(step("opening a namespace of the container"))?;
            opened.push((flag(namespace.typ()), file));
        }
        // The mount namespace last: with it the process leaves the guest's root.
        opened.sort_by_key(|(flag, _)| *flag == CloneFlags::CLONE_NEWNS);
        Ok(Self(opened))
    }

    fn enter(&self) -> Result<(), ExecError> {
        for (flag, namespace) in &self.0 {
            setns(namespace, *flag).map_err(step("entering a namespace of the container"))?;
        }
        Ok(())
    }
}

fn flag(kind: LinuxNamespaceType) -> CloneFlags {
    match kind {
        LinuxNamespaceType::Mount => CloneFlags::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => CloneFlags::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => CloneFlags::CLONE_NEWIPC,
        LinuxNamespaceType::User => CloneFlags::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => CloneFlags::CLONE_NEWPID,
        LinuxNamespaceType::Network => CloneFlags::CLONE_NEWNET,
        LinuxNamespaceType::Time => CloneFlags::from_bits_retain(libc::CLONE_NEWTIME),
    }
}

/// Runs in the worker: becomes what the process is to be in everything but its pid, then clones it.
///
/// The order is that of runc and libcontainer: limits and namespaces, then the working directory with root's rights, then the
/// user, the profile while privileges remain, and capabilities last.
fn enter(
    spec: &Spec,
    process: &Process,
    namespaces: &Namespaces,
    failed: &PipeWriter,
    console: Option<&OwnedFd>,
) -> Result<u32, ExecError> {
    let syscall = create_syscall();
    cgroup::join(spec)?;
    for limit in process.rlimits().iter().flatten() {
        syscall.set_rlimit(limit).map_err(step("setting a limit"))?;
    }
    namespaces.enter()?;
    let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let restricted = process.no_new_privileges() == Some(true);
    if restricted {
        prctl::set_no_new_privs().map_err(step("giving up new privileges"))?;
    }
    if let Some(mode) = process.user().umask() {
        umask(Mode::from_bits_truncate(mode));
    }
    let entered = change_directory(process)?;
    become_user(syscall.as_ref(), process)?;
    // Without no_new_privs the kernel takes a profile from the privileged only.
    if let (Some(profile), false) = (profile, restricted) {
        load(profile)?;
    }
    if let Some(sets) = process.capabilities() {
        capabilities::drop_privileges(sets, syscall.as_ref()).map_err(step("setting capabilities"))?;
    }
    if !entered {
        chdir(process.cwd()).map_err(ExecError::WorkingDirectory)?;
    }
    // A directory that lies outside the container's root has no path here.
    getcwd().map_err(ExecError::WorkingDirectory)?;

    let program = workload::default::get_executor();
    let mut environment = utils::parse_env(process.env().as_deref().unwrap_or_default());
    if environment.get("HOME").is_none_or(String::is_empty) {
        let home = utils::get_user_home(process.user().uid());
        environment.extend(home.and_then(|home| Some(("HOME".to_owned(), home.to_str()?.to_owned()))));
    }
    program.validate(spec).map_err(|error| ExecError::Program(error.to_string()))?;
    program.setup_envs(environment).map_err(step("setting the environment"))?;

    let late = profile.filter(|_| restricted);
    let kept = [Some(failed.as_fd()), console.map(AsFd::as_fd)]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>();
    born(&kept, || match run(spec, program.as_ref(), late, console) {
        Ok(never) => match never {},
        Err(error) => {
            let _ = (&*failed).write_all(error.to_string().as_bytes());
        }
    })
}

/// The working directory, entered with root's rights; false if even these do not reach it and the user's may.
fn change_directory(process: &Process) -> Result<bool, ExecError> {
    match chdir(process.cwd()) {
        Ok(()) => Ok(true),
        Err(Errno::EPERM | Errno::EACCES) => Ok(false),
        Err(error) => Err(ExecError::WorkingDirectory(error)),
    }
}

/// Takes user and groups, keeping every capability for what is still to be done.
fn become_user(syscall: &dyn Syscall, process: &Process) -> Result<(), ExecError> {
    let user = process.user();
    let (uid, gid) = (Uid::from_raw(user.uid()), Gid::from_raw(user.gid()));
    let groups = user.additional_gids().iter().flatten().map(|gid| Gid::from_raw(*gid));
    setgroups(&groups.collect::<Vec<_>>()).map_err(step("setting supplementary groups"))?;
    prctl::set_keepcaps(true).map_err(step("keeping capabilities"))?;
    setresgid(gid, gid, gid).map_err(step("setting the group"))?;
    setresuid(uid, uid, uid).map_err(step("setting the user"))?;
    prctl::set_keepcaps(false).map_err(step("keeping capabilities"))?;
    // Another user than root has lost the effective ones, which loading a profile needs.
    capabilities::reset_effective(syscall).map_err(step("setting capabilities"))
}

fn load(profile: &LinuxSeccomp) -> Result<(), ExecError> {
    match seccomp::initialize_seccomp(profile) {
        Ok(None) => Ok(()),
        // Nobody in the guest serves such a listener.
        Ok(Some(_)) => Err(ExecError::Seccomp("it asks for a listener".to_owned())),
        Err(error) => Err(ExecError::Seccomp(error.to_string())),
    }
}

/// Clones the calling process into the pid namespace that it has entered for its children, as a child of its own parent, with
/// no descriptors but the standard ones and `kept`; the clone does `first`. Returns its pid in the guest.
fn born(kept: &[BorrowedFd<'_>], mut first: impl FnMut()) -> Result<u32, ExecError> {
    let mut stack = vec![0; STACK_BYTES];
    // A report is still to be written, so the clone closes that pipe; it says nothing that only the worker may say.
    let act = Box::new(|| {
        if descriptors::close_all_but(kept).is_ok() {
            first();
        }
        1
    });
    // SAFETY: without CLONE_VM the clone has memory of its own, the stack included, and this program has one thread, so no
    // lock is held in it by a thread that the clone lacks. It ends in execve or in the exit of glibc's clone.
    let pid = unsafe { clone(act, &mut stack, CloneFlags::CLONE_PARENT, Some(libc::SIGCHLD)) };
    match pid {
        Ok(pid) => Ok(pid.as_raw() as u32),
        Err(error @ (Errno::EPERM | Errno::ENOSYS)) => Err(ExecError::Seccomp(format!("it forbids the clone of an exec ({error})"))),
        Err(error) => Err(step("making the process")(error)),
    }
}

/// Runs in the new process, up to its program.
fn run(spec: &Spec, program: &dyn Executor, profile: Option<&LinuxSeccomp>, console: Option<&OwnedFd>) -> Result<Infallible, ExecError> {
    setsid().map_err(step("starting a session"))?;
    if let Some(console) = console {
        let syscall = create_syscall();
        tty::setup_console(syscall.as_ref(), console.as_raw_fd(), false).map_err(step("making a terminal"))?;
    }
    if let Some(profile) = profile {
        load(profile)?;
    }
    match program.exec(spec) {
        Ok(()) => Err(ExecError::Program("the program did not take over".to_owned())),
        Err(error) => Err(ExecError::Program(error.to_string())),
    }
}
