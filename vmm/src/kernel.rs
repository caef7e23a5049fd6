//! The ELF kernel (`vmlinux`): parses its program headers and reads its segments into guest memory.

use crate::memory::{self, Memory, MemoryError};
use std::{fs::File, io, os::unix::fs::FileExt};
use vm_spec::{Kernel, layout::GpaRange};

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
pub enum KernelError {
    /// The file could not be read.
    #[error("cannot read the kernel file's headers")]
    Read(#[source] io::Error),
    /// Not a `vmlinux`, perhaps a bzImage.
    #[error("the kernel is not an x86-64 ELF executable; give the uncompressed `vmlinux`, not a bzImage")]
    NotVmlinux,
    /// The headers are inconsistent.
    #[error("the kernel's ELF headers are invalid: {0}")]
    Headers(&'static str),
    /// A segment could not be loaded.
    #[error("cannot load a segment of the kernel")]
    Load(#[source] MemoryError),
}

/// A segment: file bytes, followed by zeros, at a physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    offset: u64,
    file_bytes: u64,
    memory: GpaRange,
}

/// A kernel whose headers are valid.
#[derive(Debug)]
pub struct ElfKernel<'a> {
    file: &'a File,
    segments: Vec<Segment>,
    layout: Kernel,
}

impl<'a> ElfKernel<'a> {
    /// Reads the headers.
    pub fn open(file: &'a File) -> Result<Self, KernelError> {
        let mut header = [0; EHDR_BYTES];
        file.read_exact_at(&mut header, 0).map_err(KernelError::Read)?;
        let kind = (u16_at(&header, 16), u16_at(&header, 18));
        if header[..4] != *b"\x7fELF" || header[4..6] != [ELFCLASS64, ELFDATA2LSB] || kind != (ET_EXEC, EM_X86_64) {
            return Err(KernelError::NotVmlinux);
        }
        let (entry, table) = (u64_at(&header, 24), u64_at(&header, 32));
        let (size, count) = (u16_at(&header, 54), u16_at(&header, 56));
        if usize::from(size) != PHDR_BYTES || count == 0 || count > PROGRAM_HEADERS_MAX {
            return Err(KernelError::Headers("program header table"));
        }
        let mut table_bytes = vec![0; PHDR_BYTES * usize::from(count)];
        file.read_exact_at(&mut table_bytes, table).map_err(KernelError::Read)?;
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
            .ok_or(KernelError::Headers("no segment to load"))?;
        let end = segments.iter().map(|s| s.memory.end()).max().unwrap_or(start);
        let occupies = GpaRange {
            start,
            length: end - start,
        };
        Ok(Self {
            file,
            segments,
            layout: Kernel { occupies, entry },
        })
    }

    /// What the launch plan needs.
    pub fn layout(&self) -> Kernel {
        self.layout
    }

    /// Reads the segments into guest memory that is still zeroed.
    pub fn load(&self, memory: &Memory) -> Result<(), KernelError> {
        for segment in &self.segments {
            let range = GpaRange {
                start: segment.memory.start,
                length: segment.file_bytes,
            };
            memory::read_file(memory, range, self.file, segment.offset).map_err(KernelError::Load)?;
        }
        Ok(())
    }
}

fn segment(header: &[u8]) -> Result<Segment, KernelError> {
    let (offset, start) = (u64_at(header, 8), u64_at(header, 24));
    let (file_bytes, length) = (u64_at(header, 32), u64_at(header, 40));
    if file_bytes > length {
        return Err(KernelError::Headers("a segment is larger in the file than in memory"));
    }
    if start.checked_add(length).is_none_or(|end| end > ADDRESS_MAX) {
        return Err(KernelError::Headers("a segment's physical address"));
    }
    Ok(Segment {
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
    use std::{io::Write, sync::LazyLock};
    use vm_memory::{Bytes, GuestAddress};
    use vm_spec::MemoryMib;

    /// An ELF file with one segment at 1 MiB: `code`, then zeros up to `memory_bytes`.
    fn elf(code: &[u8], memory_bytes: u64) -> Vec<u8> {
        let mut b = vec![0; 0x1000];
        b[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
        b[16..20].copy_from_slice(&[2, 0, 62, 0]);
        b[24..32].copy_from_slice(&0x10_0000u64.to_le_bytes());
        b[32] = 64;
        (b[54], b[56]) = (56, 1);
        b[64] = 1;
        for (at, value) in [(72, 0x1000), (88, 0x10_0000), (96, code.len() as u64), (104, memory_bytes)] {
            b[at..at + 8].copy_from_slice(&u64::to_le_bytes(value));
        }
        b.extend_from_slice(code);
        b
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn segments_are_loaded_at_their_physical_addresses() {
        let file = file(&elf(b"code", 0x5000));
        let kernel = ElfKernel::open(&file).unwrap();
        let occupies = GpaRange {
            start: 0x10_0000,
            length: 0x5000,
        };
        assert_eq!(
            kernel.layout(),
            Kernel {
                occupies,
                entry: 0x10_0000
            }
        );
        let memory = memory::allocate(MemoryMib::try_from(64).unwrap()).unwrap();
        kernel.load(&memory).unwrap();
        let mut seen = [0xff; 6];
        memory.read_slice(&mut seen, GuestAddress(0x10_0000)).unwrap();
        assert_eq!(&seen, b"code\0\0");
    }

    #[test]
    fn each_invalid_header_has_its_error() {
        let damaged = |at: usize, value: &[u8]| {
            let mut b = elf(b"code", 0x5000);
            b[at..at + value.len()].copy_from_slice(value);
            ElfKernel::open(&file(&b)).unwrap_err()
        };
        assert!(matches!(ElfKernel::open(&file(b"short")), Err(KernelError::Read(_))));
        assert!(matches!(damaged(0, b"MZ"), KernelError::NotVmlinux));
        assert!(matches!(damaged(18, &[3]), KernelError::NotVmlinux));
        assert!(matches!(damaged(54, &[57]), KernelError::Headers("program header table")));
        assert!(matches!(damaged(57, &[1]), KernelError::Headers("program header table")));
        assert!(matches!(damaged(32, &[0xff; 8]), KernelError::Read(_)));
        assert!(matches!(damaged(64, &[2]), KernelError::Headers("no segment to load")));
        assert!(matches!(
            damaged(88, &[0xff; 8]),
            KernelError::Headers("a segment's physical address")
        ));
        assert!(matches!(damaged(96, &[0, 0, 1]), KernelError::Headers(_)));
    }

    #[test]
    fn a_truncated_segment_fails_to_load() {
        let mut bytes = elf(b"code", 0x5000);
        bytes.pop();
        let file = file(&bytes);
        let memory = memory::allocate(MemoryMib::try_from(64).unwrap()).unwrap();
        assert!(matches!(ElfKernel::open(&file).unwrap().load(&memory), Err(KernelError::Load(_))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_header_panics(damage in prop::collection::vec((0usize..120, any::<u8>()), 0..20)) {
            let mut bytes = elf(b"code", 0x5000);
            damage.into_iter().for_each(|(at, value)| bytes[at] = value);
            let file = file(&bytes);
            // Guest memory stays mapped.
            static MEMORY: LazyLock<Memory> = LazyLock::new(|| memory::allocate(MemoryMib::try_from(64).unwrap()).unwrap());
            if let Ok(kernel) = ElfKernel::open(&file) {
                let _ = kernel.load(&MEMORY);
            }
        }
    }
}
