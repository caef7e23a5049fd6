//! The ELF kernel (`vmlinux`): its program headers, and where stage0 loads it.

use crate::{
    launch_plan::Kernel,
    layout::{GpaRange, PAGE_BYTES},
};
use boot_manifest::{KERNEL_HEADER_BYTES, LoadMap, LoadMapError, Segment};
use std::io;

/// Most program headers; Linux has five.
const PROGRAM_HEADERS_MAX: u16 = 64;
/// Highest physical address of a segment: above any guest's memory, far below overflow.
const ADDRESS_MAX: u64 = 1 << 48;

const EHDR_BYTES: usize = 64;
const PHDR_BYTES: usize = 56;
const ELFCLASS64: u8 = 2;
const ELFDATA2LSB: u8 = 1;
const ET_EXEC: u16 = 2;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;

/// Why a kernel file cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ElfError {
    /// The file could not be read.
    #[error("cannot read the kernel file's headers")]
    Read(#[source] io::Error),
    /// Not a `vmlinux`, perhaps a bzImage.
    #[error("the kernel is not an x86-64 ELF executable; give the uncompressed `vmlinux`, not a bzImage")]
    NotVmlinux,
    /// The headers are inconsistent.
    #[error("the kernel's ELF headers are invalid: {0}")]
    Headers(&'static str),
    /// Its segments do not follow each other from page to page, as those of a packed kernel do.
    #[error("the kernel is not packed as `casemate image build` packs it, so stage0 cannot load it")]
    NotPacked,
    /// stage0 cannot load it.
    #[error("stage0 cannot load the kernel")]
    LoadMap(#[source] LoadMapError),
}

/// A segment: file bytes, followed by zeros, at a physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElfSegment {
    /// Offset in the file.
    pub offset: u64,
    /// Bytes in the file.
    pub file_bytes: u64,
    /// Memory.
    pub memory: GpaRange,
}

/// The headers of an ELF kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElfHeaders {
    /// What is loaded, in the order of the file's headers; at least one.
    pub segments: Vec<ElfSegment>,
    /// What the launch plan without stage0 needs.
    pub layout: Kernel,
}

impl ElfHeaders {
    /// Reads headers with `read`, which fills a buffer from an offset of the file.
    pub fn read(mut read: impl FnMut(&mut [u8], u64) -> io::Result<()>) -> Result<Self, ElfError> {
        let mut header = [0; EHDR_BYTES];
        read(&mut header, 0).map_err(ElfError::Read)?;
        let kind = (u16_at(&header, 16), u16_at(&header, 18));
        if header[..4] != *b"\x7fELF" || header[4..6] != [ELFCLASS64, ELFDATA2LSB] || kind != (ET_EXEC, EM_X86_64) {
            return Err(ElfError::NotVmlinux);
        }
        let (entry, table) = (u64_at(&header, 24), u64_at(&header, 32));
        let (size, count) = (u16_at(&header, 54), u16_at(&header, 56));
        if usize::from(size) != PHDR_BYTES || count == 0 || count > PROGRAM_HEADERS_MAX {
            return Err(ElfError::Headers("program header table"));
        }
        let mut table_bytes = vec![0; PHDR_BYTES * usize::from(count)];
        read(&mut table_bytes, table).map_err(ElfError::Read)?;
        let segments: Vec<_> = table_bytes
            .chunks_exact(PHDR_BYTES)
            .filter(|header| u32_at(header, 0) == PT_LOAD)
            .map(segment)
            .filter(|s| !matches!(s, Ok(s) if s.memory.length == 0))
            .collect::<Result<_, _>>()?;
        let start = segments
            .iter()
            .map(|s| s.memory.start)
            .min()
            .ok_or(ElfError::Headers("no segment to load"))?;
        let end = segments.iter().map(|s| s.memory.end()).max().unwrap_or(start);
        let occupies = GpaRange {
            start,
            length: end - start,
        };
        Ok(Self {
            segments,
            layout: Kernel { occupies, entry },
        })
    }

    /// How stage0 loads the packed kernel of `file_bytes` bytes, and an initramfs of `initrd_bytes`.
    pub fn load_map(&self, file_bytes: u64, initrd_bytes: u64) -> Result<LoadMap, ElfError> {
        let mut end = KERNEL_HEADER_BYTES;
        let mut segments = Vec::with_capacity(self.segments.len());
        for segment in &self.segments {
            let starts = end.next_multiple_of(PAGE_BYTES);
            if segment.offset != starts {
                return Err(ElfError::NotPacked);
            }
            end = starts.checked_add(segment.file_bytes).ok_or(ElfError::NotPacked)?;
            if end > file_bytes {
                return Err(ElfError::NotPacked);
            }
            segments.push(Segment {
                address: segment.memory.start,
                bytes: segment.file_bytes,
                memory: segment.memory.length,
            });
        }
        if end != file_bytes {
            return Err(ElfError::NotPacked);
        }
        LoadMap::new(&segments, self.layout.entry, initrd_bytes).map_err(ElfError::LoadMap)
    }
}

fn segment(header: &[u8]) -> Result<ElfSegment, ElfError> {
    let (offset, start) = (u64_at(header, 8), u64_at(header, 24));
    let (file_bytes, length) = (u64_at(header, 32), u64_at(header, 40));
    if file_bytes > length {
        return Err(ElfError::Headers("a segment is larger in the file than in memory"));
    }
    if start.checked_add(length).is_none_or(|end| end > ADDRESS_MAX) {
        return Err(ElfError::Headers("a segment's physical address"));
    }
    Ok(ElfSegment {
        offset,
        file_bytes,
        memory: GpaRange { start, length },
    })
}

fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([b[at], b[at + 1]])
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from(u16_at(b, at)) | u32::from(u16_at(b, at + 2)) << 16
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from(u32_at(b, at)) | u64::from(u32_at(b, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CODE: u64 = 0x100_0000;

    /// A packed file with segments of (address, bytes in the file, bytes in memory).
    fn elf(segments: &[(u64, usize, u64)]) -> Vec<u8> {
        let mut b = vec![0; 0x1000];
        b[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
        b[16..20].copy_from_slice(&[2, 0, 62, 0]);
        b[24..32].copy_from_slice(&CODE.to_le_bytes());
        (b[32], b[54], b[56]) = (64, 56, segments.len() as u8);
        for (n, (address, bytes, memory)) in segments.iter().enumerate() {
            let at = 64 + n * 56;
            b.resize(b.len().next_multiple_of(4096), 0);
            b[at] = 1;
            for (place, value) in [(8, b.len() as u64), (24, *address), (32, *bytes as u64), (40, *memory)] {
                b[at + place..at + place + 8].copy_from_slice(&value.to_le_bytes());
            }
            b.resize(b.len() + bytes, 0xcc);
        }
        b
    }

    fn read(bytes: &[u8]) -> Result<ElfHeaders, ElfError> {
        ElfHeaders::read(|buffer, offset| {
            let end = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)?.get(..buffer.len()));
            buffer.copy_from_slice(end.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    fn map(bytes: &[u8]) -> Result<LoadMap, ElfError> {
        read(bytes)?.load_map(bytes.len() as u64, 5)
    }

    #[test]
    fn a_packed_kernel_has_a_load_map() {
        let good = elf(&[(CODE, 5000, 5000), (CODE + (2 << 20), 3, 70_000)]);
        let map = map(&good).unwrap();
        assert_eq!((map.entry(), map.initrd_bytes(), map.kernel_bytes()), (CODE, 5, good.len() as u64));
        let [first, second] = map.segments() else { panic!("{map:?}") };
        assert_eq!((first.address, first.bytes, first.memory), (CODE, 5000, 5000));
        assert_eq!((second.address, second.bytes, second.memory), (CODE + (2 << 20), 3, 70_000));
    }

    #[test]
    fn each_kernel_that_stage0_cannot_load_has_its_error() {
        let good = elf(&[(CODE, 5000, 5000), (CODE + (2 << 20), 3, 70_000)]);
        assert!(matches!(map(&[&good[..], &[0]].concat()), Err(ElfError::NotPacked)));
        assert!(matches!(map(&good[..good.len() - 1]), Err(ElfError::NotPacked)));
        let mut moved = good.clone();
        moved[72 + 1] = 0x20;
        assert!(matches!(map(&moved), Err(ElfError::NotPacked)));
        let swapped = elf(&[(CODE + (2 << 20), 5000, 5000), (CODE, 3, 70_000)]);
        assert!(matches!(map(&swapped), Err(ElfError::LoadMap(LoadMapError::Place(CODE)))));
    }

    #[test]
    fn each_invalid_header_has_its_error() {
        let damaged = |at: usize, value: &[u8]| {
            let mut b = elf(&[(CODE, 4, 0x5000)]);
            b[at..at + value.len()].copy_from_slice(value);
            read(&b).unwrap_err()
        };
        assert!(matches!(read(b"short"), Err(ElfError::Read(_))));
        assert!(matches!(damaged(0, b"MZ"), ElfError::NotVmlinux));
        assert!(matches!(damaged(18, &[3]), ElfError::NotVmlinux));
        assert!(matches!(damaged(54, &[57]), ElfError::Headers("program header table")));
        assert!(matches!(damaged(57, &[1]), ElfError::Headers("program header table")));
        assert!(matches!(damaged(32, &[0xff; 8]), ElfError::Read(_)));
        assert!(matches!(damaged(64, &[2]), ElfError::Headers("no segment to load")));
        assert!(matches!(damaged(88, &[0xff; 8]), ElfError::Headers("a segment's physical address")));
        assert!(matches!(damaged(96, &[0, 0, 1]), ElfError::Headers(_)));
    }

    proptest! {
        #[test]
        fn no_header_panics(damage in prop::collection::vec((0usize..120, any::<u8>()), 0..20), file_bytes: u64, initrd_bytes: u64) {
            let mut bytes = elf(&[(CODE, 4, 0x5000)]);
            damage.into_iter().for_each(|(at, value)| bytes[at] = value);
            if let Ok(headers) = read(&bytes) {
                let _ = headers.load_map(file_bytes, initrd_bytes);
            }
        }
    }
}
