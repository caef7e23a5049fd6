//! An OCI layer → ext4 image + dm-verity tree, byte-identical to what existing confidential-container policies carry.
//!
//! [`convert`] reads a layer tar (plain, gzip or zstd) once, front to back, and writes
//!
//! ```text
//! | ext4, laid out as hcsshim's tar2ext4 does for a 128 GiB disk | verity superblock, 4 KiB | hash tree, root level first |
//! ```
//!
//! The root hash depends on the tar's entries alone: no clock, no UUID, no directory order of the machine.
//! Memory is bounded by [`Limits`]: the names and inodes, and 32 bytes for each 4 KiB block of the image.
//! [`scratch`] writes the empty read-write file system that a guest lays over such layers.
#![forbid(unsafe_code)]

mod apply;
mod blocks;
mod compression;
mod digest;
mod error;
mod ext4;
mod limits;
pub mod scratch;
mod stages;
mod tar;
mod verity;

pub use apply::{Converted, convert, hash};
pub use digest::{DiffId, DigestError, RootHash};
pub use error::{ConvertError, EntryError, EntryName};
pub use limits::Limits;
pub use tar::HeaderError;
pub use verity::{BLOCK_BYTES, SALT, hash_blocks};
