//! Starts a process in a running container.
//!
//! libcontainer is not used here: its process appears among the container's before it has left the guest's files and root's
//! privileges behind, so a container process that may trace others could follow its `/proc/<pid>/root` out (CVE-2016-9962 and
//! similar). Instead, a worker that is invisible in the container's pid namespace does everything. Its last act is to clone the
//! process, which is created with the container's root, working directory, user and capabilities, and with no descriptors except the
//! standard ones, a pipe, and for a terminal a socket; the last two are closed at its execve.

#![expect(unsafe_code, reason = "clone with CLONE_PARENT, so that the new process is the launcher's child")]

use std::{
    convert::Infallible,
    fs::File,
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use launcher_protocol::{Cause, Exec, NamespaceKind, Process, Profile};
use libcontainer::{
    capabilities, seccomp,
    syscall::{Syscall, syscall::create_syscall},
    tty,
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

use crate::{
    Outcome, cgroup, descriptors, oci,
    program::Program,
    terminal,
    worker::{self, Report},
};

/// Stack of the new process until its execve, in bytes.
const STACK_BYTES: usize = 256 << 10;
/// Longest report of a failed execve, in bytes.
const CAUSE_MAX_BYTES: u64 = 64;

fn other<E>(_: E) -> Cause {
    Cause::Other
}

/// Starts the process. Returns after its execve.
///
/// # Errors
/// No process is left running.
pub fn exec(request: &Exec) -> Result<Outcome, Cause> {
    let namespaces = Namespaces::open(request)?;
    let (failure, failed) = io::pipe().map_err(other)?;
    let (master, console) = request.process.terminal.then(UnixStream::pair).transpose().map_err(other)?.unzip();
    let console = console.map(OwnedFd::from);

    let kept = namespaces.0.iter().map(|(_, namespace)| namespace.as_fd());
    let kept = kept
        .chain([failed.as_fd()])
        .chain(console.as_ref().map(AsFd::as_fd))
        .collect::<Vec<_>>();
    let report = worker::run(&kept, |_| enter(request, &namespaces, &failed, console.as_ref())).map_err(other)?;
    drop((failed, console));
    match report {
        Report::Failed(cause) => Err(cause),
        Report::Unknown => Ok(Outcome::Unknown),
        Report::Started(pid) => match cause_in(failure) {
            Some(cause) => Err(cause),
            None => {
                let terminal = master.as_ref().map(terminal::receive).transpose().map_err(other)?;
                Ok(Outcome::Started(pid.as_raw() as u32, terminal))
            }
        },
    }
}

/// Why the new process could not execute its program; `None` if its execve succeeded, which closes the pipe.
fn cause_in(failure: PipeReader) -> Option<Cause> {
    let mut word = Vec::new();
    let _ = failure.take(CAUSE_MAX_BYTES).read_to_end(&mut word);
    (!word.is_empty()).then(|| serde_json::from_slice(&word).unwrap_or(Cause::Other))
}

/// The container's namespaces, in the order in which they are joined.
struct Namespaces(Vec<(CloneFlags, File)>);

impl Namespaces {
    fn open(request: &Exec) -> Result<Self, Cause> {
        let open = |namespace: &launcher_protocol::Namespace| {
            let path = namespace.path.as_ref().ok_or(Cause::Other)?;
            Ok((flag(namespace.kind), File::open(path).map_err(other)?))
        };
        let mut opened = request.namespaces.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        // The mount namespace last: with it the process leaves the guest's root.
        opened.sort_by_key(|(flag, _)| *flag == CloneFlags::CLONE_NEWNS);
        Ok(Self(opened))
    }

    fn enter(&self) -> Result<(), Cause> {
        self.0
            .iter()
            .try_for_each(|(flag, namespace)| setns(namespace, *flag))
            .map_err(other)
    }
}

fn flag(kind: NamespaceKind) -> CloneFlags {
    match kind {
        NamespaceKind::Mount => CloneFlags::CLONE_NEWNS,
        NamespaceKind::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        NamespaceKind::Uts => CloneFlags::CLONE_NEWUTS,
        NamespaceKind::Ipc => CloneFlags::CLONE_NEWIPC,
        NamespaceKind::Pid => CloneFlags::CLONE_NEWPID,
    }
}

/// Runs in the worker: takes on everything of the new process but its pid, then clones it.
///
/// The order is that of runc and libcontainer: limits and namespaces, then the working directory with root's rights, then the
/// user, the profile while privileges remain, and capabilities last.
fn enter(request: &Exec, namespaces: &Namespaces, failed: &PipeWriter, console: Option<&OwnedFd>) -> Result<u32, Cause> {
    let Exec {
        cgroup, process, seccomp, ..
    } = request;
    let syscall = create_syscall();
    cgroup::join(cgroup, process.oom_score_adj)?;
    for limit in &process.rlimits {
        syscall.set_rlimit(&oci::typed(limit).map_err(other)?).map_err(other)?;
    }
    namespaces.enter()?;
    if process.no_new_privileges {
        prctl::set_no_new_privs().map_err(other)?;
    }
    umask(Mode::from_bits_truncate(process.user.umask));
    let entered = change_directory(process)?;
    become_user(syscall.as_ref(), process)?;
    // Without no_new_privs only a privileged process may load a profile.
    let (early, late) = match seccomp.as_ref() {
        profile if process.no_new_privileges => (None, profile),
        profile => (profile, None),
    };
    early.map_or(Ok(()), load)?;
    capabilities::drop_privileges(&oci::typed(&process.capabilities).map_err(other)?, syscall.as_ref()).map_err(other)?;
    if !entered {
        chdir(process.cwd.as_str()).map_err(|_| Cause::WorkingDirectory)?;
    }
    // A directory outside the container's root has no path here.
    getcwd().map_err(|_| Cause::WorkingDirectory)?;
    let program = Program::find(process)?;
    let kept = [Some(failed.as_fd()), console.map(AsFd::as_fd)]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>();
    clone_process(&kept, || {
        let cause = match run(&program, late, console) {
            Ok(never) => match never {},
            Err(cause) => cause,
        };
        let _ = (&*failed).write_all(&serde_json::to_vec(&cause).unwrap_or_default());
    })
}

/// Enters the working directory with root's rights; false if root is denied, since the process's user may still have access.
fn change_directory(process: &Process) -> Result<bool, Cause> {
    match chdir(process.cwd.as_str()) {
        Ok(()) => Ok(true),
        Err(Errno::EPERM | Errno::EACCES) => Ok(false),
        Err(_) => Err(Cause::WorkingDirectory),
    }
}

/// Switches user and groups, keeping every capability for the remaining steps.
fn become_user(syscall: &dyn Syscall, process: &Process) -> Result<(), Cause> {
    let user = &process.user;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let groups = user.additional_gids.iter().map(|gid| Gid::from_raw(*gid)).collect::<Vec<_>>();
    let take = || -> nix::Result<()> {
        setgroups(&groups)?;
        prctl::set_keepcaps(true)?;
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
        prctl::set_keepcaps(false)
    };
    take().map_err(other)?;
    // A user other than root has lost the effective capabilities, which loading a profile needs.
    capabilities::reset_effective(syscall).map_err(other)
}

/// Loads the profile into the calling process.
///
/// # Errors
/// libseccomp or the kernel rejects it.
pub fn load(profile: &Profile) -> Result<(), Cause> {
    let profile = oci::typed(profile).map_err(|_| Cause::Seccomp)?;
    match seccomp::initialize_seccomp(&profile) {
        Ok(None) => Ok(()),
        // The guest has no listener for notifications.
        Ok(Some(_)) | Err(_) => Err(Cause::Seccomp),
    }
}

/// Clones the calling process into the pid namespace that it has joined for its children, as a child of its own parent, with
/// no descriptors but the standard ones and `kept`; the clone runs `first`. Returns its pid in the guest.
fn clone_process(kept: &[BorrowedFd<'_>], mut first: impl FnMut()) -> Result<u32, Cause> {
    let mut stack = vec![0; STACK_BYTES];
    let act = Box::new(|| {
        // The report pipe is closed too: only the worker reports which process it created.
        if descriptors::close_all_but(kept).is_ok() {
            first();
        }
        1
    });
    // SAFETY: without CLONE_VM the clone has its own memory, including the stack, and this program has one thread, so no
    // other thread can hold a lock that the clone would wait for. It ends in execve or in the exit of glibc's clone.
    match unsafe { clone(act, &mut stack, CloneFlags::CLONE_PARENT, Some(libc::SIGCHLD)) } {
        Ok(pid) => Ok(pid.as_raw() as u32),
        // A profile that is already loaded may forbid clone.
        Err(Errno::EPERM | Errno::ENOSYS | Errno::EACCES) => Err(Cause::Seccomp),
        Err(Errno::EAGAIN | Errno::ENOMEM) => Err(Cause::Resources),
        Err(_) => Err(Cause::Other),
    }
}

/// Runs in the new process, up to its program.
fn run(program: &Program, profile: Option<&Profile>, console: Option<&OwnedFd>) -> Result<Infallible, Cause> {
    setsid().map_err(other)?;
    if let Some(console) = console {
        let syscall = create_syscall();
        tty::setup_console(syscall.as_ref(), console.as_raw_fd(), false).map_err(other)?;
    }
    profile.map_or(Ok(()), load)?;
    program.execute()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(bytes: &[u8]) -> Option<Cause> {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(bytes).unwrap();
        drop(writer);
        cause_in(reader)
    }

    #[test]
    fn an_empty_report_is_success() {
        assert_eq!(said(b""), None);
        assert_eq!(said(b"\"NotExecutable\""), Some(Cause::NotExecutable));
        assert_eq!(said(&[b'x'; 4096]), Some(Cause::Other), "whatever a container wrote there");
    }

    #[test]
    fn the_mount_namespace_is_joined_last() {
        let own = |kind: NamespaceKind| launcher_protocol::Namespace {
            kind,
            path: Some(format!("/proc/self/ns/{}", kind.file())),
        };
        let request = Exec {
            namespaces: [NamespaceKind::Mount, NamespaceKind::Ipc, NamespaceKind::Pid].map(own).to_vec(),
            ..Exec::default()
        };
        let flags = Namespaces::open(&request)
            .unwrap()
            .0
            .into_iter()
            .map(|(flag, _)| flag)
            .collect::<Vec<_>>();
        assert_eq!(flags, [CloneFlags::CLONE_NEWIPC, CloneFlags::CLONE_NEWPID, CloneFlags::CLONE_NEWNS]);
        let nowhere = launcher_protocol::Namespace {
            kind: NamespaceKind::Uts,
            path: None,
        };
        assert!(
            Namespaces::open(&Exec {
                namespaces: vec![nowhere],
                ..Exec::default()
            })
            .is_err()
        );
    }
}
