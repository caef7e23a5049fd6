//! An OCI layer → ext4 image + dm-verity tree, byte-identical to what existing confidential-container policies carry.
//!
//! [`convert`] reads a layer tar (plain, gzip or zstd) once, front to back, and writes
//!
//! ```text
//! | ext4, laid out as hcsshim's tar2ext4 does for a 128 GiB disk | verity superblock, 4 KiB | hash tree, root level first |
//! ```
//!
//! The root hash depends on the tar's entries alone: not on the clock, a UUID, or the machine's directory order.
//! [`Limits`] bounds memory use, which is names, inodes, and 32 bytes for each 4 KiB block of the image.
//! [`scratch`] writes the empty read-write file system that a guest mounts over such layers with overlayfs.
#![forbid(unsafe_code)]

mod blocks;
mod compression;
mod convert;
mod error;
mod ext4;
mod limits;
mod notes;
mod pipeline;
mod root_hash;
pub mod scratch;
mod tar;
mod time;
mod verity;

pub use compression::decompress;
pub use convert::{Converted, FORMAT, convert, hash};
pub use error::{ConvertError, EntryError, EntryName};
pub use limits::Limits;
pub use notes::Notes;
pub use root_hash::{RootHash, RootHashError};
pub use tar::HeaderError;
pub use verity::{BLOCK_BYTES, SALT, hash_blocks, is_whole, total_blocks};
