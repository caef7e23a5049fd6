//! What a block device needs of the thing that holds its bytes.

use crate::devices::virtio::Buffers;
use std::io;

/// Bytes behind a block device. Offsets and lengths are in bytes, checked against [`Disk::capacity`] by the caller.
///
/// An error of kind `Unsupported` tells the guest so; any other is an I/O error to it.
pub trait Disk: Send {
    /// What the guest reads as the disk's serial number, at most 20 bytes of ASCII.
    fn id(&self) -> &'static str;

    /// virtio-blk feature bits that depend on the disk.
    fn features(&self) -> u64;

    /// Size in bytes, a multiple of 512; never shrinks.
    fn capacity(&self) -> u64;

    /// Fills `into` from `offset`.
    fn read(&self, offset: u64, into: Buffers<'_>) -> io::Result<()>;

    /// Writes all of `from` at `offset`.
    fn write(&self, offset: u64, from: Buffers<'_>) -> io::Result<()>;

    /// Makes earlier writes durable.
    fn flush(&self) -> io::Result<()>;

    /// The bytes are not needed any more.
    fn discard(&self, offset: u64, length: u64) -> io::Result<()>;

    /// The bytes read as zeros from now on; `unmap` allows to give their space back.
    fn write_zeroes(&self, offset: u64, length: u64, unmap: bool) -> io::Result<()>;
}
