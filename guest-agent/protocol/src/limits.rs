//! Upper bounds on every size, count and wait of the protocol; the agent refuses what exceeds them.

use std::time::Duration;

/// Connections on the control port at once. A shim has one; operator tools and a restarted shim add to it.
pub const CONTROL_CONNECTIONS: usize = 16;
/// Requests served at once over all connections, without calls that wait for a process (see [`WAITERS`]).
pub const IN_FLIGHT: usize = 256;
/// Total payload of those requests in bytes: four of the largest.
pub const IN_FLIGHT_BYTES: usize = 4 * MESSAGE_BYTES;
/// A request without policy or OCI document, in bytes: 128 slots and two ids need less than 1 KiB.
pub const PLAIN_REQUEST_BYTES: usize = 4 << 10;
/// The part of a request around its policy or document, in bytes: ids, tokens and tags.
pub const REQUEST_FRAME_BYTES: usize = 4 << 10;

/// Policy text in bytes. It is sent in one ttrpc message, which is limited to 4 MiB.
pub const POLICY_BYTES: usize = 3 << 20;
/// A signed message (policy fragment, trust list) in bytes: the longest text of a fragment takes half, the rest is for the
/// signer's chain and receipts.
pub const FRAGMENT_BYTES: usize = 2 << 20;
/// Fragments and trust lists that a shim sends for one sandbox.
pub const FRAGMENTS: usize = 64;
/// Reference values of the guest beside the policy, in bytes of base64.
pub const REFERENCE_BYTES: usize = 128 << 10;
/// Any message in bytes: ttrpc's own constant, repeated here so that senders can check first.
pub const MESSAGE_BYTES: usize = 4 << 20;
/// An OCI `config.json` or process document in bytes; containerd's default spec has 10 KB.
pub const SPEC_BYTES: usize = 1 << 20;
/// A caller's id in bytes. containerd allows 76.
pub const ID_BYTES: usize = 128;

/// Containers in one sandbox, including exited ones that are not shut down yet.
pub const CONTAINERS: usize = 256;
/// Processes started in one container, including exited ones that are not deleted yet.
pub const PROCESSES: usize = 256;
/// Mounted layers of one sandbox.
pub const LAYERS: usize = 1024;
/// Shared directories of one container, and host disks besides layers and scratch.
pub const SHARES: usize = 256;
/// Addresses, routes or name servers of an interface.
pub const NETWORK_ENTRIES: usize = 64;
/// Length of each in bytes: two addresses with their prefixes.
pub const NETWORK_TEXT_BYTES: usize = 96;
/// A request that configures the network, in bytes: each list full of addresses of usual length.
pub const NETWORK_BYTES: usize = 32 << 10;
/// A file of the pod in bytes, such as its hosts.
pub const POD_FILE_BYTES: usize = 64 << 10;
/// Name of an interface in bytes (`IFNAMSIZ` without the NUL).
pub const INTERFACE_BYTES: usize = 15;
/// An image's name in bytes: registry, repository, tag and digest.
pub const IMAGE_BYTES: usize = 512;
/// Images that are pulled at once.
pub const PULLS: usize = 1;
/// Layers of one overlay; overlayfs itself allows 500.
pub const OVERLAY_LAYERS: usize = 128;
/// Entries of a process's environment.
pub const ENV_ENTRIES: usize = 4096;
/// Arguments of a process.
pub const ARGS: usize = 4096;
/// One argument or environment entry in bytes: the kernel's `MAX_ARG_STRLEN`, 32 pages.
pub const ARG_BYTES: usize = 128 << 10;
/// A path in a document in bytes: the kernel's `PATH_MAX` without the NUL.
pub const PATH_BYTES: usize = 4095;
/// Any other text of a document in bytes: type, source or option of a mount, name or value of a sysctl, name of a user.
pub const TEXT_BYTES: usize = 4096;
/// Options of a mount.
pub const MOUNT_OPTIONS: usize = 64;
/// Supplementary groups of a process; each is looked up in the container's files and judged.
pub const GROUPS: usize = 1024;
/// Resource limits of a process; the kernel knows 16.
pub const RLIMITS: usize = 32;
/// Names in one of a process's five capability sets; the kernel knows 41, and a policy may list one twice.
pub const CAPABILITIES: usize = 128;
/// Annotations of a container.
pub const ANNOTATIONS: usize = 1024;
/// Namespaces of a container; the kernel knows eight types.
pub const NAMESPACES: usize = 16;
/// Device nodes of a container.
pub const DEVICES: usize = 256;
/// sysctls of a container.
pub const SYSCTLS: usize = 256;
/// Masked or read-only paths of a container.
pub const GUARDED_PATHS: usize = 1024;
/// Rules of a seccomp profile, and names in all of them; containerd's default has some 500 names in all.
pub const SECCOMP_RULES: usize = 4096;
/// Conditions of a seccomp rule: a system call has six arguments, and each may be bounded on both sides.
pub const SECCOMP_CONDITIONS: usize = 12;
/// Mounts of a container.
pub const MOUNTS: usize = 256;
/// Calls that wait for the exit of a process, over all processes.
pub const WAITERS: usize = 4096;
/// Counters in one answer to `ContainerStats`; Linux 6.12 has about 100.
pub const COUNTERS: usize = 1024;
/// Answer to `DumpStacks` in bytes.
pub const STACKS_BYTES: usize = 64 << 10;
/// Block devices in one answer to `ContainerStats`.
pub const BLOCK_DEVICES: usize = 64;
/// Rows or columns of a terminal.
pub const TERMINAL_CELLS: u32 = 0xffff;

/// Stream connections that wait for a request to name their token.
pub const PARKED_STREAMS: usize = 64;
/// Stream connections in all, parked or in use.
pub const OPEN_STREAMS: usize = 4096;
/// Longest answer line of the VMM to `CONNECT`, in bytes.
pub const CONNECT_ANSWER_BYTES: usize = 64;

/// A stream connection must send its token within this time.
pub const TOKEN_DEADLINE: Duration = Duration::from_secs(10);
/// A parked stream is dropped if no request has named it after this time.
pub const PARKED_DEADLINE: Duration = Duration::from_secs(60);
/// A request waits this long for a stream that it names: connection and call race with each other.
pub const STREAM_DEADLINE: Duration = Duration::from_secs(10);
/// The VMM must answer `CONNECT` within this time.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// The read-only disk must have grown to hold an announced layer within this time.
pub const CAPACITY_DEADLINE: Duration = Duration::from_secs(20);
/// The launcher must have created a container or started a process within this time; otherwise it is killed and its work undone.
/// It needs 0.1 s, many times that under emulation.
pub const LAUNCHER_DEADLINE: Duration = Duration::from_secs(30);
/// The processes of a container must be gone this long after SIGKILL.
pub const KILL_DEADLINE: Duration = Duration::from_secs(10);
/// A listener on a forwarded port must have accepted the connection within this time.
pub const FORWARD_DEADLINE: Duration = Duration::from_secs(5);
/// Every process of a container must be frozen within this time.
pub const FREEZE_DEADLINE: Duration = Duration::from_secs(5);
/// Anything done under a permit must have ended within this time: twice the launcher's and the roll-back's together. What has not
/// ended hangs in the kernel (for example on a disk that the host blocks) and cannot be undone, so the guest is sealed.
pub const ACT_DEADLINE: Duration = Duration::from_secs(80);
/// A registry that is not there is asked again for this time: a pod's network is there before what routes and names need of it is.
pub const REGISTRY_WAIT: Duration = Duration::from_secs(30);
/// A pull has ended within this time, also one of the largest image from a slow registry. Its caller waits a little longer, to learn why.
pub const PULL_DEADLINE: Duration = Duration::from_secs(3600);
/// Any request except a wait and a pull is answered within this time, including its wait for other requests; the shim gives up at 120 s.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(110);

const _: () = {
    assert!(
        PLAIN_REQUEST_BYTES > OVERLAY_LAYERS * 5 + 2 * ID_BYTES + 64,
        "the largest plain request fits"
    );
    assert!(
        POLICY_BYTES + 2 * REFERENCE_BYTES + REQUEST_FRAME_BYTES < MESSAGE_BYTES,
        "the largest policy fits"
    );
    assert!(
        NETWORK_ENTRIES * 48 * (1 + 3 + 1 + 2) < NETWORK_BYTES,
        "addresses, routes, name servers and neighbours of usual length fit"
    );
    assert!(FRAGMENT_BYTES < POLICY_BYTES, "and so does the largest fragment");
    assert!(IN_FLIGHT_BYTES >= MESSAGE_BYTES, "a single request is always admitted");
    assert!(
        ACT_DEADLINE.as_secs() >= 2 * (LAUNCHER_DEADLINE.as_secs() + KILL_DEADLINE.as_secs()),
        "an act that keeps its own deadlines is never mistaken for a stuck one"
    );
    assert!(REQUEST_DEADLINE.as_secs() > ACT_DEADLINE.as_secs() + CAPACITY_DEADLINE.as_secs());
};
