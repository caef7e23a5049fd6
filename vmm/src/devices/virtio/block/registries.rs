//! The read-only disk with the operator's configuration of registries: one file, which the guest's puller reads.

use super::{disk::Disk, file_io, request::SECTOR_BYTES};
use crate::devices::virtio::Buffers;
use std::{fs::File, io, sync::Arc};
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_RO;

/// Serial number by which a guest knows the disk; that of Contrast, whose format it has.
const ID: &str = "imagepuller";

/// A disk in one file.
#[derive(Clone)]
pub struct Registries {
    file: Arc<File>,
    capacity: u64,
}

/// Why a file cannot be the disk.
#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    /// `fstat` failed.
    #[error("cannot stat the file with the configuration of registries")]
    Metadata(#[source] io::Error),
    /// Not a regular file, or its length is zero or no whole number of sectors.
    #[error("it must be a regular file whose length is a multiple of 512, not {0} bytes")]
    Length(u64),
}

impl Registries {
    /// A disk with the size of `file`, which must be open for reading.
    pub fn new(file: File) -> Result<Self, RegistriesError> {
        let metadata = file.metadata().map_err(RegistriesError::Metadata)?;
        let capacity = metadata.len();
        if !metadata.is_file() || capacity == 0 || !capacity.is_multiple_of(SECTOR_BYTES) {
            return Err(RegistriesError::Length(capacity));
        }
        Ok(Self {
            file: Arc::new(file),
            capacity,
        })
    }
}

impl Disk for Registries {
    fn id(&self) -> &'static str {
        ID
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_BLK_F_RO
    }

    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn read(&self, offset: u64, into: Buffers<'_>) -> io::Result<()> {
        file_io::read_at(&self.file, offset, &into)
    }

    fn write(&self, _offset: u64, _from: Buffers<'_>) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn write_zeroes(&self, _offset: u64, _length: u64, _unmap: bool) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}
