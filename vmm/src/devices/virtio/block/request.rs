//! Parses and checks block requests: pure functions from a header and lengths to a valid request.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_FLUSH,
    VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};

/// The unit of `sector` fields, whatever the logical block size.
pub const SECTOR_BYTES: u64 = 512;
/// `type`, `reserved`, `sector` (virtio 1.2, 5.2.6).
pub const HEADER_BYTES: usize = 16;
/// `sector`, `num_sectors`, `flags` of a discard or write-zeroes request.
pub const RANGE_BYTES: usize = 16;
/// Most bytes per request: four times what Linux requests, and a bound on the time of one iteration of the event loop. The size
/// of guest memory is no bound, because descriptors of a request may overlap.
pub const MAX_TRANSFER_BYTES: usize = 16 << 20;
/// Most ranges in one discard or write-zeroes request.
pub const MAX_RANGES: u32 = 16;
/// Longest range in one discard or write-zeroes request: 1 GiB, so that one request does not block the device for long.
pub const MAX_RANGE_SECTORS: u32 = 1 << 21;

/// The status byte of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// Failed, or outside the disk.
    IoError = 1,
    /// A request that this disk does not support.
    Unsupported = 2,
}

/// The fixed part of a request as the driver wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// `VIRTIO_BLK_T_*`.
    pub kind: u32,
    /// First sector of a read or write.
    pub sector: u64,
}

impl Header {
    /// Reads the wire form.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = *bytes;
        Self {
            kind: u32::from_le_bytes([k0, k1, k2, k3]),
            sector: u64::from_le_bytes(sector),
        }
    }
}

/// A valid request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Read from `offset` into all writable bytes except the status.
    Read {
        /// Byte offset.
        offset: u64,
    },
    /// Write all readable bytes after the header at `offset`.
    Write {
        /// Byte offset.
        offset: u64,
    },
    /// Make earlier writes durable.
    Flush,
    /// Write the disk's id.
    GetId,
    /// Discard ranges.
    Discard {
        /// Number of ranges after the header.
        ranges: usize,
    },
    /// Zero ranges.
    WriteZeroes {
        /// Number of ranges after the header.
        ranges: usize,
    },
}

impl Request {
    /// Checks a request: `readable` bytes follow its header, `writable` bytes precede its status, the disk has `capacity`
    /// bytes, and `features` were negotiated.
    pub fn parse(header: Header, readable: usize, writable: usize, capacity: u64, features: u64) -> Result<Self, Status> {
        let has = |feature: u32| features & 1 << feature != 0;
        match header.kind {
            VIRTIO_BLK_T_IN => Ok(Self::Read {
                offset: data_offset(header.sector, writable, capacity)?,
            }),
            VIRTIO_BLK_T_OUT if has(VIRTIO_BLK_F_RO) => Err(Status::IoError),
            VIRTIO_BLK_T_OUT => Ok(Self::Write {
                offset: data_offset(header.sector, readable, capacity)?,
            }),
            VIRTIO_BLK_T_FLUSH if has(VIRTIO_BLK_F_FLUSH) => Ok(Self::Flush),
            VIRTIO_BLK_T_GET_ID => Ok(Self::GetId),
            VIRTIO_BLK_T_DISCARD if has(VIRTIO_BLK_F_DISCARD) => Ok(Self::Discard {
                ranges: range_count(readable)?,
            }),
            VIRTIO_BLK_T_WRITE_ZEROES if has(VIRTIO_BLK_F_WRITE_ZEROES) => Ok(Self::WriteZeroes {
                ranges: range_count(readable)?,
            }),
            _ => Err(Status::Unsupported),
        }
    }
}

/// A checked part of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Whether the space may be deallocated.
    pub unmap: bool,
}

impl Range {
    /// Parses a range to discard; all flags are reserved.
    pub fn parse_discard(bytes: &[u8; RANGE_BYTES], capacity: u64) -> Result<Self, Status> {
        Self::parse(bytes, capacity, 0)
    }

    /// Parses a range to zero.
    pub fn parse_write_zeroes(bytes: &[u8; RANGE_BYTES], capacity: u64) -> Result<Self, Status> {
        Self::parse(bytes, capacity, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP)
    }

    fn parse(bytes: &[u8; RANGE_BYTES], capacity: u64, allowed_flags: u32) -> Result<Self, Status> {
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = *bytes;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let count = u32::from_le_bytes([n0, n1, n2, n3]);
        let flags = u32::from_le_bytes(flags);
        if flags & !allowed_flags != 0 {
            return Err(Status::Unsupported);
        }
        if count > MAX_RANGE_SECTORS {
            return Err(Status::IoError);
        }
        let length = u64::from(count) * SECTOR_BYTES;
        Ok(Self {
            offset: offset_of(sector, length, capacity)?,
            length,
            unmap: flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0,
        })
    }
}

/// The byte offset of a transfer, which must have whole sectors.
fn data_offset(sector: u64, length: usize, capacity: u64) -> Result<u64, Status> {
    if length > MAX_TRANSFER_BYTES {
        return Err(Status::IoError);
    }
    let length = length as u64;
    if !length.is_multiple_of(SECTOR_BYTES) {
        return Err(Status::IoError);
    }
    offset_of(sector, length, capacity)
}

/// The byte offset of `sector` if `length` bytes from there lie on the disk.
fn offset_of(sector: u64, length: u64, capacity: u64) -> Result<u64, Status> {
    let offset = sector.checked_mul(SECTOR_BYTES).ok_or(Status::IoError)?;
    let end = offset.checked_add(length).ok_or(Status::IoError)?;
    if end > capacity { Err(Status::IoError) } else { Ok(offset) }
}

fn range_count(readable: usize) -> Result<usize, Status> {
    let count = readable / RANGE_BYTES;
    let whole = readable.is_multiple_of(RANGE_BYTES);
    if whole && (1..=MAX_RANGES as usize).contains(&count) {
        Ok(count)
    } else {
        Err(Status::IoError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: u64 = 1 << VIRTIO_BLK_F_FLUSH | 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES;

    fn range(sector: u64, count: u32, flags: u32) -> [u8; RANGE_BYTES] {
        let mut bytes = [0; RANGE_BYTES];
        bytes[..8].copy_from_slice(&sector.to_le_bytes());
        bytes[8..12].copy_from_slice(&count.to_le_bytes());
        bytes[12..].copy_from_slice(&flags.to_le_bytes());
        bytes
    }

    #[test]
    fn header_fields_are_little_endian() {
        let bytes = [4, 0, 0, 0, 9, 9, 9, 9, 1, 2, 0, 0, 0, 0, 0, 0x80];
        assert_eq!(
            Header::parse(&bytes),
            Header {
                kind: 4,
                sector: 0x8000_0000_0000_0201
            }
        );
    }

    #[test]
    fn requests_end_at_the_capacity() {
        let read = |sector, len| Request::parse(Header { kind: 0, sector }, 0, len, 4096, 0);
        assert_eq!(read(7, 512), Ok(Request::Read { offset: 3584 }));
        for (sector, len) in [(8, 512), (7, 1024), (u64::MAX, 512), (u64::MAX / 512 + 1, 512), (0, 511), (0, 4608)] {
            assert_eq!(read(sector, len), Err(Status::IoError), "{sector} {len}");
        }
    }

    #[test]
    fn the_bytes_of_one_request_are_limited() {
        let read = |len| Request::parse(Header { kind: 0, sector: 0 }, 0, len, u64::MAX, 0);
        assert_eq!(read(MAX_TRANSFER_BYTES), Ok(Request::Read { offset: 0 }));
        assert_eq!(read(MAX_TRANSFER_BYTES + 512), Err(Status::IoError));
    }

    #[test]
    fn requests_of_features_that_were_not_negotiated_are_unsupported() {
        let parse = |kind, features| Request::parse(Header { kind, sector: 0 }, 16, 0, 4096, features);
        for kind in [VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES] {
            assert!(parse(kind, ALL).is_ok());
            assert_eq!(parse(kind, 0), Err(Status::Unsupported));
        }
        assert_eq!(parse(99, ALL), Err(Status::Unsupported));
        assert_eq!(parse(VIRTIO_BLK_T_OUT, 1 << VIRTIO_BLK_F_RO), Err(Status::IoError));
    }

    #[test]
    fn ranges_have_limits_and_reserved_flags() {
        assert_eq!(
            Range::parse_write_zeroes(&range(1, 7, 1), 4096),
            Ok(Range {
                offset: 512,
                length: 3584,
                unmap: true
            })
        );
        assert_eq!(Range::parse_discard(&range(1, 7, 1), 4096), Err(Status::Unsupported));
        assert_eq!(Range::parse_write_zeroes(&range(1, 7, 2), 4096), Err(Status::Unsupported));
        assert_eq!(Range::parse_discard(&range(1, 8, 0), 4096), Err(Status::IoError));
        assert_eq!(
            Range::parse_discard(&range(0, MAX_RANGE_SECTORS + 1, 0), u64::MAX),
            Err(Status::IoError)
        );
        for (readable, wanted) in [(0, None), (16, Some(1)), (24, None), (256, Some(16)), (272, None)] {
            assert_eq!(range_count(readable).ok(), wanted, "{readable}");
        }
    }

    proptest! {
        #[test]
        fn accepted_requests_lie_on_the_disk(
            bytes: [u8; HEADER_BYTES], kind in 0u32..20, readable in 0usize..100_000, writable in 0usize..100_000,
            capacity in 0u64..1 << 40, features: u64,
        ) {
            let header = Header { kind, ..Header::parse(&bytes) };
            match Request::parse(header, readable, writable, capacity, features) {
                Ok(Request::Read { offset }) => prop_assert!(offset + writable as u64 <= capacity),
                Ok(Request::Write { offset }) => prop_assert!(offset + readable as u64 <= capacity),
                _ => (),
            }
            if let Ok(range) = Range::parse_write_zeroes(&bytes, capacity) {
                prop_assert!(range.offset.checked_add(range.length).is_some_and(|end| end <= capacity));
            }
        }
    }
}
