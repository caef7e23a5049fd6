//! The scratch disk: one file of the host, which the guest reads and writes.

use super::{disk::Disk, file_io};
use crate::devices::virtio::Buffers;
use nix::fcntl::{FallocateFlags, fallocate};
use std::{fs::File, io, sync::Arc};
use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_WRITE_ZEROES};

/// The file's size is a multiple of this.
const SIZE_ALIGN_BYTES: u64 = 4096;

/// A disk in one file.
#[derive(Clone)]
pub struct Scratch {
    file: Arc<File>,
    capacity: u64,
}

/// Why a file cannot be a scratch disk.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// `fstat` failed.
    #[error("cannot stat the scratch file")]
    Metadata(#[source] io::Error),
    /// Not a regular file, or its length is zero or not a multiple of 4096.
    #[error("the scratch file must be a regular file whose length is a multiple of 4096, not {0} bytes")]
    Length(u64),
}

impl Scratch {
    /// A disk with the size of `file`, which must be open for reading and writing.
    pub fn new(file: File) -> Result<Self, ScratchError> {
        let metadata = file.metadata().map_err(ScratchError::Metadata)?;
        let capacity = metadata.len();
        if !metadata.is_file() || capacity == 0 || !capacity.is_multiple_of(SIZE_ALIGN_BYTES) {
            return Err(ScratchError::Length(capacity));
        }
        Ok(Self {
            file: Arc::new(file),
            capacity,
        })
    }

    /// The one use of `fallocate` that the filter allows: any other mode could take room beyond the file's end.
    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        let signed = |n: u64| libc::off_t::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
        Ok(fallocate(
            &*self.file,
            FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE,
            signed(offset)?,
            signed(length)?,
        )?)
    }
}

impl Disk for Scratch {
    fn id(&self) -> &'static str {
        "casemate-scratch"
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_BLK_F_FLUSH | 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES
    }

    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn read(&self, offset: u64, into: Buffers<'_>) -> io::Result<()> {
        file_io::read_at(&self.file, offset, &into)
    }

    fn write(&self, offset: u64, from: Buffers<'_>) -> io::Result<()> {
        file_io::write_at(&self.file, offset, &from)
    }

    /// Completes at once: the guest's encryption key dies with the guest, so after a host crash nobody could read what a
    /// flush would have saved.
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    /// Does nothing on a file system that cannot punch holes: a discard is a hint.
    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        match self.punch_hole(offset, length) {
            Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(()),
            result => result,
        }
    }

    /// The file is sparse from the start, so there is nothing to keep allocated.
    fn write_zeroes(&self, offset: u64, length: u64, _unmap: bool) -> io::Result<()> {
        self.punch_hole(offset, length)
    }
}
