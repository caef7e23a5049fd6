//! Positioned, vectored I/O between files and guest memory, without a copy.
#![expect(unsafe_code, reason = "preadv and pwritev take raw pointers to guest memory")]

use crate::devices::virtio::Buffers;
use std::{fs::File, io, os::fd::AsRawFd};
use vm_memory::volatile_memory::PtrGuardMut;

/// Most slices in one system call (`UIO_MAXIOV`).
const SLICES_PER_CALL: usize = 1024;

/// `preadv` or `pwritev`.
type Transfer = unsafe extern "C" fn(libc::c_int, *const libc::iovec, libc::c_int, libc::off_t) -> libc::ssize_t;

/// Fills all of `into` from `offset`; an end of file before that is an error.
pub fn read_at(file: &File, offset: u64, into: &Buffers<'_>) -> io::Result<()> {
    transfer(libc::preadv, file, offset, into, io::ErrorKind::UnexpectedEof)
}

/// Writes all of `from` at `offset`.
pub fn write_at(file: &File, offset: u64, from: &Buffers<'_>) -> io::Result<()> {
    transfer(libc::pwritev, file, offset, from, io::ErrorKind::WriteZero)
}

fn transfer(call: Transfer, file: &File, mut offset: u64, buffers: &Buffers<'_>, at_zero: io::ErrorKind) -> io::Result<()> {
    let guards: Vec<PtrGuardMut> = buffers.slices().filter(|s| !s.is_empty()).map(|s| s.ptr_guard_mut()).collect();
    let mut vectors: Vec<libc::iovec> = guards
        .iter()
        .map(|g| libc::iovec {
            iov_base: g.as_ptr().cast(),
            iov_len: g.len(),
        })
        .collect();
    let mut rest = &mut vectors[..];
    while !rest.is_empty() {
        let count = rest.len().min(SLICES_PER_CALL) as libc::c_int;
        let position = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: `rest` holds at least `count` vectors, and each describes memory that one of `guards` keeps mapped and
        // writable until the end of this function (`advance` only shortens them). It is guest memory: no Rust reference to
        // it exists, and its bytes may change at any time by the contract of `VolatileSlice`.
        let done = unsafe { call(file.as_raw_fd(), rest.as_ptr(), count, position) };
        match usize::try_from(done) {
            Ok(0) => return Err(at_zero.into()),
            Ok(done) => {
                offset += done as u64;
                rest = advance(rest, done);
            }
            Err(_) => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => (),
                e => return Err(e),
            },
        }
    }
    Ok(())
}

/// The vectors that are left after `done` bytes.
fn advance(mut vectors: &mut [libc::iovec], mut done: usize) -> &mut [libc::iovec] {
    while let Some(first) = vectors.first_mut() {
        if done < first.iov_len {
            first.iov_base = first.iov_base.wrapping_byte_add(done);
            first.iov_len -= done;
            break;
        }
        done -= first.iov_len;
        vectors = &mut vectors[1..];
    }
    vectors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advancing_stops_within_or_between_vectors() {
        let make = || {
            [3, 5, 2].map(|iov_len| libc::iovec {
                iov_base: std::ptr::null_mut(),
                iov_len,
            })
        };
        for (done, wanted) in [
            (0, vec![3, 5, 2]),
            (2, vec![1, 5, 2]),
            (3, vec![5, 2]),
            (7, vec![1, 2]),
            (10, vec![]),
        ] {
            let mut vectors = make();
            let left: Vec<usize> = advance(&mut vectors, done).iter().map(|v| v.iov_len).collect();
            assert_eq!(left, wanted, "{done}");
        }
        let mut vectors = make();
        assert_eq!(advance(&mut vectors, 4)[0].iov_base as usize, 1);
    }
}
