//! An empty read-write ext4 for a guest's scratch disk: a few dozen kilobytes are written, whatever the disk's size.
//!
//! The disk may be a fresh dm-crypt with integrity, where reading an unwritten block is an I/O error. So exactly those
//! blocks are written that Linux reads before it writes them:
//!
//! ```text
//! group 0      superblock │ descriptors │ block bitmap │ inode bitmap │ first block of the inode table │ / │ lost+found
//! groups 1..   nothing: BLOCK_UNINIT, INODE_UNINIT and bg_itable_unused let the kernel initialise bitmaps and inodes
//! last group   block bitmap, because it ends before its last bit
//! ```
//!
//! No journal: the disk lives as long as the guest. No lazy initialisation: `INODE_ZEROED` is set, and an inode block
//! whose other inodes are free is filled without being read (`__ext4_get_inode_loc`, fs/ext4/inode.c).

use crate::BLOCK_BYTES;
use crate::ext4::write_entries;
use crate::ext4::{BLOCKS_PER_GROUP, EXTENT_MAGIC, FIRST_INODE, FLAG_EXTENTS, Fields, INODE_BYTES, ROOT_INODE, SUPERBLOCK_MAGIC};
use std::io::{self, Seek, SeekFrom, Write};
use thiserror::Error;

/// Smallest disk: tables and some free space.
const MIN_BYTES: u64 = 1 << 20;
/// Block numbers have 32 bits without the `64bit` feature.
const MAX_BYTES: u64 = 1 << 44;
/// Bytes per inode, mke2fs's default.
const BYTES_PER_INODE: u64 = 16 << 10;
const MAX_INODES_PER_GROUP: u32 = (BLOCKS_PER_GROUP as u64 * BLOCK_BYTES as u64 / BYTES_PER_INODE) as u32;
const INODES_PER_BLOCK: u32 = (BLOCK_BYTES / INODE_BYTES) as u32;
/// A last group with fewer free blocks than this is left out.
const MIN_LAST_GROUP_BLOCKS: u32 = 64;
const DESCRIPTOR_BYTES: usize = 32;
const CHECKSUM: usize = 30;

/// A guest has one such disk, so any UUID will do; overlayfs warns about a zero UUID.
const UUID: [u8; 16] = *b"casemate\x8cratch\0\0";
const HASH_SEED: [u8; 16] = *b"directory hashes";

/// `s_mount_opts`, which the kernel applies at every mount. Inode read-ahead would go one block past the used part of the
/// table, and the kernel would log the failed read.
const MOUNT_OPTIONS: &[u8] = b"inode_readahead_blks=0";

const INODE_UNINIT: u16 = 1;
const BLOCK_UNINIT: u16 = 2;
const INODE_ZEROED: u16 = 4;
const COMPAT: u32 = 0x8 /* ext_attr */ | 0x20 /* dir_index */ | 0x200 /* sparse_super2: no backups */;
const INCOMPAT: u32 = 0x2 /* filetype */ | 0x40 /* extents */;
const RO_COMPAT: u32 = 0x2 /* large_file */ | 0x8 /* huge_file */ | 0x10 /* gdt_csum */ | 0x20 /* dir_nlink */ | 0x40 /* extra_isize */;

/// Why no file system was written.
#[derive(Debug, Error)]
pub enum ScratchError {
    /// A size that the layout does not support.
    #[error("a scratch disk must have {MIN_BYTES} to {MAX_BYTES} bytes, not {0}")]
    Size(u64),
    /// The disk cannot be written.
    #[error("the scratch disk cannot be written")]
    Write(#[from] io::Error),
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scratch {
    /// Bytes of the file system: `size_bytes`, less an incomplete block or a last group too small for its tables.
    pub bytes: u64,
    /// Inodes, including those that ext4 reserves.
    pub inodes: u32,
}

/// Writes an empty ext4 over the first `size_bytes` of `out`. Mount it `rw`; no other mount option is needed.
pub fn write_empty_ext4<W: Write + Seek>(out: &mut W, size_bytes: u64) -> Result<Scratch, ScratchError> {
    let layout = Layout::new(size_bytes).ok_or(ScratchError::Size(size_bytes))?;
    let mut put = |block: u32, content: &[u8]| -> io::Result<()> {
        out.seek(SeekFrom::Start(u64::from(block) * BLOCK_BYTES as u64))?;
        out.write_all(content)
    };
    put(layout.block_bitmap(0), &layout.bitmap(0))?;
    put(layout.inode_bitmap(0), &layout.root_inode_bitmap())?;
    put(layout.inode_table(0), &layout.first_inodes())?;
    put(
        layout.root_block(),
        &directory(ROOT_INODE, ROOT_INODE, &[(FIRST_INODE, b"lost+found")]),
    )?;
    put(layout.root_block() + 1, &directory(FIRST_INODE, ROOT_INODE, &[]))?;
    let last = layout.groups - 1;
    if last > 0 {
        put(layout.block_bitmap(last), &layout.bitmap(last))?;
    }
    put(1, &layout.descriptors())?;
    put(0, &layout.superblock())?;
    out.flush()?;
    Ok(Scratch {
        bytes: u64::from(layout.blocks) * BLOCK_BYTES as u64,
        inodes: layout.groups * layout.inodes_per_group,
    })
}

/// The block layout; each group starts with its tables.
struct Layout {
    blocks: u32,
    groups: u32,
    inodes_per_group: u32,
    descriptor_blocks: u32,
}

impl Layout {
    fn new(size_bytes: u64) -> Option<Self> {
        if !(MIN_BYTES..=MAX_BYTES).contains(&size_bytes) {
            return None;
        }
        let mut blocks = u32::try_from(size_bytes / BLOCK_BYTES as u64).unwrap_or(u32::MAX);
        let inodes = u64::from(blocks) * BLOCK_BYTES as u64 / BYTES_PER_INODE;
        let inodes_per_group = (inodes as u32).next_multiple_of(INODES_PER_BLOCK).min(MAX_INODES_PER_GROUP);
        let tables = 2 + inodes_per_group / INODES_PER_BLOCK;
        let rest = blocks % BLOCKS_PER_GROUP;
        if blocks > BLOCKS_PER_GROUP && rest < tables + MIN_LAST_GROUP_BLOCKS {
            blocks -= rest;
        }
        let groups = blocks.div_ceil(BLOCKS_PER_GROUP);
        let descriptor_blocks = (groups * DESCRIPTOR_BYTES as u32).div_ceil(BLOCK_BYTES as u32);
        Some(Layout {
            blocks,
            groups,
            inodes_per_group,
            descriptor_blocks,
        })
    }

    /// First block of a group's tables; in group 0 superblock and descriptors come first.
    fn block_bitmap(&self, group: u32) -> u32 {
        group * BLOCKS_PER_GROUP + if group == 0 { 1 + self.descriptor_blocks } else { 0 }
    }

    fn inode_bitmap(&self, group: u32) -> u32 {
        self.block_bitmap(group) + 1
    }

    fn inode_table(&self, group: u32) -> u32 {
        self.block_bitmap(group) + 2
    }

    /// After the tables of group 0.
    fn root_block(&self) -> u32 {
        self.inode_table(0) + self.inodes_per_group / INODES_PER_BLOCK
    }

    /// Blocks in use at a group's start.
    fn used_blocks(&self, group: u32) -> u32 {
        let directories = if group == 0 { 2 } else { 0 };
        self.inode_table(group) + self.inodes_per_group / INODES_PER_BLOCK + directories - group * BLOCKS_PER_GROUP
    }

    fn blocks_in(&self, group: u32) -> u32 {
        (self.blocks - group * BLOCKS_PER_GROUP).min(BLOCKS_PER_GROUP)
    }

    fn bitmap(&self, group: u32) -> [u8; BLOCK_BYTES] {
        let (used, present) = (self.used_blocks(group), self.blocks_in(group));
        bits(|bit| bit < used || bit >= present)
    }

    fn root_inode_bitmap(&self) -> [u8; BLOCK_BYTES] {
        bits(|bit| bit < FIRST_INODE || bit >= self.inodes_per_group)
    }

    fn first_inodes(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        for (number, permissions, links, content) in [
            (ROOT_INODE, 0o755, 3, self.root_block()),
            (FIRST_INODE, 0o700, 2, self.root_block() + 1),
        ] {
            let start = (number as usize - 1) * INODE_BYTES;
            Fields(&mut block[start..start + INODE_BYTES])
                .u16(0, 0x4000 | permissions)
                .u32(4, BLOCK_BYTES as u32)
                .u16(26, links)
                .u32(28, BLOCK_BYTES as u32 / 512) // i_blocks
                .u32(32, FLAG_EXTENTS)
                .u16(40, EXTENT_MAGIC)
                .u16(42, 1) // entries
                .u16(44, 4) // room for entries
                .u16(56, 1) // blocks of the extent
                .u32(60, content)
                .u16(128, 32); // i_extra_isize
        }
        block
    }

    fn descriptors(&self) -> Vec<u8> {
        let mut table = vec![0; self.descriptor_blocks as usize * BLOCK_BYTES];
        for (group, descriptor) in (0..self.groups).zip(table.chunks_exact_mut(DESCRIPTOR_BYTES)) {
            let used_inodes = if group == 0 { FIRST_INODE } else { 0 };
            let flags = match group {
                0 => INODE_ZEROED,
                _ if group == self.groups - 1 => INODE_ZEROED | INODE_UNINIT,
                _ => INODE_ZEROED | INODE_UNINIT | BLOCK_UNINIT,
            };
            let free_inodes = (self.inodes_per_group - used_inodes) as u16;
            Fields(descriptor)
                .u32(0, self.block_bitmap(group))
                .u32(4, self.inode_bitmap(group))
                .u32(8, self.inode_table(group))
                .u16(12, self.free_blocks(group) as u16)
                .u16(14, free_inodes)
                .u16(16, if group == 0 { 2 } else { 0 }) // directories
                .u16(18, flags)
                .u16(28, free_inodes); // bg_itable_unused
            let checksum = descriptor_checksum(group, descriptor);
            Fields(descriptor).u16(CHECKSUM, checksum);
        }
        table
    }

    fn free_blocks(&self, group: u32) -> u32 {
        self.blocks_in(group) - self.used_blocks(group)
    }

    fn superblock(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        let free_blocks: u32 = (0..self.groups).map(|group| self.free_blocks(group)).sum();
        let inodes = self.groups * self.inodes_per_group;
        let superblock = &mut block[0x400..];
        superblock[0xfc] = 1; // s_def_hash_version: half MD4
        Fields(superblock)
            .u32(0x00, inodes)
            .u32(0x04, self.blocks)
            .u32(0x0c, free_blocks)
            .u32(0x10, inodes - FIRST_INODE)
            .u32(0x18, 2) // block size 2^(10 + 2)
            .u32(0x1c, 2) // cluster size, the same
            .u32(0x20, BLOCKS_PER_GROUP)
            .u32(0x24, BLOCKS_PER_GROUP)
            .u32(0x28, self.inodes_per_group)
            .u16(0x36, u16::MAX) // never check because of mount counts
            .u16(0x38, SUPERBLOCK_MAGIC)
            .u16(0x3a, 1) // cleanly unmounted
            .u16(0x3c, 2) // on errors remount read-only: the guest must not continue with data it cannot trust
            .u32(0x4c, 1) // dynamic inode sizes
            .u32(0x54, FIRST_INODE)
            .u16(0x58, INODE_BYTES as u16)
            .u32(0x5c, COMPAT)
            .u32(0x60, INCOMPAT)
            .u32(0x64, RO_COMPAT)
            .bytes(0x68, &UUID)
            .bytes(0xec, &HASH_SEED)
            .u16(0x15c, 32) // s_min_extra_isize
            .u16(0x15e, 32) // s_want_extra_isize
            .u32(0x160, 1) // s_flags: directory hashes of signed characters
            .bytes(0x200, MOUNT_OPTIONS)
            .u32(0x268, FIRST_INODE); // s_lpf_ino
        block
    }
}

fn bits(used: impl Fn(u32) -> bool) -> [u8; BLOCK_BYTES] {
    std::array::from_fn(|byte| (0..8).fold(0, |bits, bit| bits | u8::from(used(byte as u32 * 8 + bit)) << bit))
}

fn directory(number: u32, parent: u32, children: &[(u32, &[u8])]) -> [u8; BLOCK_BYTES] {
    const DIRECTORY_CODE: u8 = 2;
    let dots = [(number, b".".as_slice()), (parent, b"..")];
    let entries = dots.into_iter().chain(children.iter().copied());
    let mut first = [0; BLOCK_BYTES];
    let kept: Result<(), std::convert::Infallible> = write_entries(entries.map(|(child, name)| (child, DIRECTORY_CODE, name)), |block| {
        first = *block;
        Ok(())
    });
    let Ok(()) = kept;
    first
}

/// `ext4_group_desc_csum` for the feature `gdt_csum`: CRC-16 of UUID, group number and the descriptor before the checksum.
fn descriptor_checksum(group: u32, descriptor: &[u8]) -> u16 {
    let parts = [UUID.as_slice(), &group.to_le_bytes(), &descriptor[..CHECKSUM]];
    parts.iter().flat_map(|part| part.iter()).fold(u16::MAX, |crc, byte| {
        (0..8).fold(
            crc ^ u16::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Records which blocks were written, and how many bytes.
    #[derive(Default)]
    struct Disk {
        position: u64,
        written: std::collections::BTreeMap<u64, usize>,
    }

    impl Write for Disk {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.written.insert(self.position / BLOCK_BYTES as u64, data.len());
            self.position += data.len() as u64;
            Ok(data.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seek for Disk {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            let SeekFrom::Start(position) = to else {
                return Err(io::ErrorKind::Unsupported.into());
            };
            self.position = position;
            Ok(position)
        }
    }

    proptest! {
        #[test]
        fn few_whole_blocks_are_written_and_none_twice(size in MIN_BYTES..(1u64 << 40)) {
            let mut disk = Disk::default();
            let scratch = write_empty_ext4(&mut disk, size).unwrap();
            prop_assert!(scratch.bytes <= size && size - scratch.bytes < 3 << 20);
            prop_assert!(disk.written.values().sum::<usize>() < 512 << 10);
            let mut end = 0;
            for (block, bytes) in &disk.written {
                prop_assert!(*block >= end && bytes % BLOCK_BYTES == 0);
                end = block + (bytes / BLOCK_BYTES) as u64;
                prop_assert!(end * BLOCK_BYTES as u64 <= scratch.bytes);
            }
        }
    }

    #[test]
    fn sizes_without_a_layout_are_refused() {
        for size in [0, MIN_BYTES - 1, MAX_BYTES + 1, u64::MAX] {
            assert!(matches!(write_empty_ext4(&mut Disk::default(), size), Err(ScratchError::Size(refused)) if refused == size));
        }
        assert!(write_empty_ext4(&mut Disk::default(), MAX_BYTES).is_ok());
    }
}
