//! The life of PID 1: prepares the guest, forks, reaps, powers off.
//!
//! PID 1 forks before any thread exists. The parent stays PID 1: it reaps, and powers off when its child has exited. The
//! child serves; as a subreaper it becomes the parent of every orphaned container process, so no other process competes for its waitpid.

mod modules;

use std::{fs, io, path::Path, process::ExitCode};

use launcher_protocol::{BUNDLES, STATE_ROOT};
use nix::{
    mount::{MsFlags, mount},
    sys::{
        prctl,
        reboot::{RebootMode, reboot},
        resource::{Resource, setrlimit},
        signal::{SigSet, SigmaskHow, sigprocmask},
        stat::{Mode, umask},
        wait::{WaitStatus, waitpid},
    },
    unistd::{Pid, chdir, chroot, sethostname},
};

use crate::{cgroup, launcher::Program, paths, sys};

/// Host name of the guest until its pod sets one.
const HOSTNAME: &str = "casemate";

/// Limit on the agent's descriptors: every stream takes two.
const OPEN_FILES: u64 = 4 * agent_protocol::limits::OPEN_STREAMS as u64;

/// sysctls of a packaged kernel that can only become stricter (Documentation/admin-guide/sysctl/kernel.rst): programs that the
/// kernel starts by itself (a core_pattern or modprobe path that a privileged container wrote) have no capability, and no
/// further module or kernel can be loaded. Our own kernel has none of the three features.
const ONE_WAY_SYSCTLS: [(&str, &str); 4] = [
    ("/proc/sys/kernel/usermodehelper/bset", "0 0"),
    ("/proc/sys/kernel/usermodehelper/inheritable", "0 0"),
    ("/proc/sys/kernel/modules_disabled", "1"),
    ("/proc/sys/kernel/kexec_load_disabled", "1"),
];

/// A step of the preparation failed; the guest cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("{step}")]
pub struct InitError {
    step: String,
    #[source]
    cause: io::Error,
}

/// The role of this process after [`split`].
pub enum Role {
    /// PID 1, with the pid of the serving process.
    Init {
        /// The process that serves.
        server: Pid,
    },
    /// The process that serves.
    Server,
}

/// A file system of every guest.
struct FileSystem {
    kind: &'static str,
    target: &'static str,
    flags: MsFlags,
    data: &'static str,
}

const fn file_system(kind: &'static str, target: &'static str, flags: MsFlags, data: &'static str) -> FileSystem {
    FileSystem { kind, target, flags, data }
}

const RESTRICTED: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

const FILE_SYSTEMS: [FileSystem; 8] = [
    file_system("proc", "/proc", RESTRICTED, ""),
    file_system("sysfs", "/sys", RESTRICTED, ""),
    file_system("devtmpfs", "/dev", MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC), "mode=0755"),
    file_system(
        "devpts",
        "/dev/pts",
        MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC),
        "ptmxmode=0666,mode=0620,gid=5",
    ),
    file_system("tmpfs", "/dev/shm", RESTRICTED, "mode=1777"),
    file_system("tmpfs", "/run", RESTRICTED, "mode=0755"),
    file_system("tmpfs", "/tmp", RESTRICTED, "mode=1777"),
    file_system("cgroup2", "/sys/fs/cgroup", RESTRICTED, ""),
];

/// Directories that the agent works in.
const DIRECTORIES: [&str; 4] = ["/run/gcs/c", "/run/mounts/scsi", BUNDLES, STATE_ROOT];

/// Mounts file systems, brings loopback up, sets up cgroups, and makes the guest's own programs immutable; returns the
/// launcher's program.
///
/// # Errors
/// Names the failed step. Without any of them containers would not run as their spec says, or could harm the guest.
pub fn prepare_guest() -> Result<Program, InitError> {
    umask(Mode::from_bits_truncate(0o022));
    leave_initramfs_root()?;
    for FileSystem { kind, target, flags, data } in FILE_SYSTEMS {
        step(format!("making {target}"), fs::create_dir_all(target))?;
        step(
            format!("mounting {target}"),
            mount(Some(kind), target, Some(kind), flags, Some(data)),
        )?;
    }
    for directory in DIRECTORIES {
        step(format!("making {directory}"), fs::create_dir_all(directory))?;
    }
    step("loading modules", modules::load_all(Path::new("/modules")))?;
    for (setting, value) in ONE_WAY_SYSCTLS {
        step(format!("writing {setting}"), write_where_there(setting, value))?;
    }
    step("naming the host", sethostname(HOSTNAME))?;
    step("bringing the loopback interface up", sys::loopback_up())?;
    step("readying cgroups", cgroup::prepare())?;
    // The OOM killer chooses every container before the agent.
    step(
        "protecting the agent from the OOM killer",
        fs::write("/proc/self/oom_score_adj", "-1000"),
    )?;
    step(
        "raising the limit of open files",
        setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES),
    )?;
    seal_programs()
}

/// Moves the launcher into a sealed memory file and makes the root file system read-only.
///
/// Writable data is on file systems of its own ([`FILE_SYSTEMS`]), all of them noexec. Not only this mount
/// of the root becomes read-only but the file system itself, because the kernel keeps another mount of it below.
fn seal_programs() -> Result<Program, InitError> {
    let launcher = Path::new(paths::LAUNCHER);
    let program = step("sealing the launcher", Program::sealed(launcher))?;
    step("removing the launcher's file", fs::remove_file(launcher))?;
    step(
        "making the root read-only",
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY,
            None::<&str>,
        ),
    )?;
    Ok(program)
}

fn write_where_there(file: &str, value: &str) -> io::Result<()> {
    match fs::write(file, value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes the root a mount of its own.
///
/// The initramfs is the root of the mount tree, and pivot_root, with which containers leave the guest's files
/// behind, does not work from there. Moved over itself, the same directory is an ordinary mount.
fn leave_initramfs_root() -> Result<(), InitError> {
    let staging = "/root";
    step("making /root", fs::create_dir_all(staging))?;
    step(
        "binding the root",
        mount(Some("/"), staging, None::<&str>, MsFlags::MS_BIND, None::<&str>),
    )?;
    step("entering the new root", chdir(staging))?;
    step(
        "moving the new root",
        mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>),
    )?;
    step("taking the new root", chroot("."))?;
    step("entering the new root", chdir("/"))
}

fn step<T, E: Into<io::Error>>(step: impl Into<String>, result: Result<T, E>) -> Result<T, InitError> {
    result.map_err(|error| InitError {
        step: step.into(),
        cause: error.into(),
    })
}

/// Forks this process; see the module's description.
///
/// # Errors
/// fork or prctl failed.
pub fn split() -> Result<Role, InitError> {
    let child = sys::fork_single_threaded().map_err(|cause| InitError {
        step: "forking".to_owned(),
        cause,
    })?;
    match child {
        Some(server) => Ok(Role::Init { server }),
        None => {
            step("becoming a subreaper", prctl::set_child_subreaper(true))?;
            Ok(Role::Server)
        }
    }
}

/// The loop of PID 1: reaps orphans, and powers off when `server` has exited.
pub fn reap_until_exit(server: Pid) -> ExitCode {
    // PID 1 needs no signals.
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None);
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, 0)) if pid == server => break,
            Ok(WaitStatus::Exited(pid, code)) if pid == server => {
                eprintln!("init: the agent exited with code {code}, powering off");
                break;
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == server => {
                eprintln!("init: the agent was killed by {signal}, powering off");
                break;
            }
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => {
                eprintln!("init: no child left ({error}), powering off");
                break;
            }
        }
    }
    power_off()
}

/// Powers the machine off; returns only if that is not permitted.
///
/// Nothing is flushed: the scratch disk's key is lost with the guest, and no other disk was written to.
pub fn power_off() -> ExitCode {
    match reboot(RebootMode::RB_POWER_OFF) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("init: cannot power off: {error}");
            ExitCode::FAILURE
        }
    }
}
