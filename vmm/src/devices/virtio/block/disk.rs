//! The backend of a block device.

use crate::devices::virtio::Buffers;
use std::io;

/// The storage of a block device. Offsets and lengths are in bytes; the caller checks them against [`Disk::capacity`].
///
/// A clone is the same storage as it is now: requests are served on one, so that what changes a disk waits for no request.
///
/// An error of kind `Unsupported` becomes VIRTIO_BLK_S_UNSUPP, any other VIRTIO_BLK_S_IOERR.
pub trait Disk: Clone + Send + 'static {
    /// What the guest reads as the disk's serial number, at most 20 bytes of ASCII.
    fn id(&self) -> &'static str;

    /// virtio-blk feature bits that depend on the disk.
    fn features(&self) -> u64;

    /// Size in bytes, a multiple of 512.
    fn capacity(&self) -> u64;

    /// Fills `into` from `offset`.
    fn read(&self, offset: u64, into: Buffers<'_>) -> io::Result<()>;

    /// Writes all of `from` at `offset`.
    fn write(&self, offset: u64, from: Buffers<'_>) -> io::Result<()>;

    /// Makes completed writes durable, as far as the disk promises durability.
    fn flush(&self) -> io::Result<()>;

    /// Allows to deallocate the bytes.
    fn discard(&self, offset: u64, length: u64) -> io::Result<()>;

    /// Makes the bytes read as zeros; `unmap` allows to deallocate them.
    fn write_zeroes(&self, offset: u64, length: u64, unmap: bool) -> io::Result<()>;
}
