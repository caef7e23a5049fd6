//! The tables at the end of the image: group bitmaps and descriptors, and the superblock.

use super::inode::Inode;
use super::{BLOCKS_PER_GROUP, FIRST_INODE, Fields, INODE_BYTES, SUPERBLOCK_MAGIC};
use crate::BLOCK_BYTES;

/// The disk size that the descriptor table has room for; hcsshim's hashes assume 128 GiB.
pub(super) const MAX_DISK_BYTES: u64 = 128 << 30;
pub(super) const DESCRIPTOR_BYTES: usize = 32;
pub(super) const DESCRIPTOR_BLOCKS: u32 = (MAX_DISK_BYTES / BLOCK_BYTES as u64 / BLOCKS_PER_GROUP as u64) as u32 / DESCRIPTORS_PER_BLOCK;
const DESCRIPTORS_PER_BLOCK: u32 = (BLOCK_BYTES / DESCRIPTOR_BYTES) as u32;
const INODES_PER_BLOCK: u32 = (BLOCK_BYTES / INODE_BYTES) as u32;
const MAX_INODES_PER_GROUP: u32 = BLOCKS_PER_GROUP;

/// Superblock feature bits.
const COMPAT: u32 = 0x8 /* ext_attr */ | 0x200 /* sparse_super2: no backups */;
const INCOMPAT: u32 = 0x2 /* filetype */ | 0x40 /* extents */ | 0x200 /* flex_bg */;
const RO_COMPAT: u32 = 0x2 /* large_file */ | 0x8 /* huge_file */ | 0x40 /* extra_isize */ | 0x1000 /* readonly */;

/// Block numbers of the tables after the directories.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) groups: u32,
    pub(super) inodes_per_group: u32,
    /// First block of the inode table.
    pub(super) inode_table: u32,
    /// First block of the bitmaps, two for each group.
    pub(super) bitmaps: u32,
    /// First block after all content.
    pub(super) end: u32,
    /// Blocks of the file system; those from `end` on are zeros.
    pub(super) disk_blocks: u32,
}

impl Geometry {
    /// The fewest groups possible, with the fewest inodes possible. `None` if the descriptor table is too small.
    pub(super) fn new(inode_table: u32, inodes: u32) -> Option<Self> {
        let choices = (INODES_PER_BLOCK..=MAX_INODES_PER_GROUP).step_by(INODES_PER_BLOCK as usize);
        let by_groups = choices.map(|per_group| (group_count(inode_table, inodes, per_group), per_group));
        let (groups, inodes_per_group) = by_groups.min()?;
        if groups > u64::from(DESCRIPTOR_BLOCKS * DESCRIPTORS_PER_BLOCK) {
            return None;
        }
        let groups = groups as u32;
        let bitmaps = inode_table + groups * (inodes_per_group / INODES_PER_BLOCK);
        let end = bitmaps + 2 * groups;
        let disk_blocks = end.max((groups - 1) * BLOCKS_PER_GROUP + 1);
        Some(Geometry {
            groups,
            inodes_per_group,
            inode_table,
            bitmaps,
            end,
            disk_blocks,
        })
    }

    fn used_descriptor_blocks(&self) -> u32 {
        self.groups.div_ceil(DESCRIPTORS_PER_BLOCK)
    }
}

fn group_count(blocks: u32, inodes: u32, per_group: u32) -> u64 {
    let data_blocks = u64::from(BLOCKS_PER_GROUP - per_group / INODES_PER_BLOCK - 2);
    // Enough groups for the inodes, even if the blocks need fewer.
    let for_inodes = u64::from((inodes - 1) / per_group) * data_blocks + 1;
    u64::from(blocks).max(for_inodes).div_ceil(data_blocks)
}

/// Sums over all groups, for the superblock.
#[derive(Debug, Default)]
pub(super) struct Totals {
    free_blocks: u32,
    free_inodes: u32,
}

/// Both bitmaps of a group, and its descriptor.
pub(super) struct Group {
    pub(super) bitmaps: [u8; 2 * BLOCK_BYTES],
    pub(super) descriptor: [u8; DESCRIPTOR_BYTES],
}

/// Builds group number `group`. `freed` holds runs of blocks (start, length) of replaced files.
pub(super) fn group(geometry: &Geometry, group: u32, inodes: &[Option<Inode>], freed: &[(u32, u32)], totals: &mut Totals) -> Group {
    let mut bitmaps = [0; 2 * BLOCK_BYTES];
    let (blocks, inode_map) = bitmaps.split_at_mut(BLOCK_BYTES);
    let first = group * BLOCKS_PER_GROUP;
    let in_group = |block: u32| block.saturating_sub(first).min(BLOCKS_PER_GROUP);

    mark(blocks, 0..in_group(geometry.end), true);
    for (start, length) in freed {
        mark(blocks, in_group(*start)..in_group(start + length), false);
    }
    if group == 0 {
        // Descriptor blocks that no group needs are free.
        mark(blocks, 1 + geometry.used_descriptor_blocks()..1 + DESCRIPTOR_BLOCKS, false);
    }
    // Blocks past the disk's end count as used.
    mark(blocks, in_group(geometry.disk_blocks)..BLOCKS_PER_GROUP, true);

    let mut directories = 0;
    for index in 0..geometry.inodes_per_group {
        let number = 1 + group * geometry.inodes_per_group + index;
        let inode = inodes.get(number as usize - 1).and_then(Option::as_ref);
        if number < FIRST_INODE || inode.is_some() {
            mark(inode_map, index..index + 1, true);
        }
        directories += u16::from(inode.is_some_and(Inode::is_directory));
    }

    let used = |map: &[u8]| map.iter().map(|byte| byte.count_ones()).sum::<u32>();
    let free_blocks = BLOCKS_PER_GROUP - used(blocks);
    let free_inodes = geometry.inodes_per_group - used(inode_map);
    totals.free_blocks += free_blocks;
    totals.free_inodes += free_inodes;

    let mut descriptor = [0; DESCRIPTOR_BYTES];
    Fields(&mut descriptor)
        .u32(0, geometry.bitmaps + 2 * group)
        .u32(4, geometry.bitmaps + 2 * group + 1)
        .u32(8, geometry.inode_table + group * (geometry.inodes_per_group / INODES_PER_BLOCK))
        .u16(12, free_blocks as u16)
        .u16(14, free_inodes as u16)
        .u16(16, directories);
    Group { bitmaps, descriptor }
}

fn mark(map: &mut [u8], bits: std::ops::Range<u32>, used: bool) {
    for bit in bits {
        let mask = 1 << (bit % 8);
        let byte = &mut map[bit as usize / 8];
        *byte = if used { *byte | mask } else { *byte & !mask };
    }
}

/// Block 0, without UUID and timestamps.
pub(super) fn superblock(geometry: &Geometry, totals: &Totals) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    block[0x400 + 0x174] = 31; // s_log_groups_per_flex: every group is in the first flexible group
    Fields(&mut block[0x400..])
        .u32(0x00, geometry.inodes_per_group * geometry.groups)
        .u32(0x04, geometry.disk_blocks)
        .u32(0x0c, totals.free_blocks)
        .u32(0x10, totals.free_inodes)
        .u32(0x18, 2) // block size 2^(10 + 2)
        .u32(0x1c, 2) // cluster size, the same
        .u32(0x20, BLOCKS_PER_GROUP)
        .u32(0x24, BLOCKS_PER_GROUP)
        .u32(0x28, geometry.inodes_per_group)
        .u16(0x38, SUPERBLOCK_MAGIC)
        .u16(0x3a, 1) // cleanly unmounted
        .u16(0x3c, 1) // continue on errors
        .u32(0x4c, 1) // dynamic inode sizes
        .u32(0x54, FIRST_INODE)
        .u16(0x58, INODE_BYTES as u16)
        .u32(0x5c, COMPAT)
        .u32(0x60, INCOMPAT)
        .u32(0x64, RO_COMPAT)
        .u16(0x15c, 24) // s_min_extra_isize
        .u16(0x15e, 24) // s_want_extra_isize
        .u32(0x268, FIRST_INODE); // s_lpf_ino: lost+found
    block
}
