//! The ELF kernel (`vmlinux`): reads its segments into guest memory.

use crate::memory::{self, Memory, MemoryError};
use std::{fs::File, os::unix::fs::FileExt};
use vm_spec::{ElfError, ElfHeaders, Kernel, layout::GpaRange};

/// Why a kernel file cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Its headers.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// A segment could not be loaded.
    #[error("cannot load a segment of the kernel")]
    Load(#[source] MemoryError),
}

/// A kernel whose headers are valid.
#[derive(Debug)]
pub struct ElfKernel<'a> {
    file: &'a File,
    headers: ElfHeaders,
}

impl<'a> ElfKernel<'a> {
    /// Reads the headers.
    pub fn open(file: &'a File) -> Result<Self, KernelError> {
        let headers = ElfHeaders::read(|buffer, offset| file.read_exact_at(buffer, offset))?;
        Ok(Self { file, headers })
    }

    /// What the launch plan needs.
    pub fn layout(&self) -> Kernel {
        self.headers.layout
    }

    /// The headers.
    pub fn headers(&self) -> &ElfHeaders {
        &self.headers
    }

    /// Reads the segments into guest memory that is still zeroed.
    pub fn load(&self, memory: &Memory) -> Result<(), KernelError> {
        for segment in &self.headers.segments {
            let range = GpaRange {
                start: segment.memory.start,
                length: segment.file_bytes,
            };
            memory::read_file(memory, range, self.file, segment.offset).map_err(KernelError::Load)?;
        }
        Ok(())
    }
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
        let memory = memory::allocate(MemoryMib::try_from(64).unwrap(), memory::Pages::Huge).unwrap();
        kernel.load(&memory).unwrap();
        let mut seen = [0xff; 6];
        memory.read_slice(&mut seen, GuestAddress(0x10_0000)).unwrap();
        assert_eq!(&seen, b"code\0\0");
    }

    #[test]
    fn a_truncated_segment_fails_to_load() {
        let mut bytes = elf(b"code", 0x5000);
        bytes.pop();
        let file = file(&bytes);
        let memory = memory::allocate(MemoryMib::try_from(64).unwrap(), memory::Pages::Huge).unwrap();
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
            static MEMORY: LazyLock<Memory> = LazyLock::new(|| memory::allocate(MemoryMib::try_from(64).unwrap(), memory::Pages::Huge).unwrap());
            if let Ok(kernel) = ElfKernel::open(&file) {
                let _ = kernel.load(&MEMORY);
            }
        }
    }
}
