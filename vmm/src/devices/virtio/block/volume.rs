//! The disk of a volume slot: none at boot, later one file or block device of the host, then none again.
//!
//! ```text
//!  empty ──attach──► attached ──detach──► draining ── the last request ends ──► empty
//! ```
//! Linux reads a device's features once, when nobody knows what the slot will hold: an empty one offers what a writable disk has, without
//! VIRTIO_BLK_F_RO, and each write to a read-only disk fails with VIRTIO_BLK_S_IOERR. Flushes are real, since a volume outlives its guest. Nothing
//! is discarded: a file that its owner has given room to keeps it.

use super::{Block, disk::Disk, file_io, request::SECTOR_BYTES};
use crate::devices::virtio::{Buffers, lock};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    os::unix::fs::{FileTypeExt, MetadataExt},
    sync::{Arc, Mutex, Weak},
};
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_FLUSH;
use vm_spec::VolumeSlots;

/// Serial numbers, by which a guest knows the slots.
const IDS: [&str; VolumeSlots::MAX as usize] = ["casemate-volume-0", "casemate-volume-1", "casemate-volume-2", "casemate-volume-3"];

/// Why a disk was not attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The slot has one.
    #[error("the slot has a disk; detach it first")]
    Occupied,
    /// Its last one is still in use.
    #[error("the slot's last disk is still being detached; ask for that again until it is done")]
    Draining,
    /// Another slot has it.
    #[error("the file is attached to slot {0} already")]
    Elsewhere(usize),
    /// Neither a regular file nor a block device.
    #[error("the file must be a regular one or a block device")]
    Kind,
    /// Its size.
    #[error("the file's size must be a multiple of 512 and not 0, not {0} bytes")]
    Size(u64),
    /// The VMM cannot write that far.
    #[error("the file has {0} bytes; the VM's spec allows {1} for a file that is written (`volumes.file_bytes`)")]
    Long(u64, u64),
    /// How it was opened does not fit the request.
    #[error("a writable disk's file must be open for reading and writing, a read-only one's for reading alone, neither for appending")]
    Access,
    /// `fstat`, `fcntl` or `lseek` failed.
    #[error("cannot look at the file")]
    Metadata(#[source] io::Error),
}

/// The slot has no disk.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the slot has no disk")]
pub struct NothingAttached;

/// What became of a disk that was to be detached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detached {
    /// No request uses its file any more.
    Done,
    /// One does.
    Draining,
}

/// The storage of one slot.
#[derive(Clone)]
pub struct Volume {
    id: &'static str,
    attached: Option<Attached>,
    /// The last disk's file, until somebody was told that it is no longer used.
    draining: Option<Weak<File>>,
}

#[derive(Clone)]
struct Attached {
    file: Arc<File>,
    identity: Identity,
    capacity: u64,
    read_only: bool,
}

/// What tells files apart: whether it is a block device; its number, or that of the file system; and the inode.
type Identity = (bool, u64, u64);

impl Attached {
    fn open(file: File, read_only: bool, file_bytes: u64) -> Result<Self, AttachError> {
        let metadata = file.metadata().map_err(AttachError::Metadata)?;
        let kind = metadata.file_type();
        let identity = match (kind.is_file(), kind.is_block_device()) {
            (true, _) => (false, metadata.dev(), metadata.ino()),
            (_, true) => (true, metadata.rdev(), 0),
            _ => return Err(AttachError::Kind),
        };
        let flags = fcntl(&file, FcntlArg::F_GETFL).map_err(|e| AttachError::Metadata(e.into()))?;
        let flags = OFlag::from_bits_retain(flags);
        let wanted = if read_only { OFlag::O_RDONLY } else { OFlag::O_RDWR };
        if flags & OFlag::O_ACCMODE != wanted || flags.intersects(OFlag::O_APPEND | OFlag::O_PATH) {
            return Err(AttachError::Access);
        }
        // The metadata of a block device have no size.
        let capacity = (&file).seek(SeekFrom::End(0)).map_err(AttachError::Metadata)?;
        if capacity == 0 || !capacity.is_multiple_of(SECTOR_BYTES) {
            return Err(AttachError::Size(capacity));
        }
        if kind.is_file() && !read_only && capacity > file_bytes {
            return Err(AttachError::Long(capacity, file_bytes));
        }
        Ok(Self {
            file: Arc::new(file),
            identity,
            capacity,
            read_only,
        })
    }
}

impl Volume {
    /// The empty slot of that number; `None` if there is none.
    pub fn new(slot: usize) -> Option<Self> {
        Some(Self {
            id: IDS.get(slot)?,
            attached: None,
            draining: None,
        })
    }

    fn is_draining(&self) -> bool {
        self.draining.as_ref().is_some_and(|file| file.strong_count() > 0)
    }

    fn check_empty(&self) -> Result<(), AttachError> {
        match self.attached {
            Some(_) => Err(AttachError::Occupied),
            None if self.is_draining() => Err(AttachError::Draining),
            None => Ok(()),
        }
    }

    /// Takes the disk out; `true` if there was one.
    fn take_out(&mut self) -> bool {
        let Some(Attached { file, .. }) = self.attached.take() else {
            return false;
        };
        // Requests in work have clones; the file is closed with the last of them.
        self.draining = Some(Arc::downgrade(&file));
        true
    }

    fn drained(&mut self) -> Result<Detached, NothingAttached> {
        if self.is_draining() {
            return Ok(Detached::Draining);
        }
        self.draining.take().map(|_| Detached::Done).ok_or(NothingAttached)
    }

    fn disk(&self) -> io::Result<&Attached> {
        self.attached.as_ref().ok_or(io::ErrorKind::NotFound.into())
    }
}

/// The volume slots of a VM, to change what is in them while the guest runs.
#[derive(Clone, Default)]
pub struct VolumesHandle {
    slots: Vec<Arc<Mutex<Block<Volume>>>>,
    file_bytes: u64,
}

impl VolumesHandle {
    /// A handle on devices, in the order of their numbers. Regular files that are written have `file_bytes` at most.
    pub fn new(slots: Vec<Arc<Mutex<Block<Volume>>>>, file_bytes: u64) -> Self {
        Self { slots, file_bytes }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.slots.len()
    }

    /// Puts a disk into a slot and notifies the guest; `None` if there is no such slot.
    pub fn attach(&self, slot: usize, file: File, read_only: bool) -> Option<Result<(), AttachError>> {
        let device = self.slots.get(slot)?;
        Some(self.attach_to(device, file, read_only))
    }

    fn attach_to(&self, device: &Mutex<Block<Volume>>, file: File, read_only: bool) -> Result<(), AttachError> {
        lock(device).disk.check_empty()?;
        let opened = Attached::open(file, read_only, self.file_bytes)?;
        let has_it = |slot: &Arc<Mutex<Block<Volume>>>| lock(slot).disk.attached.as_ref().is_some_and(|a| a.identity == opened.identity);
        if let Some(slot) = self.slots.iter().position(has_it) {
            return Err(AttachError::Elsewhere(slot));
        }
        let mut device = lock(device);
        device.disk.draining = None;
        device.disk.attached = Some(opened);
        device.capacity_changed();
        Ok(())
    }

    /// Takes the disk out of a slot and notifies the guest; `None` if there is no such slot. To be called again until it is done.
    pub fn detach(&self, slot: usize) -> Option<Result<Detached, NothingAttached>> {
        let mut device = lock(self.slots.get(slot)?);
        if device.disk.take_out() {
            device.capacity_changed();
        }
        Some(device.disk.drained())
    }
}

impl Disk for Volume {
    fn id(&self) -> &'static str {
        self.id
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_BLK_F_FLUSH
    }

    fn capacity(&self) -> u64 {
        self.attached.as_ref().map_or(0, |attached| attached.capacity)
    }

    fn read(&self, offset: u64, into: Buffers<'_>) -> io::Result<()> {
        file_io::read_at(&self.disk()?.file, offset, &into)
    }

    fn write(&self, offset: u64, from: Buffers<'_>) -> io::Result<()> {
        let disk = self.disk()?;
        if disk.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        file_io::write_at(&disk.file, offset, &from)
    }

    fn flush(&self) -> io::Result<()> {
        match &self.attached {
            Some(disk) if !disk.read_only => disk.file.sync_data(),
            _ => Ok(()),
        }
    }

    fn discard(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_zeroes(&self, _offset: u64, _length: u64, _unmap: bool) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
