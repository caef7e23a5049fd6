//! The read-only layer disk: file extents one after the other. It grows as layers are added, and gives back those that are no longer used.

use super::{disk::Disk, file_io, request::SECTOR_BYTES};
use crate::devices::virtio::Buffers;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    sync::Arc,
};
use virtio_bindings::virtio_blk::VIRTIO_BLK_F_RO;

/// Most extents on one disk; each holds a file descriptor.
pub const MAX_EXTENTS: usize = 4096;
/// Largest disk: 64 TiB.
const MAX_CAPACITY_BYTES: u64 = 1 << 46;
/// Offsets and lengths are multiples of this, so that no block of a layer straddles two extents.
const EXTENT_ALIGN_BYTES: u64 = 4096;

#[derive(Clone)]
struct Extent {
    file: Arc<File>,
    /// First byte in the file.
    offset: u64,
    /// First byte on the disk.
    start: u64,
    length: u64,
}

/// A disk of file extents that never shrinks.
#[derive(Clone, Default)]
pub struct Layers(Arc<Table>);

/// Copied by whoever changes it while a request is served from it; that request's files stay open until it is done.
#[derive(Clone, Default)]
struct Table {
    /// In order of the disk.
    extents: Vec<Extent>,
    /// Places of released extents: first byte, bytes. No two of them touch.
    gaps: BTreeMap<u64, u64>,
    capacity: u64,
}

/// Location of appended extents on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// First 512-byte sector of each extent, in order.
    pub first_sectors: Vec<u64>,
    /// The disk's capacity now, in 512-byte sectors.
    pub capacity: u64,
}

/// Why extents were not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// More than [`MAX_EXTENTS`].
    #[error("the layer disk would have {0} extents; the limit is {MAX_EXTENTS}")]
    TooMany(usize),
    /// Offset or length is not a multiple of 4096, or the length is zero.
    #[error("extent {index}: offset {offset} and length {length} must be multiples of 4096, the length not zero")]
    Unaligned {
        /// Its index in the list.
        index: usize,
        /// Byte offset in the file.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// The extent ends after its file does.
    #[error("extent {index}: bytes {offset} + {length} lie outside the file of {file} bytes")]
    OutsideFile {
        /// Its index in the list.
        index: usize,
        /// Byte offset in the file.
        offset: u64,
        /// Bytes.
        length: u64,
        /// Length of the file.
        file: u64,
    },
    /// Not a regular file.
    #[error("extent {0} is not in a regular file")]
    NotAFile(usize),
    /// The disk would exceed its largest capacity.
    #[error("the layer disk would be larger than {MAX_CAPACITY_BYTES} bytes")]
    TooLarge,
    /// `fstat` failed.
    #[error("extent {0}: cannot stat its file")]
    Metadata(usize, #[source] io::Error),
}

/// Why extents were not released.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// No extent begins there.
    #[error("no extent of the layer disk begins at sector {0}")]
    Unknown(u64),
    /// Named twice.
    #[error("the extent at sector {0} is named twice")]
    Twice(u64),
}

impl Layers {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn check_count(&self, more: usize) -> Result<(), AppendError> {
        let count = self.0.extents.len() + more;
        if count > MAX_EXTENTS {
            Err(AppendError::TooMany(count))
        } else {
            Ok(())
        }
    }

    /// Appends extents (file, byte offset, bytes), all or none: each in the first place of released ones that it fits in, or at the end.
    pub(super) fn append(&mut self, extents: Vec<(File, u64, u64)>) -> Result<Appended, AppendError> {
        self.check_count(extents.len())?;
        let (mut capacity, mut gaps) = (self.0.capacity, self.0.gaps.clone());
        let mut added = Vec::with_capacity(extents.len());
        for (index, (file, offset, length)) in extents.into_iter().enumerate() {
            check(index, &file, offset, length)?;
            let start = take_place(&mut gaps, length).unwrap_or(capacity);
            if start == capacity {
                capacity = capacity
                    .checked_add(length)
                    .filter(|c| *c <= MAX_CAPACITY_BYTES)
                    .ok_or(AppendError::TooLarge)?;
            }
            added.push(Extent {
                file: Arc::new(file),
                offset,
                start,
                length,
            });
        }
        let first_sectors = added.iter().map(|e| e.start / SECTOR_BYTES).collect();
        let table = Arc::make_mut(&mut self.0);
        table.extents.extend(added);
        table.extents.sort_unstable_by_key(|extent| extent.start);
        (table.capacity, table.gaps) = (capacity, gaps);
        Ok(Appended {
            first_sectors,
            capacity: capacity / SECTOR_BYTES,
        })
    }

    /// Closes the files of the extents that begin at these sectors, all or none. Their places cannot be read until other extents
    /// take them.
    pub(super) fn release(&mut self, first_sectors: &[u64]) -> Result<(), ReleaseError> {
        let mut starts = BTreeSet::new();
        for sector in first_sectors {
            let start = sector
                .checked_mul(SECTOR_BYTES)
                .filter(|start| self.0.extents.binary_search_by_key(start, |extent| extent.start).is_ok())
                .ok_or(ReleaseError::Unknown(*sector))?;
            if !starts.insert(start) {
                return Err(ReleaseError::Twice(*sector));
            }
        }
        let table = Arc::make_mut(&mut self.0);
        for extent in table.extents.extract_if(.., |extent| starts.contains(&extent.start)) {
            add_gap(&mut table.gaps, extent.start, extent.length);
        }
        Ok(())
    }
}

/// Takes `length` bytes from the first gap that has them.
fn take_place(gaps: &mut BTreeMap<u64, u64>, length: u64) -> Option<u64> {
    let (start, room) = gaps.iter().map(|(start, room)| (*start, *room)).find(|(_, room)| *room >= length)?;
    gaps.remove(&start);
    if room > length {
        gaps.insert(start + length, room - length);
    }
    Some(start)
}

/// Adds a gap, joined with those that it touches.
fn add_gap(gaps: &mut BTreeMap<u64, u64>, mut start: u64, mut length: u64) {
    if let Some(after) = gaps.remove(&(start + length)) {
        length += after;
    }
    if let Some((before, room)) = gaps.range(..start).next_back().map(|(before, room)| (*before, *room))
        && before + room == start
    {
        (start, length) = (before, room + length);
    }
    gaps.insert(start, length);
}

fn check(index: usize, file: &File, offset: u64, length: u64) -> Result<(), AppendError> {
    let aligned = |n: u64| n.is_multiple_of(EXTENT_ALIGN_BYTES);
    if length == 0 || !aligned(length) || !aligned(offset) {
        return Err(AppendError::Unaligned { index, offset, length });
    }
    let metadata = file.metadata().map_err(|e| AppendError::Metadata(index, e))?;
    if !metadata.is_file() {
        return Err(AppendError::NotAFile(index));
    }
    if offset.checked_add(length).is_none_or(|end| end > metadata.len()) {
        return Err(AppendError::OutsideFile {
            index,
            offset,
            length,
            file: metadata.len(),
        });
    }
    Ok(())
}

impl Disk for Layers {
    fn id(&self) -> &'static str {
        "casemate-layers"
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_BLK_F_RO
    }

    fn capacity(&self) -> u64 {
        self.0.capacity
    }

    fn read(&self, offset: u64, mut into: Buffers<'_>) -> io::Result<()> {
        // The first extent that does not end at or before `offset`.
        let extents = &self.0.extents;
        let first = extents.partition_point(|e| e.start + e.length <= offset);
        let mut position = offset;
        for extent in &extents[first..] {
            if into.is_empty() {
                break;
            }
            // A gap.
            let within = position.checked_sub(extent.start).ok_or(io::ErrorKind::UnexpectedEof)?;
            let count = (extent.length - within).min(into.len() as u64);
            let part = into.split_to(count as usize).map_err(|_| io::ErrorKind::UnexpectedEof)?;
            file_io::read_at(&extent.file, extent.offset + within, &part)?;
            position += count;
        }
        if into.is_empty() {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
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
