//! Upper bounds on every size, count and wait of the wire; the agent refuses what exceeds them.

use std::time::Duration;

/// Policy text in bytes. One ttrpc message carries it whole, and ttrpc ends at 4 MiB.
pub const POLICY_BYTES: usize = 3 << 20;
/// Any message in bytes: ttrpc's own constant, repeated here so that senders can check first.
pub const MESSAGE_BYTES: usize = 4 << 20;
/// An OCI `config.json` or process document in bytes; containerd's default spec has 10 KB.
pub const SPEC_BYTES: usize = 1 << 20;
/// An id as the caller writes it, in bytes. containerd allows 76.
pub const ID_BYTES: usize = 128;

/// Containers in one sandbox, ended ones not yet shut down included.
pub const CONTAINERS: usize = 256;
/// Processes started in one container, ended ones not yet deleted included.
pub const PROCESSES: usize = 256;
/// Mounted layers of one sandbox.
pub const LAYERS: usize = 1024;
/// Layers of one overlay; overlayfs itself ends at 500.
pub const OVERLAY_LAYERS: usize = 128;
/// Entries of a process's environment.
pub const ENV_ENTRIES: usize = 4096;
/// Arguments of a process.
pub const ARGS: usize = 4096;
/// Mounts of a container.
pub const MOUNTS: usize = 256;
/// Calls waiting for the end of a process, over all processes.
pub const WAITERS: usize = 4096;
/// Counters in one answer to `ContainerStats`; Linux 6.12 has about 100.
pub const COUNTERS: usize = 1024;
/// Block devices in one answer to `ContainerStats`.
pub const BLOCK_DEVICES: usize = 64;
/// Rows or columns of a terminal.
pub const TERMINAL_CELLS: u32 = 0xffff;

/// Stream connections that wait for a request to name their token.
pub const PARKED_STREAMS: usize = 64;
/// Stream connections in all, parked or in use.
pub const OPEN_STREAMS: usize = 4096;
/// Length of the line with which the VMM answers `CONNECT`, in bytes.
pub const CONNECT_ANSWER_BYTES: usize = 64;

/// A stream connection must send its token within this time.
pub const TOKEN_DEADLINE: Duration = Duration::from_secs(10);
/// A parked stream is dropped when no request has named it by then.
pub const PARKED_DEADLINE: Duration = Duration::from_secs(60);
/// A request waits this long for a stream that it names: connection and call race each other.
pub const STREAM_DEADLINE: Duration = Duration::from_secs(10);
/// The VMM must answer `CONNECT` within this time.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// The read-only disk must have grown to hold an announced layer within this time.
pub const CAPACITY_DEADLINE: Duration = Duration::from_secs(20);
/// The launcher must have made, started or deleted a container within this time.
pub const LAUNCHER_DEADLINE: Duration = Duration::from_secs(60);
/// The processes of a container must be gone this long after SIGKILL.
pub const KILL_DEADLINE: Duration = Duration::from_secs(10);
/// Every process of a container must stand still this long after it was told to.
pub const FREEZE_DEADLINE: Duration = Duration::from_secs(5);
