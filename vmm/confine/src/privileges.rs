//! Resource limits, standard streams, and privileges.
//!
//! ```text
//! namespaces, empty root ─► bounding set ─► user and group ─► all capabilities ─► no_new_privs
//! ```
//! A process that was started without privileges keeps its namespaces and ids, because it cannot change them. A privilege
//! that the process has and cannot drop is an error. It must run before any thread is started: most of these attributes are
//! per thread and inherited.

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};
use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        resource::{getrlimit, setrlimit},
    },
    unistd::{Gid, Uid, chdir, dup2_stdin, dup2_stdout, pivot_root, setgroups, setresgid, setresuid},
};
use std::{
    fs::{self, File},
    io,
    path::Path,
};

pub use nix::sys::resource::Resource;

/// A directory that every root has: /dev/null was opened in it. The empty root is first mounted here.
const MOUNT_POINT: &str = "/dev";

/// Why a limit was not set, or a privilege not dropped.
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
    /// For addresses of names.
    #[error("cannot write the root's /etc/resolv.conf")]
    Resolver(#[source] io::Error),
    /// The process may not change to the ids of the spec.
    #[error("cannot change to user {0} and group {1} without CAP_SETUID and CAP_SETGID; leave `identity` out")]
    Identity(u32, u32),
}

/// User and group to change to; supplementary groups are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Real, effective and saved user id.
    pub uid: u32,
    /// Real, effective and saved group id.
    pub gid: u32,
}

/// Drops all privileges; see the module documentation.
///
/// # Errors
/// When the process has one that it cannot drop.
pub fn drop_all(identity: Option<Identity>) -> Result<(), JailError> {
    give_up(identity, Outside::Nothing)
}

/// The same, but the process keeps the network that it was started in, and its empty root has an `/etc/resolv.conf` of this text
/// (resolv.conf(5)).
///
/// # Errors
/// As [`drop_all`].
pub fn drop_all_but_network(identity: Option<Identity>, resolv_conf: &str) -> Result<(), JailError> {
    give_up(identity, Outside::Network { resolv_conf })
}

/// What a process still reaches outside of its own namespaces.
#[derive(Clone, Copy)]
enum Outside<'a> {
    Nothing,
    Network { resolv_conf: &'a str },
}

fn give_up(identity: Option<Identity>, outside: Outside<'_>) -> Result<(), JailError> {
    let held = caps::read(None, CapSet::Effective)?;
    if held.contains(&Capability::CAP_SYS_ADMIN) {
        enter_namespaces(outside)?;
    }
    if held.contains(&Capability::CAP_SETPCAP) {
        caps::clear(None, CapSet::Bounding)?;
    }
    if let Some(identity) = identity {
        change_identity(identity, &held)?;
    }
    drop_capabilities()?;
    prctl::set_no_new_privs().map_err(failed("set no_new_privs"))?;
    // No other process of this user may trace it or read its memory.
    prctl::set_dumpable(false).map_err(failed("make the process undumpable"))
}

fn failed(what: &'static str) -> impl FnOnce(Errno) -> JailError {
    move |errno| JailError::Call(what, errno)
}

/// Lowers a limit, never raises it.
///
/// # Errors
/// When the kernel refuses.
pub fn limit(what: &'static str, resource: Resource, most: u64) -> Result<(), JailError> {
    let (_, hard) = getrlimit(resource).map_err(failed(what))?;
    let most = most.min(hard);
    setrlimit(resource, most, most).map_err(failed(what))
}

/// Standard input and output become /dev/null; standard error stays for error messages.
///
/// # Errors
/// When /dev/null cannot be opened.
pub fn redirect_standard_streams() -> Result<(), JailError> {
    let null = File::options().read(true).write(true).open("/dev/null").map_err(JailError::Null)?;
    dup2_stdin(&null).map_err(failed("redirect standard input"))?;
    dup2_stdout(&null).map_err(failed("redirect standard output"))
}

/// Enters new namespaces, and a root directory that is empty, but for what `outside` needs.
fn enter_namespaces(outside: Outside<'_>) -> Result<(), JailError> {
    let own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    let network = match outside {
        Outside::Nothing => CloneFlags::CLONE_NEWNET,
        Outside::Network { .. } => CloneFlags::empty(),
    };
    unshare(own | network).map_err(failed("unshare namespaces"))?;
    let nothing = None::<&str>;
    // Mounts must not propagate to the host or from it.
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).map_err(failed("make mounts private"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let (writable, size) = match outside {
        Outside::Nothing => (MsFlags::MS_RDONLY, "size=4k,nr_inodes=1,mode=0555"),
        // The root, the directory and the file.
        Outside::Network { .. } => (MsFlags::empty(), "size=4k,nr_inodes=3,mode=0555"),
    };
    mount(Some("none"), MOUNT_POINT, Some("tmpfs"), flags | writable, Some(size)).map_err(failed("mount an empty root"))?;
    if let Outside::Network { resolv_conf } = outside {
        let directory = Path::new(MOUNT_POINT).join("etc");
        fs::create_dir(&directory)
            .and_then(|()| fs::write(directory.join("resolv.conf"), resolv_conf))
            .map_err(JailError::Resolver)?;
        let read_only = flags | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(nothing, MOUNT_POINT, nothing, read_only, nothing).map_err(failed("make the root read-only"))?;
    }
    chdir(MOUNT_POINT).map_err(failed("enter the empty root"))?;
    // Stacks the old root on the new one, to be unmounted next (pivot_root(2), "pivot_root(".", ".")").
    pivot_root(".", ".").map_err(failed("pivot_root (impossible if the host's root is an initramfs)"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(failed("unmount the old root"))?;
    chdir("/").map_err(failed("enter the empty root"))
}

fn change_identity(identity: Identity, held: &CapsHashSet) -> Result<(), JailError> {
    let Identity { uid, gid } = identity;
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
