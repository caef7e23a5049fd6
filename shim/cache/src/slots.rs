//! The node's slots: how many layers are converted at once, whatever shim wants them.
//!
//! A slot is a file with a lock. The shim holds it until the converter has ended; the converter has a copy of the descriptor, so that
//! the slot of a shim that was killed is free when its converter has ended too.

use super::{Cache, CacheError, at, is_locked};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Conversions at once on a node. Each takes up to three processors and 5 GiB of memory.
pub const SLOTS: u8 = 2;

/// A slot that is taken as long as the file is open anywhere.
#[derive(Debug)]
pub struct Slot {
    /// Locked, open for reading.
    pub file: File,
    /// Which of the [`SLOTS`] it is: no two conversions on the node have the same at once.
    pub number: u8,
}

impl Cache {
    /// A free slot; `None` when all are taken.
    ///
    /// # Errors
    /// When a slot's file cannot be opened.
    pub fn try_slot(&self) -> Result<Option<Slot>, CacheError> {
        for number in 0..SLOTS {
            let path = self.dir.join(format!("slot-{number}"));
            let file = open(&path).map_err(at("open", &path))?;
            if is_locked(&path, file.try_lock())? {
                return Ok(Some(Slot { file, number }));
            }
        }
        Ok(None)
    }
}

/// Opens the file for reading only, since the converter gets it; root alone may lock it.
fn open(path: &Path) -> io::Result<File> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
            File::open(path)
        }
        other => other,
    }
}
