//! Guest memory: allocated once, in huge pages where the host has them, filled from the launch plan and from files.
#![expect(unsafe_code, reason = "mmap, madvise and pread take raw pointers to guest memory")]

use boot_manifest::launch_area::STAGING;
use std::{fs::File, io, os::fd::AsRawFd, sync::Arc};
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap, MmapRegion, mmap::FromRangesError,
};
use vm_spec::{
    MemoryMib, Page,
    layout::{GpaRange, PAGE_BYTES, ram_ranges},
};

/// Guest memory as every part of the VMM sees it; clones share the mappings.
pub type Memory = GuestMemoryMmap<()>;

/// Most bytes per `pread` (Linux's `MAX_RW_COUNT` is a little below 2 GiB).
const READ_MAX_BYTES: usize = 1 << 30;
/// A huge page. KVM maps one as such only if guest and host address have the same offset in it; guest addresses of RAM start at
/// a multiple.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Why guest memory could not be allocated or filled.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// mmap failed.
    #[error("cannot allocate {mib} MiB of guest memory; free memory on the host or give the guest less", mib = .0.get())]
    Allocate(MemoryMib, #[source] FromRangesError),
    /// mmap failed.
    #[error("cannot reserve {mib} MiB of address space for the guest's memory", mib = .0.get())]
    Reserve(MemoryMib, #[source] io::Error),
    /// The range is not RAM of this guest.
    #[error("the guest has no memory from {:#x} to {:#x}", .0.start, .0.end())]
    OutsideRam(GpaRange),
    /// madvise failed.
    #[error("cannot give the memory from {:#x} to {:#x} back to the host", .0.start, .0.end())]
    Discard(GpaRange, #[source] io::Error),
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

/// What the host is asked to back memory with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Huge ones, where it has them.
    Huge,
    /// Small ones only: a page that is touched costs no more than itself.
    Small,
}

/// Anonymous memory for all of [`ram_ranges`], which stays mapped until the process ends.
pub fn allocate(size: MemoryMib, pages: Pages) -> Result<Memory, MemoryError> {
    let regions = ram_ranges(size).into_iter().map(|range| region(size, range, pages));
    let regions = regions.collect::<Result<Vec<_>, _>>()?;
    Memory::from_regions(regions).map_err(|e| MemoryError::Allocate(size, e.into()))
}

/// One range, at a multiple of [`HUGE_PAGE_BYTES`].
fn region(size: MemoryMib, range: GpaRange, pages: Pages) -> Result<GuestRegionMmap, MemoryError> {
    let (bytes, access) = (range.length as usize, libc::PROT_READ | libc::PROT_WRITE);
    let flags = libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE;
    let reserved = bytes + HUGE_PAGE_BYTES;
    // SAFETY: a new anonymous mapping at an address that the kernel chooses.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), reserved, access, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        return Err(MemoryError::Reserve(size, io::Error::last_os_error()));
    }
    let before = address.cast::<u8>().align_offset(HUGE_PAGE_BYTES);
    let start = address.cast::<u8>().wrapping_add(before);
    let advice = match pages {
        Pages::Huge => libc::MADV_HUGEPAGE,
        Pages::Small => libc::MADV_NOHUGEPAGE,
    };
    // SAFETY: `before` is less than HUGE_PAGE_BYTES, so these are the two ends of the mapping that was just made, around `bytes`
    // bytes of it; nothing refers to them. A failure leaves address space that is never touched. Advice changes no content, and
    // a kernel without huge pages refuses it.
    unsafe {
        libc::munmap(address, before);
        libc::munmap(start.wrapping_add(bytes).cast(), HUGE_PAGE_BYTES - before);
        libc::madvise(start.cast(), bytes, advice);
    }
    // SAFETY: `bytes` bytes from `start` are mapped, and nothing unmaps them.
    let mapping = unsafe { MmapRegion::build_raw(start, bytes, access, flags) };
    let mapping = mapping.map_err(|e| MemoryError::Allocate(size, e.into()))?;
    GuestRegionMmap::new(mapping, GuestAddress(range.start)).ok_or(MemoryError::Allocate(size, FromRangesError::InvalidGuestRegion))
}

/// The pages of files, each of which backs a range of RAM, as memory that is shared with whoever else has the file.
pub fn of_files(size: MemoryMib, files: &[(GpaRange, &File)]) -> Result<Memory, MemoryError> {
    let regions = files.iter().map(|(range, file)| {
        let (bytes, access) = (range.length as usize, libc::PROT_READ | libc::PROT_WRITE);
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address that the kernel chooses; the descriptor is open while `file` is borrowed.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, flags, file.as_raw_fd(), 0) };
        if address == libc::MAP_FAILED {
            return Err(MemoryError::Reserve(size, io::Error::last_os_error()));
        }
        // SAFETY: `bytes` bytes from `address` have just been mapped, and nothing unmaps them.
        let mapping = unsafe { MmapRegion::build_raw(address.cast(), bytes, access, flags) };
        let mapping = mapping.map_err(|e| MemoryError::Allocate(size, e.into()))?;
        GuestRegionMmap::new(mapping, GuestAddress(range.start)).ok_or(MemoryError::Allocate(size, FromRangesError::InvalidGuestRegion))
    });
    let regions = regions.collect::<Result<Vec<_>, _>>()?;
    Memory::from_regions(regions).map_err(|e| MemoryError::Allocate(size, e.into()))
}

/// Adds `bytes` of staging memory for stage0, if any.
pub fn with_staging(memory: Memory, size: MemoryMib, bytes: u64) -> Result<Memory, MemoryError> {
    if bytes == 0 {
        return Ok(memory);
    }
    let range = GpaRange {
        start: STAGING,
        length: bytes.next_multiple_of(PAGE_BYTES),
    };
    let with_staging = memory.insert_region(Arc::new(region(size, range, Pages::Huge)?));
    with_staging.map_err(|e| MemoryError::Allocate(size, e.into()))
}

/// Gives the pages of `range` back to the host; they read as zeros from then on.
pub fn discard(memory: &Memory, range: GpaRange) -> Result<(), MemoryError> {
    for slice in memory.get_slices(GuestAddress(range.start), range.length as usize) {
        let slice = slice.map_err(|_| MemoryError::OutsideRam(range))?;
        let guard = slice.ptr_guard_mut();
        // SAFETY: the guard keeps `slice.len()` bytes of guest memory mapped, and no Rust reference to guest memory exists: its
        // contents may change at any time.
        let done = unsafe { libc::madvise(guard.as_ptr().cast(), slice.len(), libc::MADV_DONTNEED) };
        if done != 0 {
            return Err(MemoryError::Discard(range, io::Error::last_os_error()));
        }
    }
    Ok(())
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
        let memory = allocate(MemoryMib::try_from(64).unwrap(), Pages::Huge).unwrap();
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
    fn a_discarded_page_is_zero_and_its_neighbours_are_not() {
        let memory = allocate(MemoryMib::try_from(64).unwrap(), Pages::Huge).unwrap();
        let page = |n: u64| GuestAddress(n * PAGE_BYTES);
        for n in 0..4 {
            memory.write_obj(n + 1, page(n)).unwrap();
        }
        let range = |start, length| GpaRange { start, length };
        discard(&memory, range(PAGE_BYTES, 2 * PAGE_BYTES)).unwrap();
        assert_eq!([0, 1, 2, 3].map(|n| memory.read_obj::<u64>(page(n)).unwrap()), [1, 0, 0, 4]);
        assert!(matches!(
            discard(&memory, range(64 << 20, PAGE_BYTES)),
            Err(MemoryError::OutsideRam(_))
        ));
    }

    #[test]
    fn memory_of_files_is_the_files() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 << 20).unwrap();
        let size = MemoryMib::try_from(64).unwrap();
        let memory = of_files(size, &[(ram_ranges(size)[0], &file)]).unwrap();
        memory.write_slice(b"shared", GuestAddress(0x1000)).unwrap();
        let mut seen = [0; 6];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut seen, 0x1000).unwrap();
        assert_eq!(&seen, b"shared");
    }

    #[test]
    fn every_range_is_aligned_and_asks_for_huge_pages() {
        let memory = allocate(MemoryMib::try_from(4096).unwrap(), Pages::Huge).unwrap();
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut ranges = 0;
        for (range, host) in mappings(&memory) {
            ranges += 1;
            assert_eq!((range.start | host) % HUGE_PAGE_BYTES as u64, 0, "{range:?} at {host:#x}");
            // Neighbours with the same flags are one entry.
            let holds = |line: &str| {
                let bounds = line.split_once(' ').and_then(|(bounds, _)| bounds.split_once('-'));
                let [start, end] = bounds
                    .map(|(a, b)| [a, b].map(|n| u64::from_str_radix(n, 16).unwrap_or_default()))
                    .unwrap_or_default();
                start <= host && host + range.length <= end
            };
            let mut entry = smaps.lines().skip_while(|line| !holds(line));
            let flags = entry.find(|line| line.starts_with("VmFlags:")).unwrap();
            assert!(flags.split(' ').any(|flag| flag == "hg"), "{flags}");
        }
        assert_eq!(ranges, 2);
    }

    #[test]
    fn short_files_and_ranges_outside_ram_are_errors() {
        let memory = allocate(MemoryMib::try_from(64).unwrap(), Pages::Huge).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let read = |start, length, offset| read_file(&memory, GpaRange { start, length }, &file, offset);
        assert!(matches!(read(0, 11, 0), Err(MemoryError::Read { .. })));
        assert!(matches!(read(0, 1, u64::MAX), Err(MemoryError::Read { .. })));
        assert!(matches!(read((64 << 20) - 1, 2, 0), Err(MemoryError::OutsideRam(_))));
        assert!(matches!(read(u64::MAX, 1, 0), Err(MemoryError::OutsideRam(_))));
    }
}
