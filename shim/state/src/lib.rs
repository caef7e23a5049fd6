//! The state directory of a sandbox, `<root>/<namespace>/<id>`: sockets, console, and the record of its processes.
//!
//! The shim creates and removes it. `casemate` and the shim's `delete` read it from other processes, at any time.
#![forbid(unsafe_code)]

pub mod console;
mod directory;
mod lookup;
mod owned;
mod process;
mod record;

pub use directory::{CONSOLE, SandboxDir};
pub use lookup::{all, find};
pub use owned::OwnedSandboxDir;
pub use process::ProcessId;
pub use record::Record;

use std::{
    io,
    path::{Path, PathBuf},
};

/// Root of all state directories, unless the node's configuration names another.
pub const DEFAULT_ROOT: &str = "/run/casemate";

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A system call on a path in it failed.
    #[error("cannot {doing} {}", path.display())]
    Path {
        /// What was tried.
        doing: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The recorded VMM of this sandbox is alive.
    #[error("a VM of this sandbox runs already, as process {0}")]
    Running(u32),
    /// `state.json` is not a [`Record`].
    #[error("{} is not the record of a sandbox", .0.display())]
    Record(PathBuf, #[source] serde_json::Error),
    /// The process to record has ended.
    #[error("process {0} ended before it could be recorded")]
    Ended(u32),
    /// No namespace has a sandbox of this id.
    #[error("no sandbox {0} runs on this node")]
    NotFound(String),
    /// More than one namespace has a sandbox of this id.
    #[error("{namespaces} namespaces have a sandbox {id}")]
    Ambiguous {
        /// Sandbox id.
        id: String,
        /// How many.
        namespaces: usize,
    },
}

fn at<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StateError + use<'a> {
    move |source| StateError::Path {
        doing,
        path: path.to_owned(),
        source,
    }
}
