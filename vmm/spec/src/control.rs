//! The control socket's messages: one JSON document per `SOCK_SEQPACKET` packet, files beside it by `SCM_RIGHTS`.
//!
//! A client connects, sends a [`Request`], reads a [`Reply`], and may go on. Several clients may be connected.
//! [`Client`] is such a client.

mod client;

pub use client::{Client, ClientError};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Longest message in bytes.
pub const MESSAGE_MAX_BYTES: usize = 16 * 1024;
/// Most extents (and descriptors) in one message.
pub const EXTENTS_PER_MESSAGE: usize = 16;

/// What a client asks of the VMM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Appends file extents to the read-only layer disk; extent `i` lies in the `i`-th passed descriptor.
    AppendExtents(Vec<Extent>),
    /// Counters of the VM.
    Stats,
    /// Ends the VM at once, as if its power cord were drawn; the VMM exits with code 0 after the reply.
    Stop,
    /// Takes every vCPU out of the guest and stops every device until [`Request::Resume`]. What the guest or the host's
    /// side of a device asks for meanwhile is served then.
    Pause,
    /// Lets vCPUs and devices run again.
    Resume,
    /// Whether the VM is paused.
    State,
}

/// A part of a file that backs a part of the layer disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extent {
    /// Byte offset in the file, a multiple of 4096.
    pub offset: u64,
    /// Bytes, a multiple of 4096, not zero.
    pub length: u64,
}

/// The VMM's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// The extents are in place and the guest was told of the new capacity.
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
    /// Done (stop, pause, resume).
    Done,
    /// Refused, with the reason.
    Error(String),
}

/// Whether the guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// vCPUs may be in the guest, devices are served.
    Running,
    /// No vCPU is in the guest, none of its exits is being served, and no device touches its memory.
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
    /// What the watchdog has seen.
    #[serde(default)]
    pub watchdog: WatchdogStats,
}

/// Counters of the watchdog; all zero for a well-behaved guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchdogStats {
    /// Times that a vCPU began to exit fast and without progress.
    pub storms: u64,
    /// Exits of such vCPUs that were slowed down.
    pub throttled: u64,
    /// Times that a doorbell was not listened to for a moment because it had rung too often for nothing.
    pub silenced: u64,
}
