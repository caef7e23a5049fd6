//! The jail: drops privileges once the process has its descriptors and /dev/kvm, before it builds the VM.
//!
//! ```text
//!  limits ─► standard streams ─► privileges ([`confine::privileges`])
//! ```
//! It must run before any thread is started. The seccomp filters ([`crate::seccomp`]) are installed later, just before the
//! guest runs.

use confine::privileges::{self, Resource, limit};
use nix::{
    errno::Errno,
    sys::stat::{FileStat, SFlag, fstat},
};
use std::{io, os::fd::BorrowedFd};
use vm_spec::{Identity, Vcpus};

pub use confine::privileges::JailError;

/// Most open descriptors: 4096 extents of layers, 1024 streams, and those of queues, vCPUs and clients.
const DESCRIPTORS_MAX: u64 = 8192;
/// How much standard error may grow where it is a file; the shim passes a pipe.
const MESSAGES_BYTES: u64 = 64 * 1024;
/// Threads beside those of vCPUs: the main thread, worker threads of KVM (tasks of this process since Linux 6.14), and a
/// margin in case two VMMs share a user; threads of devices: one for the network and seven for disks.
const SPARE_THREADS: u64 = 24;

/// What the jail depends on.
#[derive(Clone, Copy, Debug)]
pub struct JailConfig<'a> {
    /// User and group to change to.
    pub identity: Option<Identity>,
    /// Number of vCPU threads that will be started.
    pub vcpus: Vcpus,
    /// The scratch disk, the one file that a VMM without volumes writes; it cannot make it longer.
    pub scratch: Option<BorrowedFd<'a>>,
    /// Longest file in bytes that comes as a volume for writing. A VMM that its guest has taken over can make each file that long.
    pub volume_bytes: u64,
}

/// Drops all privileges; see the module documentation.
pub fn enter(config: &JailConfig<'_>) -> Result<(), JailError> {
    limit_resources(config)?;
    privileges::redirect_standard_streams()?;
    privileges::drop_all(config.identity.map(|Identity { uid, gid }| privileges::Identity {
        uid: uid.into(),
        gid: gid.into(),
    }))
}

fn limit_resources(config: &JailConfig<'_>) -> Result<(), JailError> {
    limit("limit core dumps", Resource::RLIMIT_CORE, 0)?;
    limit("limit open descriptors", Resource::RLIMIT_NOFILE, DESCRIPTORS_MAX)?;
    let scratch = config.scratch.map_or(Ok(0), |file| size(&fstat(file)))?;
    limit(
        "limit the size of files",
        Resource::RLIMIT_FSIZE,
        scratch.max(config.volume_bytes).max(messages()?),
    )?;
    if config.identity.is_some() {
        // The limit counts all processes of a user, so it is set only if the VMM has a user of its own.
        let threads = 2 * u64::from(config.vcpus.get()) + SPARE_THREADS;
        limit("limit threads", Resource::RLIMIT_NPROC, threads)?;
    }
    Ok(())
}

/// Length that standard error may have, if it is a regular file.
fn messages() -> Result<u64, JailError> {
    let stat = fstat(io::stderr());
    let is_file = stat.is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG);
    if is_file {
        Ok(size(&stat)?.saturating_add(MESSAGES_BYTES))
    } else {
        Ok(0)
    }
}

fn size(stat: &Result<FileStat, Errno>) -> Result<u64, JailError> {
    let stat = stat.as_ref().map_err(|errno| JailError::Call("stat a file", *errno))?;
    Ok(u64::try_from(stat.st_size).unwrap_or_default())
}
