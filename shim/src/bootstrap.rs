//! The shim's processes: containerd's flags, the socket, the serving process, and the clean-up process.
//!
//! ```text
//! containerd ── start ──► binds the socket ── spawns ──► serve (listener on standard input)
//!                         prints the address             answers until shutdown
//! containerd ── delete ─► (separate process, after every exit of a shim) removes what is left
//! ```

mod address;
mod args;
pub mod delete;
pub mod info;
pub mod serve;
mod shim_cgroup;
pub mod start;

pub use crate::describe::describe;
pub use args::{Action, Args};

use crate::{bundle::BundleError, config::ConfigError};
use shim_state::StateError;
use std::{io, path::PathBuf};

/// Name under which containerd knows the runtime.
pub const RUNTIME_NAME: &str = "io.containerd.casemate.v2";

/// Why an action failed.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// A flag that containerd does not use.
    #[error("unknown flag {0}")]
    UnknownFlag(String),
    /// A flag without its value.
    #[error("flag {0} needs a value")]
    FlagValue(String),
    /// Not `start` or `delete`.
    #[error("unknown action {0:?}; start and delete are known")]
    UnknownAction(String),
    /// A flag that the action requires.
    #[error("flag -{0} is required")]
    MissingFlag(&'static str),
    /// An id that is not an identifier of containerd, and so cannot be part of a path.
    #[error("{0:?} is not an identifier")]
    Identifier(String),
    /// The bundle cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The configuration cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The recorded state cannot be read or removed.
    #[error(transparent)]
    State(#[from] StateError),
    /// A container of a pod whose sandbox does not run.
    #[error("the sandbox {0} of this container is not running")]
    NoSandbox(String),
    /// The start request on standard input is too long.
    #[error("the start request is longer than {0} bytes")]
    LongInput(u64),
    /// A system call on a path failed.
    #[error("cannot {doing} {}", path.display())]
    Path {
        /// The operation.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// A system call without a path failed.
    #[error("cannot {0}")]
    Io(&'static str, #[source] io::Error),
    /// The server could not be started.
    #[error("cannot serve the Task API")]
    Server(#[source] ttrpc::Error),
    /// A reply could not be encoded.
    #[error("cannot encode the reply")]
    Encode(#[source] protobuf::Error),
}
