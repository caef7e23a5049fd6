//! The C library's allocator, kept from a system call that no filter allows.
#![expect(unsafe_code, reason = "settings of the C library")]

use libc::c_int;

/// Makes the allocator keep what is freed at the end of a thread's heap, which has 64 MiB at most. Before it gives such memory back for
/// the first time, glibc opens `/proc/sys/vm/overcommit_memory` (`sysdeps/unix/sysv/linux/malloc-sysdep.h`, `check_may_shrink_heap`):
/// under a filter the process would be killed, for work that is no fault of anybody's.
///
/// Allocations from `mapped` bytes are mapped by themselves, and given back when they are freed. The library finds such a size by itself,
/// up to 32 MiB, unless one of its thresholds is set.
pub fn keep_freed_memory(mapped: u32) {
    let mapped = c_int::try_from(mapped).unwrap_or(c_int::MAX);
    // SAFETY: mallopt(3) takes two numbers, and returns 0 and changes nothing where it does not know them.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, c_int::MAX);
        libc::mallopt(libc::M_MMAP_THRESHOLD, mapped);
    }
}
