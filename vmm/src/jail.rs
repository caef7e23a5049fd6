//! The jail: what the process gives up once it has its descriptors and /dev/kvm, before it builds the VM.
//!
//! ```text
//!  limits ─► standard streams ─► namespaces, empty root ─► bounding set ─► user and group ─► all capabilities ─► no_new_privs
//! ```
//! What it was never allowed to do it need not give up: started without privileges it has no namespaces of its own,
//! and keeps its ids. What it could still do and cannot give up is an error. It must run before any thread is started:
//! most of this belongs to a thread, and is inherited by those it starts. The system call filters ([`crate::seccomp`])
//! follow when the guest is about to be entered.

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

/// Most open descriptors: 4096 extents of layers, 1024 streams, and queues, vCPUs and clients.
const DESCRIPTORS_MAX: u64 = 8192;
/// Room in written files for what is added to the console: its own limit, a line that says so, and last words.
const CONSOLE_ROOM_BYTES: u64 = CONSOLE_MAX_BYTES + 64 * 1024;
/// Threads beside those of vCPUs: the main one, workers that KVM starts in this process's name (Linux 6.14), and to
/// spare, should two VMMs have one user by chance.
const SPARE_THREADS: u64 = 16;
/// A directory that exists in every root: /dev/kvm was opened in it. The empty root is mounted over it for a moment.
const MOUNT_POINT: &str = "/dev";

/// What could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// A system call.
    #[error("cannot {0}")]
    Call(&'static str, #[source] Errno),
    /// Capability sets.
    #[error("cannot drop capabilities")]
    Capabilities(#[from] CapsError),
    /// Still there after they were dropped.
    #[error("capabilities are left after all were dropped: {0:?}")]
    Left(CapsHashSet),
    /// Standard streams.
    #[error("cannot open /dev/null")]
    Null(#[source] io::Error),
    /// The spec names ids that this process may not take.
    #[error("cannot become user {0} and group {1} without the capabilities to; leave `identity` out of the spec")]
    Identity(u32, u32),
}

fn failed(what: &'static str) -> impl FnOnce(Errno) -> JailError {
    move |errno| JailError::Call(what, errno)
}

/// Who lives in the jail.
#[derive(Clone, Copy, Debug)]
pub struct JailConfig<'a> {
    /// Whom to become.
    pub identity: Option<Identity>,
    /// Threads to come.
    pub vcpus: Vcpus,
    /// The files that are written.
    pub written: &'a [BorrowedFd<'a>],
}

/// Enters the jail; see the module's head.
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
    prctl::set_no_new_privs().map_err(failed("give up gaining privileges"))?;
    // No other process of this user may trace it or read its memory.
    prctl::set_dumpable(false).map_err(failed("forbid being traced"))
}

fn limit_resources(config: &JailConfig<'_>) -> Result<(), JailError> {
    limit("limit core dumps", Resource::RLIMIT_CORE, 0)?;
    limit("limit open descriptors", Resource::RLIMIT_NOFILE, DESCRIPTORS_MAX)?;
    let stderr = io::stderr();
    let mut longest = 0;
    for file in config.written.iter().copied().chain([std::os::fd::AsFd::as_fd(&stderr)]) {
        let size = fstat(file).map_err(failed("examine a file of the spec"))?.st_size;
        longest = longest.max(u64::try_from(size).unwrap_or_default());
    }
    limit(
        "limit the size of files",
        Resource::RLIMIT_FSIZE,
        longest.saturating_add(CONSOLE_ROOM_BYTES),
    )?;
    if config.identity.is_some() {
        // Counted per user, so only for a user of one's own.
        let threads = 2 * u64::from(config.vcpus.get()) + SPARE_THREADS;
        limit("limit threads", Resource::RLIMIT_NPROC, threads)?;
    }
    Ok(())
}

/// Never raises a limit.
fn limit(what: &'static str, resource: Resource, most: u64) -> Result<(), JailError> {
    let (_, hard) = getrlimit(resource).map_err(failed(what))?;
    let most = most.min(hard);
    setrlimit(resource, most, most).map_err(failed(what))
}

/// Nothing is read from standard input or written to standard output; standard error stays for last words.
fn redirect_standard_streams() -> Result<(), JailError> {
    let null = File::options().read(true).write(true).open("/dev/null").map_err(JailError::Null)?;
    dup2_stdin(&null).map_err(failed("close standard input"))?;
    dup2_stdout(&null).map_err(failed("close standard output"))
}

/// Namespaces of its own, without a network, and a root directory without a file.
fn enter_namespaces() -> Result<(), JailError> {
    let own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    unshare(own).map_err(failed("leave the host's namespaces"))?;
    let nothing = None::<&str>;
    // What is mounted or unmounted here must not show on the host, nor the other way round.
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
    // Stacked on one place: the old root lies over the new one and is taken away (pivot_root(2), "pivot_root(".", ".")").
    pivot_root(".", ".").map_err(failed("change the root (not possible where the host's root is an initramfs)"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(failed("take the old root away"))?;
    chdir("/").map_err(failed("enter the empty root"))
}

fn change_identity(identity: Identity, held: &CapsHashSet) -> Result<(), JailError> {
    let (uid, gid) = (u32::from(identity.uid), u32::from(identity.gid));
    let is_already = Uid::current().as_raw() == uid && Uid::effective().as_raw() == uid && Gid::current().as_raw() == gid;
    if !held.contains(&Capability::CAP_SETUID) || !held.contains(&Capability::CAP_SETGID) {
        return if is_already { Ok(()) } else { Err(JailError::Identity(uid, gid)) };
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&[]).map_err(failed("leave supplementary groups"))?;
    setresgid(gid, gid, gid).map_err(failed("become another group"))?;
    setresuid(uid, uid, uid).map_err(failed("become another user"))
}

/// A change of user has done most of this; a process that stays root has not.
fn drop_capabilities() -> Result<(), JailError> {
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set)?;
    }
    let left = caps::read(None, CapSet::Permitted)?;
    if left.is_empty() { Ok(()) } else { Err(JailError::Left(left)) }
}
