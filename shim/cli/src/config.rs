//! The node's configuration, as far as the operator's commands need it.

use anyhow::{Context, Result};
use serde::Deserialize;
use std::fs;
use std::io;
use std::path::PathBuf;

/// The node's configuration.
const CONFIG: &str = "/etc/casemate/config.toml";

/// Directories of the runtime.
#[derive(Deserialize)]
#[serde(default)]
pub struct Directories {
    /// State of running sandboxes.
    pub state_dir: PathBuf,
    /// Converted layers and scratch disks.
    pub cache_dir: PathBuf,
    /// The program that converts layers, if it is not found by its name.
    pub converter: Option<PathBuf>,
}

impl Default for Directories {
    fn default() -> Self {
        Self {
            state_dir: shim_state::DEFAULT_ROOT.into(),
            cache_dir: layer_cache::DEFAULT_ROOT.into(),
            converter: None,
        }
    }
}

/// Reads the directories; a missing file is the same as an empty one.
pub fn directories() -> Result<Directories> {
    match fs::read_to_string(CONFIG) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Directories::default()),
        other => {
            let text = other.with_context(|| format!("cannot read {CONFIG}"))?;
            toml::from_str(&text).with_context(|| format!("{CONFIG} is not valid"))
        }
    }
}
