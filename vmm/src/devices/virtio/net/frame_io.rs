//! One frame between the TAP and guest memory, without a copy: its header is the VMM's, so that the guest cannot change it in between.
#![expect(unsafe_code, reason = "readv and writev take raw pointers to guest memory")]

use super::header::{HEADER_BYTES, Header};
use std::{fs::File, io, os::fd::AsRawFd};
use vm_memory::{VolatileSlice, volatile_memory::PtrGuardMut};

/// Most slices of guest memory of a frame; header and spill make it `UIO_MAXIOV`.
pub const SLICES_MAX: usize = 1022;

/// A frame that was read.
#[derive(Debug)]
pub struct Frame {
    /// Its header.
    pub header: Header,
    /// Bytes after the header.
    pub bytes: usize,
    /// There was no room for all of it; the rest is lost.
    pub truncated: bool,
}

/// Reads one frame. Its bytes after the header go to `slices`, at most [`SLICES_MAX`], from byte [`HEADER_BYTES`] of them on, where the
/// caller has room for the header. `None` at the end of file, or for what is shorter than a header.
pub fn read<'s, 'm: 's>(tap: &File, slices: impl Iterator<Item = &'s VolatileSlice<'m>>) -> io::Result<Option<Frame>> {
    let (mut header, mut spill): (Header, [u8; 1]) = ([0; HEADER_BYTES], [0; 1]);
    let guards = guards(slices);
    let mut vectors = vec![vector(&mut header)];
    let (mut skip, mut room) = (HEADER_BYTES, 0);
    for guard in &guards {
        let skipped = skip.min(guard.len());
        skip -= skipped;
        if guard.len() > skipped {
            room += guard.len() - skipped;
            vectors.push(libc::iovec {
                iov_base: guard.as_ptr().wrapping_add(skipped).cast(),
                iov_len: guard.len() - skipped,
            });
        }
    }
    vectors.push(vector(&mut spill));
    // SAFETY: there are at most SLICES_MAX + 2 vectors. The first and the last are local arrays that nothing else uses during the
    // call, each other describes a part of memory that one of `guards` keeps mapped and writable. That is guest memory: no Rust
    // reference to it exists, and its bytes may change at any time by the contract of `VolatileSlice`.
    let count = unsafe { libc::readv(tap.as_raw_fd(), vectors.as_ptr(), vectors.len() as libc::c_int) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
    Ok(count.checked_sub(HEADER_BYTES).map(|bytes| Frame {
        header,
        bytes: bytes.min(room),
        truncated: bytes > room,
    }))
}

/// Writes one frame: `header`, then `slices`, at most [`SLICES_MAX`].
pub fn write<'s, 'm: 's>(tap: &File, mut header: Header, slices: impl Iterator<Item = &'s VolatileSlice<'m>>) -> io::Result<()> {
    let guards = guards(slices);
    let mut vectors = vec![vector(&mut header)];
    vectors.extend(guards.iter().map(|guard| libc::iovec {
        iov_base: guard.as_ptr().cast(),
        iov_len: guard.len(),
    }));
    // SAFETY: there are at most SLICES_MAX + 1 vectors. The first is a local array, each other describes memory that one of `guards`
    // keeps mapped. It is guest memory, whose bytes may change at any time by the contract of `VolatileSlice`.
    let count = unsafe { libc::writev(tap.as_raw_fd(), vectors.as_ptr(), vectors.len() as libc::c_int) };
    usize::try_from(count).map(drop).map_err(|_| io::Error::last_os_error())
}

fn guards<'s, 'm: 's>(slices: impl Iterator<Item = &'s VolatileSlice<'m>>) -> Vec<PtrGuardMut> {
    slices.take(SLICES_MAX).map(|slice| slice.ptr_guard_mut()).collect()
}

fn vector(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    }
}
