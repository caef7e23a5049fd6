//! Layers that a guest pulls itself: their files on the guest's scratch, and the agent's side of `casemate-puller`.
//!
//! ```text
//! Store ─ staging ─► Staging: empty files ─ start ─► Conversation with a puller that the caller spawned
//!   ▲                   │                                 │
//!   └────── keep ◄──────┴──── outcome: layers, or why ◄───┘ once the puller has ended
//! ```
//! A file has no name, so that a pull that fails leaves nothing. The puller is taken for hostile: a layer is what its root hash says, which
//! the policy judges and dm-verity enforces, as with layers of the host.
#![forbid(unsafe_code)]

mod puller;
mod store;

pub use puller::{Conversation, PullerError, Request, outcome};
pub use puller_protocol::{LAYERS_MAX, PROGRAM, PulledLayer};
pub use registry_device::SERIAL as CONFIGURATION_SERIAL;
pub use store::{Layer, Staging, Store, StoreError};
