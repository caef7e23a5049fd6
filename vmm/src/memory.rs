//! Guest memory: allocated once, filled from the launch plan and from files.
#![expect(unsafe_code, reason = "pread takes a raw pointer to guest memory")]

use std::{fs::File, io, os::fd::AsRawFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use vm_spec::{
    MemoryMib, Page,
    layout::{GpaRange, ram_ranges},
};

/// Guest memory as every part of the VMM sees it; clones share the mappings.
pub type Memory = GuestMemoryMmap<()>;

/// Most bytes per `pread` (Linux's `MAX_RW_COUNT` is a little below 2 GiB).
const READ_MAX_BYTES: usize = 1 << 30;

/// Why guest memory could not be allocated or filled.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// mmap failed.
    #[error("cannot allocate {mib} MiB of guest memory; free memory on the host or give the guest less", mib = .0.get())]
    Allocate(MemoryMib, #[source] vm_memory::mmap::FromRangesError),
    /// The range is not RAM of this guest.
    #[error("the guest has no memory from {:#x} to {:#x}", .0.start, .0.end())]
    OutsideRam(GpaRange),
    /// The file could not be read.
    #[error("cannot read {} bytes of the file at offset {offset}", .range.length)]
    Read {
        /// Destination.
        range: GpaRange,
        /// Offset in the file.
        offset: u64,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

/// Anonymous memory for all of [`ram_ranges`].
pub fn allocate(size: MemoryMib) -> Result<Memory, MemoryError> {
    let ranges: Vec<_> = ram_ranges(size)
        .iter()
        .map(|r| (GuestAddress(r.start), r.length as usize))
        .collect();
    Memory::from_ranges(&ranges).map_err(|e| MemoryError::Allocate(size, e))
}

/// Guest range and host address of each mapping, for KVM.
pub fn mappings(memory: &Memory) -> impl Iterator<Item = (GpaRange, u64)> {
    memory.iter().map(|region| {
        (
            GpaRange {
                start: region.start_addr().0,
                length: region.len(),
            },
            region.as_ptr() as u64,
        )
    })
}

/// Writes the pages of a launch plan.
pub fn write_pages(memory: &Memory, pages: &[Page]) -> Result<(), MemoryError> {
    for page in pages {
        memory.write_slice(&page.bytes[..], GuestAddress(page.gpa)).map_err(|_| {
            MemoryError::OutsideRam(GpaRange {
                start: page.gpa,
                length: page.bytes.len() as u64,
            })
        })?;
    }
    Ok(())
}

/// Fills `range` from `file` at `offset`; an end of file before that is an error.
pub fn read_file(memory: &Memory, range: GpaRange, file: &File, offset: u64) -> Result<(), MemoryError> {
    let failed = |source| MemoryError::Read { range, offset, source };
    let mut at = libc::off_t::try_from(offset).map_err(|_| failed(io::ErrorKind::InvalidInput.into()))?;
    for slice in memory.get_slices(GuestAddress(range.start), range.length as usize) {
        let slice = slice.map_err(|_| MemoryError::OutsideRam(range))?;
        let mut done = 0;
        while done < slice.len() {
            let rest = slice.offset(done).map_err(|_| MemoryError::OutsideRam(range))?;
            let guard = rest.ptr_guard_mut();
            let bytes = rest.len().min(READ_MAX_BYTES);
            // SAFETY: the guard keeps `rest.len()` writable bytes of guest memory mapped, `bytes` is no more than that,
            // and no Rust reference to guest memory exists; the descriptor is open while `file` is borrowed.
            let n = unsafe { libc::pread(file.as_raw_fd(), guard.as_ptr().cast(), bytes, at) };
            match n {
                0 => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
                1.. => {
                    done += n as usize;
                    at += n as libc::off_t;
                }
                _ => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(failed(error));
                    }
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_is_read_to_its_range_only() {
        let memory = allocate(MemoryMib::try_from(64).unwrap()).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        read_file(
            &memory,
            GpaRange {
                start: 0x10_0001,
                length: 4,
            },
            &file,
            3,
        )
        .unwrap();
        let mut seen = [0xff; 6];
        memory.read_slice(&mut seen, GuestAddress(0x10_0000)).unwrap();
        assert_eq!(&seen, b"\x003456\0");
    }

    #[test]
    fn short_files_and_ranges_outside_ram_are_errors() {
        let memory = allocate(MemoryMib::try_from(64).unwrap()).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let read = |start, length, offset| read_file(&memory, GpaRange { start, length }, &file, offset);
        assert!(matches!(read(0, 11, 0), Err(MemoryError::Read { .. })));
        assert!(matches!(read(0, 1, u64::MAX), Err(MemoryError::Read { .. })));
        assert!(matches!(read((64 << 20) - 1, 2, 0), Err(MemoryError::OutsideRam(_))));
        assert!(matches!(read(u64::MAX, 1, 0), Err(MemoryError::OutsideRam(_))));
    }
}
