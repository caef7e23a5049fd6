//! A pull that was permitted: its files on the scratch, and the disk with the operator's configuration.

use std::{fs::File, path::Path};

use guest_images::{CONFIGURATION_SERIAL, Staging, Store};
use policy::{Permit, action::PullImage};

use super::{StorageError, disk::Disk};

/// What the puller gets.
#[derive(Debug)]
pub struct Begun {
    /// The image of the permit.
    pub image: String,
    /// Files for its layers.
    pub staging: Staging,
    /// Whatever the host put there: the puller reads it, and an error of it is one of this pull alone.
    pub configuration: Option<File>,
}

impl Begun {
    /// Makes the files in a directory of the scratch. The permit is for a state that the policy does not remember: what is pulled counts
    /// once it is mounted.
    pub fn new(permit: Permit<'_, PullImage>, store: &Store, scratch: &str) -> Result<Self, StorageError> {
        let disk = Disk::with_serial(CONFIGURATION_SERIAL).map_err(StorageError::io("looking for the registry configuration"))?;
        let configuration = disk.map(|disk| File::open(disk.path())).transpose();
        let begun = Self {
            image: permit.action().image.clone(),
            staging: store.staging(Path::new(scratch))?,
            configuration: configuration.map_err(StorageError::io("opening the registry configuration"))?,
        };
        permit.commit();
        Ok(begun)
    }
}
