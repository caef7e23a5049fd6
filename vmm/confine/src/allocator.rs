//! The C library's allocator, kept from a system call that no filter allows.
#![expect(unsafe_code, reason = "settings of the C library")]

use libc::c_int;

/// Allocations from this size are mapped by themselves, in bytes, and given back when they are freed. The library finds such a size by
/// itself, up to 32 MiB, unless one of its thresholds is set.
const MAPPED: c_int = 4 << 20;

/// Makes the allocator keep what is freed at the end of a thread's heap, which has 64 MiB at most. Before it gives such memory back for
/// the first time, glibc opens `/proc/sys/vm/overcommit_memory` (`sysdeps/unix/sysv/linux/malloc-sysdep.h`, `check_may_shrink_heap`):
/// under a filter the process would be killed, for work that is no fault of anybody's.
pub fn keep_freed_memory() {
    // SAFETY: mallopt(3) takes two numbers, and returns 0 and changes nothing where it does not know them.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, c_int::MAX);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED);
    }
}
