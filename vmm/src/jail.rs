//! The jail: drops privileges once the process has its descriptors and /dev/kvm, before it builds the VM.
//!
//! ```text
//!  limits ─► standard streams ─► privileges ([`confine::privileges`])
//! ```
//! It must run before any thread is started. The seccomp filters ([`crate::seccomp`]) are installed later, just before the
//! guest runs.

use crate::devices::serial::CONSOLE_MAX_BYTES;
use confine::privileges::{self, Resource, limit};
use nix::sys::stat::fstat;
use std::{io, os::fd::BorrowedFd};
use vm_spec::{Identity, Vcpus};

pub use confine::privileges::JailError;

/// Most open descriptors: 4096 extents of layers, 1024 streams, and those of queues, vCPUs and clients.
const DESCRIPTORS_MAX: u64 = 8192;
/// How much written files may grow: the console's limit, the line that reports it, and error messages.
const CONSOLE_ROOM_BYTES: u64 = CONSOLE_MAX_BYTES + 64 * 1024;
/// Threads beside those of vCPUs: the main thread, worker threads of KVM (tasks of this process since Linux 6.14), and a
/// margin in case two VMMs share a user.
const SPARE_THREADS: u64 = 16;
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
    let stderr = io::stderr();
    let mut longest = 0;
    for file in config.written.iter().copied().chain([std::os::fd::AsFd::as_fd(&stderr)]) {
        let size = fstat(file).map_err(|e| JailError::Call("stat a file of the spec", e))?.st_size;
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
