//! The control socket's messages: one JSON document per `SOCK_SEQPACKET` packet, files as `SCM_RIGHTS`.
//!
//! A client, such as [`Client`], connects, sends a [`Request`], reads a [`Reply`], and may repeat this. Several clients may be
//! connected.

mod client;

pub use client::{Client, ClientError};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Longest message in bytes.
pub const MESSAGE_MAX_BYTES: usize = 16 * 1024;
/// Most extents (and descriptors) in one message.
pub const EXTENTS_PER_MESSAGE: usize = 16;

/// A request to the VMM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Appends file extents to the read-only layer disk; extent `i` is a part of the `i`-th passed file.
    AppendExtents(Vec<Extent>),
    /// Takes extents of the layer disk back, by their first 512-byte sectors, all or none: the VMM closes their files, reading them fails, and
    /// later extents that fit take their places. Only for extents that nothing in the guest has open, mapped or cached.
    ReleaseExtents(Vec<u64>),
    /// Gives the network device its TAP, the passed file: opened with `IFF_VNET_HDR`, a header of 12 bytes, and offloads set. A second one
    /// takes the first one's place.
    AttachTap,
    /// Puts a disk into an empty volume slot: the passed file, a regular one or a block device whose size is a multiple of 512. The guest sees
    /// the capacity of the slot's device grow.
    AttachDisk {
        /// Number of the slot, below [`crate::Volumes::slots`].
        slot: u8,
        /// Writes fail. The file must not be open for writing then, and must be otherwise.
        read_only: bool,
    },
    /// Takes the disk out of a volume slot: the guest sees a capacity of 0, and its further requests fail. Answered with [`Reply::Draining`]
    /// while one that was begun before is not done; then to be asked again until it is [`Reply::Done`].
    DetachDisk {
        /// Number of the slot.
        slot: u8,
    },
    /// Reads the VM's counters.
    Stats,
    /// Stops the VM at once, without a guest shutdown; the VMM exits with code 0 after the reply.
    Stop,
    /// Stops every vCPU and every device until [`Request::Resume`]. Device events that arrive meanwhile are served then. What a disk has asked
    /// of the host's storage is not waited for: the guest is told of it after [`Request::Resume`].
    Pause,
    /// Resumes vCPUs and devices.
    Resume,
    /// Reads whether the VM is paused.
    State,
}

/// A part of a file, which backs a part of the layer disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extent {
    /// Byte offset in the file, a multiple of 4096.
    pub offset: u64,
    /// Length in bytes, a multiple of 4096, not zero.
    pub length: u64,
}

/// The VMM's reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// The extents were appended, and the guest was notified of the new capacity.
    Appended {
        /// First 512-byte sector of each appended extent, in order.
        first_sectors: Vec<u64>,
        /// The disk's capacity now, in sectors.
        capacity: u64,
    },
    /// Answer to [`Request::Stats`].
    Stats(Stats),
    /// Answer to [`Request::State`].
    State(RunState),
    /// The disk has left its slot, but a request of the guest still uses its file: ask again.
    Draining,
    /// Success, for release, attach, detach, stop, pause and resume.
    Done,
    /// Refused, with the reason.
    Error(String),
}

/// Whether the VM runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// vCPUs may run in the guest, devices are served.
    Running,
    /// No vCPU is in the guest, no exit is being served, and no device accesses guest memory, but for the buffer of a disk's request that the
    /// host's storage has begun, which is the device's until the guest is told of it.
    Paused,
}

/// Counters of one VM since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stats {
    /// Exits from guest to host that KVM counted (`KVM_GET_STATS_FD`, `exits`), over all vCPUs.
    pub exits: u64,
    /// KVM's other per-vCPU counters, summed, by KVM's name.
    pub kvm: BTreeMap<String, u64>,
    /// Exits that reached the VMM, by reason (`io`, `mmio`, …).
    pub to_vmm: BTreeMap<String, u64>,
    /// Counters of the watchdog.
    #[serde(default)]
    pub watchdog: WatchdogStats,
}

/// Counters of the watchdog; all zero for a well-behaved guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchdogStats {
    /// Exit storms: times that a vCPU began to exit fast and without progress.
    pub storms: u64,
    /// Exits that were throttled in such storms.
    pub throttled: u64,
    /// Times that a queue's handler was suspended after too many notifications without a new buffer.
    pub silenced: u64,
}
