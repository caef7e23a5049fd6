//! The jail: drops privileges once the process has its descriptors and /dev/kvm, before it builds the VM.
//!
//! ```text
//!  limits ─► standard streams ─► namespaces, empty root ─► bounding set ─► user and group ─► all capabilities ─► no_new_privs
//! ```
//! A process that was started without privileges keeps its namespaces and ids, because it cannot change them. A privilege
//! that the process has and cannot drop is an error. It must run before any thread is started: most of these attributes are
//! per thread and inherited. The seccomp filters ([`crate::seccomp`]) are installed later, just before the guest runs.

use crate::devices::serial::CONSOLE_MAX_BYTES;
use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        stat::fstat,
    },
    unistd::{Gid, Uid, chdir, dup2_stdin, dup2_stdout, pivot_root, setgroups, setresgid, setresuid},
};
use std::{fs::File, io, os::fd::BorrowedFd};
use vm_spec::{Identity, Vcpus};

/// Most open descriptors: 4096 extents of layers, 1024 streams, and those of queues, vCPUs and clients.
const DESCRIPTORS_MAX: u64 = 8192;
/// How much written files may grow: the console's limit, the line that reports it, and error messages.
const CONSOLE_ROOM_BYTES: u64 = CONSOLE_MAX_BYTES + 64 * 1024;
/// Threads beside those of vCPUs: the main thread, worker threads of KVM (tasks of this process since Linux 6.14), and a
/// margin in case two VMMs share a user.
const SPARE_THREADS: u64 = 16;
/// A directory that every root has, since /dev/kvm was opened in it. The empty root is first mounted here.
const MOUNT_POINT: &str = "/dev";

/// Why the jail could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// A system call failed.
    #[error("cannot {0}")]
    Call(&'static str, #[source] Errno),
    /// Changing a capability set failed.
    #[error("cannot drop capabilities")]
    Capabilities(#[from] CapsError),
    /// Capabilities remain.
    #[error("capabilities remain after all were dropped: {0:?}")]
    Left(CapsHashSet),
    /// For the standard streams.
    #[error("cannot open /dev/null")]
    Null(#[source] io::Error),
    /// The process may not change to the ids of the spec.
    #[error("cannot change to user {0} and group {1} without CAP_SETUID and CAP_SETGID; leave `identity` out of the spec")]
    Identity(u32, u32),
}

fn failed(what: &'static str) -> impl FnOnce(Errno) -> JailError {
    move |errno| JailError::Call(what, errno)
}

/// What the jail depends on.
#[derive(Clone, Copy, Debug)]
pub struct JailConfig<'a> {
    /// User and group to change to.
    pub identity: Option<Identity>,
    /// Number of vCPU threads that will be started.
    pub vcpus: Vcpus,
    /// Files that the VMM writes.
    pub written: &'a [BorrowedFd<'a>],
}

/// Drops all privileges; see the module documentation.
pub fn enter(config: &JailConfig<'_>) -> Result<(), JailError> {
    let held = caps::read(None, CapSet::Effective)?;
    limit_resources(config)?;
    redirect_standard_streams()?;
    if held.contains(&Capability::CAP_SYS_ADMIN) {
        enter_namespaces()?;
    }
    if held.contains(&Capability::CAP_SETPCAP) {
        caps::clear(None, CapSet::Bounding)?;
    }
    if let Some(identity) = config.identity {
        change_identity(identity, &held)?;
    }
    drop_capabilities()?;
    prctl::set_no_new_privs().map_err(failed("set no_new_privs"))?;
    // No other process of this user may trace it or read its memory.
    prctl::set_dumpable(false).map_err(failed("make the process undumpable"))
}

fn limit_resources(config: &JailConfig<'_>) -> Result<(), JailError> {
    limit("limit core dumps", Resource::RLIMIT_CORE, 0)?;
    limit("limit open descriptors", Resource::RLIMIT_NOFILE, DESCRIPTORS_MAX)?;
    let stderr = io::stderr();
    let mut longest = 0;
    for file in config.written.iter().copied().chain([std::os::fd::AsFd::as_fd(&stderr)]) {
        let size = fstat(file).map_err(failed("stat a file of the spec"))?.st_size;
        longest = longest.max(u64::try_from(size).unwrap_or_default());
    }
    limit(
        "limit the size of files",
        Resource::RLIMIT_FSIZE,
        longest.saturating_add(CONSOLE_ROOM_BYTES),
    )?;
    if config.identity.is_some() {
        // The limit counts all processes of a user, so it is set only if the VMM has a user of its own.
        let threads = 2 * u64::from(config.vcpus.get()) + SPARE_THREADS;
        limit("limit threads", Resource::RLIMIT_NPROC, threads)?;
    }
    Ok(())
}

/// Lowers a limit, never raises it.
fn limit(what: &'static str, resource: Resource, most: u64) -> Result<(), JailError> {
    let (_, hard) = getrlimit(resource).map_err(failed(what))?;
    let most = most.min(hard);
    setrlimit(resource, most, most).map_err(failed(what))
}

/// Standard input and output become /dev/null; standard error stays for error messages.
fn redirect_standard_streams() -> Result<(), JailError> {
    let null = File::options().read(true).write(true).open("/dev/null").map_err(JailError::Null)?;
    dup2_stdin(&null).map_err(failed("redirect standard input"))?;
    dup2_stdout(&null).map_err(failed("redirect standard output"))
}

/// Enters new namespaces, without a network, and an empty root directory.
fn enter_namespaces() -> Result<(), JailError> {
    let own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    unshare(own).map_err(failed("unshare namespaces"))?;
    let nothing = None::<&str>;
    // Mounts must not propagate to the host or from it.
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).map_err(failed("make mounts private"))?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(
        Some("none"),
        MOUNT_POINT,
        Some("tmpfs"),
        flags,
        Some("size=4k,nr_inodes=1,mode=0555"),
    )
    .map_err(failed("mount an empty root"))?;
    chdir(MOUNT_POINT).map_err(failed("enter the empty root"))?;
    // Stacks the old root on the new one, to be unmounted next (pivot_root(2), "pivot_root(".", ".")").
    pivot_root(".", ".").map_err(failed("pivot_root (impossible if the host's root is an initramfs)"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(failed("unmount the old root"))?;
    chdir("/").map_err(failed("enter the empty root"))
}

fn change_identity(identity: Identity, held: &CapsHashSet) -> Result<(), JailError> {
    let (uid, gid) = (u32::from(identity.uid), u32::from(identity.gid));
    let is_already = Uid::current().as_raw() == uid && Uid::effective().as_raw() == uid && Gid::current().as_raw() == gid;
    if !held.contains(&Capability::CAP_SETUID) || !held.contains(&Capability::CAP_SETGID) {
        return if is_already { Ok(()) } else { Err(JailError::Identity(uid, gid)) };
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&[]).map_err(failed("drop supplementary groups"))?;
    setresgid(gid, gid, gid).map_err(failed("change the group"))?;
    setresuid(uid, uid, uid).map_err(failed("change the user"))
}

/// A process that changed its user has lost most capabilities already; one that stays root has not.
fn drop_capabilities() -> Result<(), JailError> {
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set)?;
    }
    let left = caps::read(None, CapSet::Permitted)?;
    if left.is_empty() { Ok(()) } else { Err(JailError::Left(left)) }
}
