//! The protocol between the agent and `casemate-launcher`: requests, answers, frames, and the paths that both use.
//!
//! ```text
//! agent ── Request ──► launcher        one frame each way, over a stream socket that the launcher inherits
//! agent ◄── Answer ─── launcher        with the terminal's master as SCM_RIGHTS where the request asks for a terminal
//! ```
//! Everything in a request was judged by the policy or chosen by the agent. An answer carries no text, because what libcontainer
//! reports may name files of the guest: a failure is one of [`Cause`].

#![deny(unsafe_code)]

mod answer;
mod frame;
mod process;
mod request;
mod seccomp;

use std::path::PathBuf;

pub use answer::{Answer, Cause};
pub use frame::{FRAME_MAX_BYTES, FrameError, receive, send};
pub use process::{Capabilities, Process, Rlimit, User};
pub use request::{Container, Device, Exec, External, Mount, Namespace, NamespaceKind, Request};
pub use seccomp::{Argument, Profile, Syscall};

/// Where libcontainer keeps the state of containers: a tmpfs of the guest that no container reaches.
pub const STATE_ROOT: &str = "/run/casemate/runtime";
/// Where the launcher writes the OCI documents that libcontainer reads; also a tmpfs of the guest.
pub const BUNDLES: &str = "/run/casemate/bundles";
/// The cgroup v2 hierarchy.
pub const CGROUP_ROOT: &str = "/sys/fs/cgroup";
/// What an init reads from its [`notify_socket`] before it executes its program (libcontainer's `notify_socket.rs`).
pub const START_NOTICE: &[u8] = b"start container";

/// Numbers of character devices: major, and minor or `None` for any.
pub type DeviceNumbers = (u32, Option<u32>);

/// The only devices that a container may open, whatever nodes it has. They are those of runc's default list, see
/// Documentation/admin-guide/devices.txt: null, zero, full, random, urandom, tty, ptmx, pseudo terminals.
pub const DEVICES: [DeviceNumbers; 8] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(2)),
    (136, None),
];

/// The socket on which the init of the container `id` waits for [`START_NOTICE`].
pub fn notify_socket(id: &str) -> PathBuf {
    PathBuf::from(STATE_ROOT).join(id).join("notify.sock")
}
