//! Writes the image: keeps inodes and names in memory, and writes contents to their final blocks.

mod close;

use super::directory::Directory;
use super::inode::{Attributes, Body, FileType, Inode, MAX_FILE_BYTES, MAX_LINKS, SHORT_LINK_BYTES};
use super::path::CleanPath;
use super::tables::{DESCRIPTOR_BLOCKS, MAX_DISK_BYTES};
use super::time::DiskTime;
use super::xattr::{self, Xattrs};
use super::{FIRST_INODE, ROOT_INODE};
use crate::BLOCK_BYTES;
use crate::blocks::BlockWriter;
use crate::error::{EntryError, EntryName};
use crate::limits::Limits;
use std::io::{self, Seek, Write};

const OPAQUE: &[u8] = b"trusted.overlay.opaque";

/// Why an entry cannot be added.
#[derive(Debug)]
pub(crate) enum FsError {
    Write(io::Error),
    Refused(EntryError),
}

impl From<io::Error> for FsError {
    fn from(error: io::Error) -> Self {
        FsError::Write(error)
    }
}

impl From<EntryError> for FsError {
    fn from(error: EntryError) -> Self {
        FsError::Refused(error)
    }
}

/// A name in an existing directory; without a name, the root directory.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    parent: u32,
    name: Option<Box<[u8]>>,
}

impl Place {
    /// Another name in the same directory.
    pub(crate) fn sibling(&self, name: &[u8]) -> Self {
        Place {
            parent: self.parent,
            name: Some(name.into()),
        }
    }
}

/// A regular file whose content is being written.
struct Open {
    inode: u32,
    start: u32,
    left: u64,
}

/// Writes one ext4 image.
pub(crate) struct Writer<'w, W> {
    out: BlockWriter<'w, W>,
    /// Inode `n` at index `n - 1`; `None` if unused.
    inodes: Vec<Option<Inode>>,
    /// Names made by hard links.
    hard_links: u32,
    open: Option<Open>,
    /// Runs of blocks of files replaced by later entries.
    freed: Vec<(u32, u32)>,
    directory_xattr_bytes: usize,
    limits: Limits,
}

impl<'w, W: Write + Seek> Writer<'w, W> {
    /// An image with the root directory and `lost+found`, which e2fsck requires.
    pub(crate) fn new(out: &'w mut W, limits: &Limits) -> Result<Self, FsError> {
        let limits = Limits {
            max_image_bytes: limits.max_image_bytes.min(MAX_DISK_BYTES),
            ..*limits
        };
        let out = BlockWriter::new(out, 1 + DESCRIPTOR_BLOCKS as usize)?;
        let mut writer = Writer {
            out,
            inodes: vec![None],
            hard_links: 0,
            open: None,
            freed: Vec::new(),
            directory_xattr_bytes: 0,
            limits,
        };
        let root = writer.make_inode(Attributes::new(FileType::Directory, 0o755), None)?;
        writer.inode_mut(root).links += 1; // the root is its own parent
        writer.inodes.resize_with(FIRST_INODE as usize - 1, || None);
        let place = Place {
            parent: root,
            name: Some(b"lost+found".as_slice().into()),
        };
        writer.create(&place, Attributes::new(FileType::Directory, 0o700))?;
        Ok(writer)
    }

    /// Finds the directory of `path`. Missing directories are created with owner, mode and times of their parent.
    pub(crate) fn place(&mut self, path: &CleanPath) -> Result<Place, FsError> {
        self.close_file()?;
        let Some((parents, name)) = path.split() else {
            return Ok(Place {
                parent: ROOT_INODE,
                name: None,
            });
        };
        let mut parent = ROOT_INODE;
        for component in parents {
            let Some(directory) = &self.inode(parent).directory else {
                return Err(not_a_directory(component));
            };
            parent = match directory.children.get(component) {
                Some(child) => *child,
                None => {
                    let place = Place {
                        parent,
                        name: Some(component.into()),
                    };
                    self.create(&place, self.attributes(parent))?
                }
            };
            if !self.inode(parent).is_directory() {
                return Err(not_a_directory(component));
            }
        }
        Ok(Place {
            parent,
            name: Some(name.into()),
        })
    }

    /// Creates a file, or replaces an existing one. [`Self::write`] adds the content of a regular file.
    pub(crate) fn create(&mut self, place: &Place, attributes: Attributes) -> Result<u32, FsError> {
        self.close_file()?;
        let becomes_directory = attributes.file_type == FileType::Directory;
        let size = attributes.size;
        let regular = attributes.file_type == FileType::Regular;
        let existing = self.existing(place);
        let reuse = match existing.map(|number| (number, self.inode(number))) {
            Some((_, inode)) if inode.is_directory() && !becomes_directory => return Err(EntryError::ReplacesDirectory.into()),
            Some((_, inode)) if !inode.is_directory() && becomes_directory => return Err(EntryError::ReplacesFile.into()),
            Some((number, inode)) if inode.is_directory() => Some(number),
            // Written content keeps its blocks, so its inode is not reused. hcsshim refuses such layers.
            Some((number, inode)) if inode.links < 2 => {
                if matches!(inode.body, Body::Run { .. }) {
                    None
                } else {
                    Some(number)
                }
            }
            Some(_) => None,
            None if becomes_directory && self.inode(place.parent).links >= MAX_LINKS => return Err(EntryError::TooManyLinks.into()),
            None => None,
        };
        let number = self.make_inode(attributes, reuse)?;
        if existing != Some(number) {
            self.unlink(existing);
            self.link_name(place, number);
            self.inode_mut(place.parent).links += u32::from(becomes_directory);
        }
        if regular && size > 0 {
            self.open = Some(Open {
                inode: number,
                start: self.out.block(),
                left: size,
            });
        }
        Ok(number)
    }

    /// Adds a hard link to `target`, which may be a symbolic link.
    pub(crate) fn link(&mut self, place: &Place, target: &CleanPath, shown: &[u8]) -> Result<(), FsError> {
        self.close_file()?;
        let missing = || EntryError::NoLinkTarget(EntryName::new(shown));
        let bad = || EntryError::BadLinkTarget(EntryName::new(shown));
        let number = self.find(target).ok_or_else(missing)?;
        let existing = self.existing(place);
        if self.inode(number).is_directory() || existing == Some(number) && self.inode(number).links < 2 {
            return Err(bad().into());
        }
        if existing.is_some_and(|existing| self.inode(existing).is_directory()) {
            return Err(EntryError::ReplacesDirectory.into());
        }
        if existing == Some(number) {
            return Ok(());
        }
        if self.inode(number).links >= MAX_LINKS {
            return Err(EntryError::TooManyLinks.into());
        }
        if existing.is_none() {
            self.hard_links += 1;
        }
        if self.hard_links > self.limits.max_inodes {
            return Err(EntryError::TooManyInodes {
                limit: self.limits.max_inodes,
            }
            .into());
        }
        self.unlink(existing);
        self.link_name(place, number);
        Ok(())
    }

    /// Marks the directory of `place` as opaque: it hides the content of lower layers.
    pub(crate) fn make_opaque(&mut self, place: &Place) -> Result<(), FsError> {
        let number = place.parent;
        let mut attributes = self.attributes(number);
        let inode = self.inode(number);
        if let Some(directory) = &inode.directory {
            attributes.xattrs = directory.block_xattrs.clone();
        }
        attributes
            .xattrs
            .extend(inode.xattrs.iter().flat_map(|area| xattr::decode_inline(area)));
        attributes.xattrs.insert(OPAQUE.to_vec(), b"y".to_vec());
        self.make_inode(attributes, Some(number)).map(drop)
    }

    /// Appends to the content of the file created last.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), FsError> {
        if self.take_content(bytes.len() as u64) {
            self.out.write(bytes)?;
        }
        Ok(())
    }

    /// Appends `length` zeros to the content of the file created last.
    pub(crate) fn write_zeros(&mut self, length: u64) -> Result<(), FsError> {
        if self.take_content(length) {
            self.out.zeros(length)?;
        }
        Ok(())
    }

    /// Whether the file created last takes `length` more bytes. The content of a whiteout or hard link goes nowhere.
    fn take_content(&mut self, length: u64) -> bool {
        match &mut self.open {
            Some(open) if open.left >= length => {
                open.left -= length;
                true
            }
            _ => false,
        }
    }

    /// Ends the content of the file created last, whose run of blocks is now known.
    fn close_file(&mut self) -> Result<(), FsError> {
        let Some(Open {
            inode: number,
            start,
            left,
        }) = self.open.take()
        else {
            return Ok(());
        };
        if left > 0 {
            return Err(EntryError::Truncated.into());
        }
        self.close_run(number, start)
    }

    fn close_run(&mut self, number: u32, start: u32) -> Result<(), FsError> {
        self.out.pad_to_block()?;
        let blocks = self.out.block() - start;
        self.inode_mut(number).body = Body::Run { start, blocks };
        if let Some(block) = self.inode(number).index_block() {
            self.reserve(BLOCK_BYTES as u64)?;
            self.out.write(&*block)?;
        }
        Ok(())
    }

    /// Fills a new inode, or an existing one without content; returns its number.
    fn make_inode(&mut self, attributes: Attributes, reuse: Option<u32>) -> Result<u32, FsError> {
        if reuse.is_none() && self.inodes.len() as u64 >= u64::from(self.limits.max_inodes) {
            return Err(EntryError::TooManyInodes {
                limit: self.limits.max_inodes,
            }
            .into());
        }
        if attributes.size > MAX_FILE_BYTES {
            return Err(EntryError::FileTooLarge {
                size: attributes.size,
                limit: MAX_FILE_BYTES,
            }
            .into());
        }
        // Content and link target, and three blocks for attributes and padding.
        self.reserve(attributes.size + attributes.target.len() as u64 + 3 * BLOCK_BYTES as u64)?;
        let mode = attributes.mode();
        let is_directory = attributes.file_type == FileType::Directory;
        let old = reuse.and_then(|number| self.inodes[number as usize - 1].take());

        let mut xattrs = attributes.xattrs;
        if let Some(area) = old.as_ref().and_then(|old| old.xattrs.as_ref()) {
            for (name, value) in xattr::decode_inline(area) {
                xattrs.entry(name).or_insert(value);
            }
        }
        let encoded = xattr::encode(&xattrs)?;
        let old_block = old.as_ref().map_or(0, |old| old.xattr_block);
        let xattr_block = match (&encoded.block, old_block) {
            (None, 0) => 0,
            (None, block) => self.out.rewrite(block, &xattr::empty_block()).map(|()| block)?,
            (Some(content), 0) => {
                let block = self.out.block();
                self.out.write(&**content).map(|()| block)?
            }
            (Some(content), block) => self.out.rewrite(block, content).map(|()| block)?,
        };
        let (links, mut directory) = match old {
            Some(old) => (old.links, old.directory),
            None => (u32::from(is_directory), is_directory.then(Box::default)),
        };
        if let Some(directory) = &mut directory {
            self.keep_block_xattrs(directory, encoded.block.as_ref().map(|block| xattr::decode_block(block)))?;
        }
        let body = match attributes.file_type {
            FileType::Symlink if attributes.target.len() <= SHORT_LINK_BYTES => Body::ShortLink(attributes.target.as_slice().into()),
            FileType::CharDevice | FileType::BlockDevice => Body::Device {
                major: attributes.device.0,
                minor: attributes.device.1,
            },
            _ => Body::Empty,
        };
        let size = match attributes.file_type {
            FileType::Regular => attributes.size,
            FileType::Symlink => attributes.target.len() as u64,
            _ => 0,
        };
        let inode = Inode {
            mode,
            uid: attributes.uid,
            gid: attributes.gid,
            links,
            size,
            atime: DiskTime::from(attributes.atime),
            ctime: DiskTime::from(attributes.ctime),
            mtime: DiskTime::from(attributes.mtime),
            crtime: DiskTime::from(attributes.crtime),
            xattrs: encoded.inline,
            xattr_block,
            body,
            directory,
        };
        let number = match reuse {
            Some(number) => {
                self.inodes[number as usize - 1] = Some(inode);
                number
            }
            None => {
                self.inodes.push(Some(inode));
                self.inodes.len() as u32
            }
        };
        if attributes.file_type == FileType::Symlink && attributes.target.len() > SHORT_LINK_BYTES {
            let start = self.out.block();
            self.out.write(&attributes.target)?;
            self.close_run(number, start)?;
        }
        Ok(number)
    }

    /// Keeps the attributes in a directory's attribute block, within the limit.
    fn keep_block_xattrs(&mut self, directory: &mut Directory, xattrs: Option<Vec<(Vec<u8>, Vec<u8>)>>) -> Result<(), EntryError> {
        let weight = |xattrs: &Xattrs| xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let before = weight(&directory.block_xattrs);
        directory.block_xattrs = xattrs.into_iter().flatten().collect();
        self.directory_xattr_bytes = self.directory_xattr_bytes - before + weight(&directory.block_xattrs);
        let limit = self.limits.max_directory_xattr_bytes;
        if self.directory_xattr_bytes > limit {
            Err(EntryError::TooManyXattrs { limit })
        } else {
            Ok(())
        }
    }

    /// A directory's attributes, decoded from its inode as hcsshim does.
    fn attributes(&self, number: u32) -> Attributes {
        let inode = self.inode(number);
        Attributes {
            uid: inode.uid,
            gid: inode.gid,
            atime: inode.atime.time(),
            ctime: inode.ctime.time(),
            mtime: inode.mtime.time(),
            crtime: inode.crtime.time(),
            ..Attributes::new(FileType::Directory, inode.mode)
        }
    }

    fn existing(&self, place: &Place) -> Option<u32> {
        let Some(name) = &place.name else { return Some(ROOT_INODE) };
        self.inode(place.parent).directory.as_ref()?.children.get(name).copied()
    }

    fn find(&self, path: &CleanPath) -> Option<u32> {
        let Some((mut parents, name)) = path.split() else {
            return Some(ROOT_INODE);
        };
        let child = |number: u32, name: &[u8]| self.inode(number).directory.as_ref()?.children.get(name).copied();
        child(parents.try_fold(ROOT_INODE, child)?, name)
    }

    fn link_name(&mut self, place: &Place, number: u32) {
        if let (Some(name), Some(directory)) = (&place.name, &mut self.inode_mut(place.parent).directory) {
            directory.children.insert(name.clone(), number);
            self.inode_mut(number).links += 1;
        }
    }

    /// Removes one link from a file; removing the last one frees its inode and blocks.
    fn unlink(&mut self, number: Option<u32>) {
        let Some(number) = number else { return };
        self.inode_mut(number).links -= 1;
        if self.inode(number).links > 0 {
            return;
        }
        if let Some(inode) = self.inodes[number as usize - 1].take() {
            if let Body::Run { start, blocks } = inode.body {
                self.freed.push((start, blocks + inode.index_blocks()));
            }
            if inode.xattr_block != 0 {
                self.freed.push((inode.xattr_block, 1));
            }
        }
    }

    /// Checks the image limit before `bytes` more are written.
    fn reserve(&self, bytes: u64) -> Result<(), EntryError> {
        let limit = self.limits.max_image_bytes;
        if self.out.position().saturating_add(bytes) > limit {
            Err(EntryError::ImageTooLarge { limit })
        } else {
            Ok(())
        }
    }

    fn inode(&self, number: u32) -> &Inode {
        self.inodes[number as usize - 1]
            .as_ref()
            .expect("numbers in directories belong to inodes")
    }

    fn inode_mut(&mut self, number: u32) -> &mut Inode {
        self.inodes[number as usize - 1]
            .as_mut()
            .expect("numbers in directories belong to inodes")
    }
}

fn not_a_directory(name: &[u8]) -> FsError {
    EntryError::NotADirectory(EntryName::new(name)).into()
}
