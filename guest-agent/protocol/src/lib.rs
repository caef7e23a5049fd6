//! The protocol between shim and agent: messages, limits, ports, ids, and both ends of a connection.
//!
//! One ttrpc connection on [`CONTROL_PORT`] carries the calls of `proto/agent.proto`; each stdio
//! stream is one connection on [`STREAM_PORT`] that begins with a [`StreamToken`].
//!
//! On the host every connection starts at the VMM's vsock socket ([`connect()`]); in the guest it
//! arrives over AF_VSOCK ([`listen()`]). Nothing else in this crate does I/O, and nothing here judges.

// Not forbid, because the generated stubs contain their own allow (and no unsafe block).
#![deny(unsafe_code)]

mod connect;
mod guest_id;
mod guest_text;
pub mod limits;
mod listen;
mod open_door;
mod stream_token;

pub use connect::{ConnectError, agent_client, connect, open_stream};
pub use guest_id::{IdError, guest_id, valid_caller_id};
pub use guest_text::{escaped, from_guest, guest_text};
pub use listen::{HostListener, listen};
pub use open_door::OPEN_DOOR;
pub use service::agent::*;
pub use service::agent_ttrpc::{Agent, AgentClient, create_agent};
pub use stream_token::{StreamToken, TokenError};

/// Port of the ttrpc service in the guest.
pub const CONTROL_PORT: u32 = 1024;
/// Port of stdio streams in the guest.
pub const STREAM_PORT: u32 = 1025;

/// The id that stands for the guest itself in requests about its processes; no container can have it.
pub const GUEST_ID: &str = "00000000-0000-0000-0000-000000000000";

/// Code that the build script generated from `proto/agent.proto`.
#[allow(missing_docs, reason = "generated")]
mod service {
    include!(concat!(env!("OUT_DIR"), "/mod.rs"));
}
