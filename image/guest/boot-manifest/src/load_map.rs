//! The load map: where stage0 puts kernel and initramfs, and how much RAM the guest may have. Part of the measured boot page, so that
//! stage0 parses no ELF file.
//!
//! The kernel file that it describes is a packed `vmlinux`: one page of headers, then the contents of the segments, each from the
//! next page boundary on, and nothing after them.

use crate::{
    launch_area::{LAUNCH_AREA_END, PAGE_BYTES, STAGE0},
    manifest::{ReadError, u32_at},
};
use core::ops::Range;

/// Most segments; Linux has four.
pub const SEGMENTS_MAX: usize = 8;
/// Bytes of an encoded load map.
pub const LOAD_MAP_BYTES: usize = HEADER_BYTES + SEGMENTS_MAX * SEGMENT_BYTES;
/// Bytes of headers before the first segment in the kernel file.
pub const KERNEL_HEADER_BYTES: u64 = PAGE_BYTES as u64;

/// Kernels are loaded above the first MiB, where stage0 and Linux have their tables.
pub const KERNEL_START: u64 = 1 << 20;
/// Kernels and initramfs end below the devices.
pub const LOW_RAM_MAX: u64 = 3 << 30;

const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;
const SEGMENT_BYTES: usize = 24;
/// Longest kernel or initramfs: both and the host page fit in a GiB of staging.
const FILE_MAX: u64 = 511 << 20;

/// A piece of the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Its address, a page's.
    pub address: u64,
    /// Bytes in the kernel file.
    pub bytes: u64,
    /// Bytes in memory; zeros follow those of the file.
    pub memory: u64,
}

impl Segment {
    /// The pages that it takes in memory.
    pub fn pages(&self) -> Range<u64> {
        self.address..(self.address + self.memory).next_multiple_of(PAGE_BYTES as u64)
    }
}

/// What stage0 loads; only a map within limits can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadMap {
    /// In the order of addresses and of the file; those after the first `count` are zeros.
    segments: [Segment; SEGMENTS_MAX],
    count: usize,
    entry: u64,
    initrd_bytes: u64,
}

/// Why a kernel cannot be loaded by stage0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadMapError {
    /// No segment, or more than [`SEGMENTS_MAX`].
    Segments(usize),
    /// A segment is not at a page's address, is empty, or has more bytes in the file than in memory.
    Segment(u64),
    /// A segment is below [`KERNEL_START`], above [`LOW_RAM_MAX`], in the launch area, or not after the one before it.
    Place(u64),
    /// The entry is in no segment's file bytes.
    Entry(u64),
    /// Kernel or initramfs are longer than 511 MiB.
    Length(u64),
}

impl core::fmt::Display for LoadMapError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Segments(count) => write!(f, "the kernel has {count} segments; 1 to {SEGMENTS_MAX} are possible"),
            Self::Segment(address) => write!(
                f,
                "the kernel's segment at {address:#x} is empty, not at a page's address, or longer in the file than in memory"
            ),
            Self::Place(address) => write!(
                f,
                "the kernel's segment at {address:#x} is not after the one before it, or not between 1 MiB and 3 GiB outside of stage0"
            ),
            Self::Entry(address) => write!(f, "the kernel's entry point {address:#x} is in none of its segments"),
            Self::Length(bytes) => write!(f, "the kernel or initramfs has {bytes} bytes; {FILE_MAX} are possible"),
        }
    }
}

impl core::error::Error for LoadMapError {}

impl LoadMap {
    /// A kernel of one byte at [`KERNEL_START`] and no initramfs, for plans whose kernel does not matter.
    pub const SMALLEST: Self = {
        let mut segments = [Segment {
            address: 0,
            bytes: 0,
            memory: 0,
        }; SEGMENTS_MAX];
        segments[0] = Segment {
            address: KERNEL_START,
            bytes: 1,
            memory: 1,
        };
        Self {
            segments,
            count: 1,
            entry: KERNEL_START,
            initrd_bytes: 0,
        }
    };

    /// A map of the segments in the order of their addresses, which must be their order in the file too.
    pub fn new(segments: &[Segment], entry: u64, initrd_bytes: u64) -> Result<Self, LoadMapError> {
        let count = segments.len();
        let mut all = [Segment::default(); SEGMENTS_MAX];
        match all.get_mut(..count) {
            Some(used) if count > 0 => used.copy_from_slice(segments),
            _ => return Err(LoadMapError::Segments(count)),
        }
        let (mut free, mut in_file, mut has_entry) = (KERNEL_START, KERNEL_HEADER_BYTES, false);
        for segment in segments {
            let Segment { address, bytes, memory } = *segment;
            if !address.is_multiple_of(PAGE_BYTES as u64) || memory == 0 || bytes > memory {
                return Err(LoadMapError::Segment(address));
            }
            let fits = address >= free && address < LOW_RAM_MAX && memory <= LOW_RAM_MAX - address;
            if !fits || (address < LAUNCH_AREA_END && segment.pages().end > STAGE0) {
                return Err(LoadMapError::Place(address));
            }
            free = segment.pages().end;
            in_file += bytes.next_multiple_of(PAGE_BYTES as u64);
            has_entry |= (address..address + bytes).contains(&entry);
        }
        if !has_entry {
            return Err(LoadMapError::Entry(entry));
        }
        if let Some(&long) = [in_file, initrd_bytes].iter().find(|&&bytes| bytes > FILE_MAX) {
            return Err(LoadMapError::Length(long));
        }
        Ok(Self {
            segments: all,
            count,
            entry,
            initrd_bytes,
        })
    }

    /// The segments.
    pub fn segments(&self) -> &[Segment] {
        self.segments.get(..self.count).unwrap_or_default()
    }

    /// First instruction of the kernel.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Length of the initramfs; 0 without one.
    pub fn initrd_bytes(&self) -> u64 {
        self.initrd_bytes
    }

    /// First address after the kernel.
    pub fn kernel_end(&self) -> u64 {
        self.segments().last().map_or(KERNEL_START, |segment| segment.pages().end)
    }

    /// Length of the kernel file.
    pub fn kernel_bytes(&self) -> u64 {
        self.segments().iter().fold(KERNEL_HEADER_BYTES, |end, segment| {
            end.next_multiple_of(PAGE_BYTES as u64) + segment.bytes
        })
    }

    /// The layout: version u32, count u32, entry u64, initrd length u64, segments of address, bytes in the file, bytes in
    /// memory (u64 each), zeros; little endian.
    pub fn to_bytes(&self) -> [u8; LOAD_MAP_BYTES] {
        let mut b = [0; LOAD_MAP_BYTES];
        b[..4].copy_from_slice(&VERSION.to_le_bytes());
        b[4..8].copy_from_slice(&(self.count as u32).to_le_bytes());
        b[8..16].copy_from_slice(&self.entry.to_le_bytes());
        b[16..24].copy_from_slice(&self.initrd_bytes.to_le_bytes());
        for (bytes, segment) in b[HEADER_BYTES..].chunks_exact_mut(SEGMENT_BYTES).zip(&self.segments) {
            bytes[..8].copy_from_slice(&segment.address.to_le_bytes());
            bytes[8..16].copy_from_slice(&segment.bytes.to_le_bytes());
            bytes[16..].copy_from_slice(&segment.memory.to_le_bytes());
        }
        b
    }

    /// Reads the layout of [`LoadMap::to_bytes`], and nothing else.
    pub fn from_bytes(b: &[u8; LOAD_MAP_BYTES]) -> Result<Self, ReadError> {
        let version = u32_at(b, 0);
        if version != VERSION {
            return Err(ReadError::Version(version));
        }
        let mut segments = [Segment::default(); SEGMENTS_MAX];
        for (bytes, segment) in b[HEADER_BYTES..].chunks_exact(SEGMENT_BYTES).zip(&mut segments) {
            *segment = Segment {
                address: u64_at(bytes, 0),
                bytes: u64_at(bytes, 8),
                memory: u64_at(bytes, 16),
            };
        }
        let count = (u32_at(b, 4) as usize).min(SEGMENTS_MAX + 1);
        let used = segments.get(..count).ok_or(ReadError::LoadMap)?;
        let map = Self::new(used, u64_at(b, 8), u64_at(b, 16)).map_err(|_| ReadError::LoadMap)?;
        if map.to_bytes() != *b {
            return Err(ReadError::Reserved);
        }
        Ok(map)
    }
}

pub(crate) fn u64_at(b: &[u8], at: usize) -> u64 {
    let mut le = [0; 8];
    le.copy_from_slice(&b[at..at + 8]);
    u64::from_le_bytes(le)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEGMENTS: [Segment; 2] = [
        Segment {
            address: 16 << 20,
            bytes: 5000,
            memory: 5000,
        },
        Segment {
            address: 20 << 20,
            bytes: 100,
            memory: 9000,
        },
    ];

    #[test]
    fn the_file_is_a_page_of_headers_and_the_segments_from_page_boundaries() {
        let map = LoadMap::new(&SEGMENTS, 16 << 20, 7).unwrap();
        assert_eq!(map.kernel_bytes(), 4096 + 8192 + 100);
        assert_eq!(map.kernel_end(), (20 << 20) + 12288);
        assert_eq!(map.segments(), SEGMENTS);
    }

    #[test]
    fn the_smallest_map_is_within_limits() {
        let smallest = LoadMap::SMALLEST;
        assert_eq!(
            LoadMap::new(smallest.segments(), smallest.entry(), smallest.initrd_bytes()),
            Ok(smallest)
        );
    }

    #[test]
    fn each_map_that_cannot_be_loaded_has_its_error() {
        let map = |change: fn(&mut [Segment; 2])| {
            let mut segments = SEGMENTS;
            change(&mut segments);
            LoadMap::new(&segments, 16 << 20, 7).map(|_| ())
        };
        assert_eq!(map(|_| ()), Ok(()));
        assert_eq!(LoadMap::new(&[], 0, 0), Err(LoadMapError::Segments(0)));
        assert_eq!(LoadMap::new(&[SEGMENTS[0]; 9], 0, 0), Err(LoadMapError::Segments(9)));
        assert_eq!(map(|s| s[1].address += 1), Err(LoadMapError::Segment((20 << 20) + 1)));
        assert_eq!(map(|s| s[1].memory = 99), Err(LoadMapError::Segment(20 << 20)));
        assert_eq!(map(|s| s[1].memory = u64::MAX), Err(LoadMapError::Place(20 << 20)));
        assert_eq!(map(|s| (s[1].bytes, s[1].memory) = (0, 0)), Err(LoadMapError::Segment(20 << 20)));
        assert_eq!(
            map(|s| s[1].address = (16 << 20) + 4096),
            Err(LoadMapError::Place((16 << 20) + 4096))
        );
        assert_eq!(map(|s| s[0].address = 0xf_f000), Err(LoadMapError::Place(0xf_f000)));
        assert_eq!(
            map(|s| s[0].address = LAUNCH_AREA_END - 4096),
            Err(LoadMapError::Place(LAUNCH_AREA_END - 4096))
        );
        assert_eq!(map(|s| s[0].address = STAGE0 - 4096), Err(LoadMapError::Place(STAGE0 - 4096)));
        assert_eq!(
            map(|s| s[1].address = LOW_RAM_MAX - 4096),
            Err(LoadMapError::Place(LOW_RAM_MAX - 4096))
        );
        assert_eq!(
            map(|s| s[1].address = 0xffff_ffff_ffff_f000),
            Err(LoadMapError::Place(0xffff_ffff_ffff_f000))
        );
        assert_eq!(
            map(|s| (s[1].bytes, s[1].memory) = (1 << 29, 1 << 29)),
            Err(LoadMapError::Length((1 << 29) + 3 * 4096))
        );
        assert_eq!(
            LoadMap::new(&SEGMENTS, (16 << 20) + 5000, 7),
            Err(LoadMapError::Entry((16 << 20) + 5000))
        );
        assert_eq!(LoadMap::new(&SEGMENTS, 16 << 20, 1 << 30), Err(LoadMapError::Length(1 << 30)));
    }

    proptest! {
        /// What is read writes the same bytes, whatever the bytes are.
        #[test]
        fn a_changed_byte_is_refused_or_seen(at in 0..LOAD_MAP_BYTES, value: u8) {
            let mut bytes = LoadMap::new(&SEGMENTS, 16 << 20, 7).unwrap().to_bytes();
            bytes[at] = value;
            if let Ok(map) = LoadMap::from_bytes(&bytes) {
                prop_assert_eq!(map.to_bytes(), bytes);
            }
        }

        #[test]
        fn what_is_written_is_read(start in 4096u64..500_000, bytes in 1u64..1 << 20, more in 0u64..1 << 20, initrd in 0u64..=FILE_MAX) {
            let segment = Segment { address: start * 4096, bytes, memory: bytes + more };
            let map = LoadMap::new(&[segment], start * 4096, initrd).unwrap();
            prop_assert_eq!(LoadMap::from_bytes(&map.to_bytes()), Ok(map));
        }
    }
}
