//! Compact read-only ext4, laid out byte for byte as hcsshim's `compactext4` lays it out for a 128 GiB disk.
//!
//! ```text
//! block 0      superblock (at byte 1024)                    written last
//! 1 ..= 8      group descriptors for up to 1024 groups      written last
//! 9 ..         file data and attribute blocks, in the order of the tar
//!              directories, parents before children
//!              inode table of all groups
//!              block bitmap and inode bitmap of each group
//! ```
//!
//! Every file is one run of blocks, so its extents follow from start and length. No block is read back.
//! Field names are those of the kernel's `fs/ext4/ext4.h`.

mod directory;
mod inode;
mod path;
mod tables;
mod time;
mod writer;
mod xattr;

pub(crate) use directory::write_entries;
pub(crate) use inode::{Attributes, FileType};
pub(crate) use path::CleanPath;
pub(crate) use writer::{FsError, Writer};

/// `i_mode`'s type bits.
pub(crate) const TYPE_MASK: u16 = 0xf000;
/// `EXT4_HUGE_FILE_FL`: `i_blocks` counts file system blocks.
pub(crate) const FLAG_HUGE_FILE: u32 = 0x4_0000;
/// `EXT4_EXTENTS_FL`.
pub(crate) const FLAG_EXTENTS: u32 = 0x8_0000;
pub(crate) const SUPERBLOCK_MAGIC: u16 = 0xef53;
pub(crate) const EXTENT_MAGIC: u16 = 0xf30a;
/// Inode number of the root directory.
pub(crate) const ROOT_INODE: u32 = 2;
/// First inode that is not reserved, by convention `lost+found`.
pub(crate) const FIRST_INODE: u32 = 11;
/// Bytes of an inode on disk.
pub(crate) const INODE_BYTES: usize = 256;
pub(crate) const BLOCKS_PER_GROUP: u32 = 8 * crate::BLOCK_BYTES as u32;

/// Writes little-endian fields into a fixed area; all on-disk structures are built with it.
pub(crate) struct Fields<'a>(pub(crate) &'a mut [u8]);

impl Fields<'_> {
    pub(crate) fn u16(&mut self, offset: usize, value: u16) -> &mut Self {
        self.bytes(offset, &value.to_le_bytes())
    }

    pub(crate) fn u32(&mut self, offset: usize, value: u32) -> &mut Self {
        self.bytes(offset, &value.to_le_bytes())
    }

    pub(crate) fn bytes(&mut self, offset: usize, bytes: &[u8]) -> &mut Self {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }
}
