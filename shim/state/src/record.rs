//! `state.json`: the record by which another process can find and end the VM of a sandbox.

use crate::{ProcessId, StateError, at};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Name of the record in the state directory.
const NAME: &str = "state.json";
/// Name under which it is written before it is renamed.
const TEMPORARY: &str = ".state.json";
/// Longest record, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// The content of `state.json` for a running sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Sandbox id.
    pub id: String,
    /// containerd namespace.
    pub namespace: String,
    /// The VMM.
    pub vmm: ProcessId,
    /// The shim.
    pub shim: ProcessId,
    /// Cgroups that the VMM is put into, and that are removed after it.
    pub cgroups: Vec<PathBuf>,
}

impl Record {
    /// Reads the record in `dir`; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read or is not a record.
    pub fn load(dir: &Path) -> Result<Option<Self>, StateError> {
        let path = dir.join(NAME);
        let file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(at("open", &path))?,
        };
        let mut text = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut text).map_err(at("read", &path))?;
        serde_json::from_slice(&text).map(Some).map_err(|e| StateError::Record(path, e))
    }

    /// Writes the record into `dir`, whole or not at all: others read it at any time.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), StateError> {
        let path = dir.join(NAME);
        let text = serde_json::to_vec(self).map_err(|e| StateError::Record(path.clone(), e))?;
        let temporary = dir.join(TEMPORARY);
        fs::write(&temporary, text)
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(at("write", &path))
    }
}
