//! One inode: its attributes in memory and its 256 bytes on disk.

use super::directory::Directory;
use super::time::DiskTime;
use super::xattr::{self, InlineArea, Xattrs};
use super::{EXTENT_MAGIC, FLAG_EXTENTS, FLAG_HUGE_FILE, Fields, INODE_BYTES, TYPE_MASK};
use crate::BLOCK_BYTES;
use crate::time::Time;

/// Symbolic links up to this length are stored in the inode.
pub(super) const SHORT_LINK_BYTES: usize = 59;
/// The most links to an inode (`EXT4_LINK_MAX`).
pub(super) const MAX_LINKS: u32 = 65_000;
const MAX_EXTENT_BLOCKS: u32 = 0x8000;
const EXTENT_BYTES: usize = 12;
/// Extents stored in the inode.
const ROOT_EXTENTS: u32 = 4;
/// Extents of one index block.
const INDEXED_EXTENTS: u32 = 340;
/// hcsshim describes files with 340 or more extents wrongly (two index blocks with overlapping extents), so no valid hash of them exists.
pub(super) const MAX_FILE_BYTES: u64 = (INDEXED_EXTENTS as u64 - 1) * MAX_EXTENT_BLOCKS as u64 * BLOCK_BYTES as u64;
/// `i_block`.
const BODY: usize = 40;
/// `i_extra_isize`: the fixed fields end at byte 152.
const EXTRA_BYTES: u16 = 24;
const XATTRS: usize = 152;

/// Type bits of `i_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum FileType {
    Fifo = 0x1000,
    CharDevice = 0x2000,
    Directory = 0x4000,
    BlockDevice = 0x6000,
    Regular = 0x8000,
    Symlink = 0xa000,
}

impl FileType {
    /// The type byte of a directory entry.
    pub(super) fn directory_code(mode: u16) -> u8 {
        match mode & TYPE_MASK {
            0x8000 => 1,
            0x4000 => 2,
            0x2000 => 3,
            0x6000 => 4,
            0x1000 => 5,
            0xa000 => 7,
            _ => 0,
        }
    }
}

/// The attributes of a new file.
#[derive(Clone, Debug)]
pub(crate) struct Attributes {
    pub(crate) file_type: FileType,
    pub(crate) permissions: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) atime: Option<Time>,
    pub(crate) ctime: Option<Time>,
    pub(crate) mtime: Option<Time>,
    /// Creation time, which tar does not carry: hcsshim takes the modification time.
    pub(crate) crtime: Option<Time>,
    /// Bytes of content of a regular file.
    pub(crate) size: u64,
    /// Target of a symbolic link.
    pub(crate) target: Vec<u8>,
    /// Major and minor number of a device.
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Xattrs,
}

impl Attributes {
    /// Whether it has a POSIX access control list.
    pub(crate) fn has_access_list(&self) -> bool {
        self.xattrs.keys().any(|name| name.starts_with(b"system.posix_acl_"))
    }

    /// Whether one of its times is read back as another one.
    pub(crate) fn has_odd_time(&self) -> bool {
        [self.atime, self.ctime, self.mtime].into_iter().any(DiskTime::is_misread)
    }

    /// A file without owner, times and content.
    pub(crate) fn new(file_type: FileType, permissions: u16) -> Self {
        Attributes {
            file_type,
            permissions,
            uid: 0,
            gid: 0,
            atime: None,
            ctime: None,
            mtime: None,
            crtime: None,
            size: 0,
            target: Vec::new(),
            device: (0, 0),
            xattrs: Xattrs::new(),
        }
    }

    pub(super) fn mode(&self) -> u16 {
        let permissions = if self.file_type == FileType::Symlink { 0o777 } else { 0 };
        self.permissions & !TYPE_MASK | permissions | self.file_type as u16
    }
}

/// Where the content is stored.
#[derive(Debug)]
pub(super) enum Body {
    Empty,
    ShortLink(Box<[u8]>),
    Device {
        major: u32,
        minor: u32,
    },
    /// One run of blocks, followed by the index block if the extents do not fit into the inode.
    Run {
        start: u32,
        blocks: u32,
    },
}

/// An inode of the image under construction.
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) links: u32,
    pub(super) size: u64,
    pub(super) atime: DiskTime,
    pub(super) ctime: DiskTime,
    pub(super) mtime: DiskTime,
    pub(super) crtime: DiskTime,
    pub(super) xattrs: Option<Box<InlineArea>>,
    /// Block with further attributes, 0 for none.
    pub(super) xattr_block: u32,
    pub(super) body: Body,
    pub(super) directory: Option<Box<Directory>>,
}

impl Inode {
    pub(super) fn is_directory(&self) -> bool {
        self.mode & TYPE_MASK == FileType::Directory as u16
    }

    /// Blocks after the run that hold its extents.
    pub(super) fn index_blocks(&self) -> u32 {
        match self.body {
            Body::Run { blocks, .. } => u32::from(extents(blocks) > ROOT_EXTENTS),
            _ => 0,
        }
    }

    /// The index block of a large file.
    pub(super) fn index_block(&self) -> Option<Box<[u8; BLOCK_BYTES]>> {
        let Body::Run { start, blocks } = self.body else { return None };
        let mut block = Box::new([0; BLOCK_BYTES]);
        put_extents(&mut *block, start, blocks, INDEXED_EXTENTS);
        (self.index_blocks() > 0).then_some(block)
    }

    pub(super) fn encode(&self) -> [u8; INODE_BYTES] {
        let mut bytes = [0; INODE_BYTES];
        let (run_blocks, flags) = match self.body {
            Body::Run { blocks, .. } => (blocks + self.index_blocks(), FLAG_HUGE_FILE | FLAG_EXTENTS),
            _ => (0, FLAG_HUGE_FILE),
        };
        Fields(&mut bytes)
            .u16(0, self.mode)
            .u16(2, self.uid as u16)
            .u32(4, self.size as u32)
            .u32(8, self.atime.0 as u32)
            .u32(12, self.ctime.0 as u32)
            .u32(16, self.mtime.0 as u32)
            .u16(24, self.gid as u16)
            .u16(26, self.links as u16)
            .u32(28, run_blocks + u32::from(self.xattr_block != 0))
            .u32(32, flags)
            .u32(104, self.xattr_block)
            .u32(108, (self.size >> 32) as u32)
            .u16(120, (self.uid >> 16) as u16)
            .u16(122, (self.gid >> 16) as u16)
            .u16(128, EXTRA_BYTES)
            .u32(132, (self.ctime.0 >> 32) as u32)
            .u32(136, (self.mtime.0 >> 32) as u32)
            .u32(140, (self.atime.0 >> 32) as u32)
            .u32(144, self.crtime.0 as u32)
            .u32(148, (self.crtime.0 >> 32) as u32);
        match &self.body {
            Body::Empty => {}
            Body::ShortLink(target) => bytes[BODY..BODY + target.len()].copy_from_slice(target),
            Body::Device { major, minor } => {
                let device = minor & 0xff | major << 8 | (minor & 0xffff_ff00) << 12;
                Fields(&mut bytes).u32(BODY + 4, device);
            }
            Body::Run { start, blocks } if self.index_blocks() == 0 => put_extents(&mut bytes[BODY..], *start, *blocks, ROOT_EXTENTS),
            Body::Run { start, blocks } => {
                let root = &mut bytes[BODY..];
                put_extent_header(root, 1, ROOT_EXTENTS, 1);
                Fields(root).u32(EXTENT_BYTES + 4, start + blocks);
            }
        }
        if let Some(area) = &self.xattrs {
            Fields(&mut bytes).u32(XATTRS, xattr::MAGIC).bytes(XATTRS + 4, &**area);
        }
        bytes
    }
}

fn extents(blocks: u32) -> u32 {
    blocks.div_ceil(MAX_EXTENT_BLOCKS)
}

fn put_extent_header(area: &mut [u8], entries: u32, capacity: u32, depth: u16) {
    Fields(area)
        .u16(0, EXTENT_MAGIC)
        .u16(2, entries as u16)
        .u16(4, capacity as u16)
        .u16(6, depth);
}

fn put_extents(area: &mut [u8], start: u32, blocks: u32, capacity: u32) {
    put_extent_header(area, extents(blocks), capacity, 0);
    for (index, entry) in (0..extents(blocks)).zip(area[EXTENT_BYTES..].chunks_exact_mut(EXTENT_BYTES)) {
        let block = index * MAX_EXTENT_BLOCKS;
        let length = (blocks - block).min(MAX_EXTENT_BLOCKS);
        Fields(entry).u32(0, block).u16(4, length as u16).u32(8, start + block);
    }
}
