//! Completes the image: directories, inode table, bitmaps, and last the blocks reserved at the start.

use super::{FsError, Writer};
use crate::BLOCK_BYTES;
use crate::blocks::BlockWriter;
use crate::error::EntryError;
use crate::ext4::directory::write_entries;
use crate::ext4::inode::{FileType, Inode};
use crate::ext4::tables::{self, DESCRIPTOR_BLOCKS, DESCRIPTOR_BYTES, Geometry, Totals};
use crate::ext4::{INODE_BYTES, ROOT_INODE, TYPE_MASK};
use std::io::{Seek, Write};

impl<'w, W: Write + Seek> Writer<'w, W> {
    /// Writes directories and tables, then superblock and descriptors; the image is then complete.
    pub(crate) fn finish(mut self) -> Result<BlockWriter<'w, W>, FsError> {
        self.close_file()?;
        self.write_directories()?;
        let too_large = EntryError::ImageTooLarge {
            limit: self.limits.max_image_bytes,
        };
        let geometry = match Geometry::new(self.out.block(), self.inodes.len() as u32) {
            Some(geometry) if u64::from(geometry.disk_blocks) * BLOCK_BYTES as u64 <= self.limits.max_image_bytes => geometry,
            _ => return Err(too_large.into()),
        };
        for inode in &self.inodes {
            self.out.write(&inode.as_ref().map_or([0; INODE_BYTES], Inode::encode))?;
        }
        self.out
            .zeros(u64::from(geometry.bitmaps) * BLOCK_BYTES as u64 - self.out.position())?;

        let mut descriptors = vec![0; DESCRIPTOR_BLOCKS as usize * BLOCK_BYTES];
        let mut totals = Totals::default();
        for (index, slot) in (0..geometry.groups).zip(descriptors.chunks_exact_mut(DESCRIPTOR_BYTES)) {
            let group = tables::group(&geometry, index, &self.inodes, &self.freed, &mut totals);
            self.out.write(&group.bitmaps)?;
            slot.copy_from_slice(&group.descriptor);
        }
        self.out
            .zeros(u64::from(geometry.disk_blocks - geometry.end) * BLOCK_BYTES as u64)?;

        for (block, content) in (1..).zip(descriptors.as_chunks::<BLOCK_BYTES>().0) {
            self.out.rewrite(block, content)?;
        }
        self.out.rewrite(0, &tables::superblock(&geometry, &totals))?;
        Ok(self.out)
    }

    /// Writes directories from the root down, each as one run of blocks.
    fn write_directories(&mut self) -> Result<(), FsError> {
        let mut waiting = vec![(ROOT_INODE, ROOT_INODE)];
        while let Some((number, parent)) = waiting.pop() {
            let start = self.out.block();
            let limit = self.limits.max_image_bytes;
            let Writer { out, inodes, .. } = &mut *self;
            let mode = |number: u32| inodes[number as usize - 1].as_ref().map_or(0, |inode| inode.mode);
            let directory = inodes[number as usize - 1].as_ref().and_then(|inode| inode.directory.as_ref());
            let children = directory.map(|directory| directory.sorted()).unwrap_or_default();
            let dots = [(number, b".".as_slice()), (parent, b"..")];
            let entries = dots.into_iter().chain(children.iter().copied());
            write_entries(
                entries.map(|(child, name)| (child, FileType::directory_code(mode(child)), name)),
                |block| {
                    if out.position() + BLOCK_BYTES as u64 > limit {
                        return Err(FsError::from(EntryError::ImageTooLarge { limit }));
                    }
                    Ok(out.write(block)?)
                },
            )?;
            let is_directory = |child: &u32| mode(*child) & TYPE_MASK == FileType::Directory as u16;
            waiting.extend(
                children
                    .iter()
                    .rev()
                    .map(|(child, _)| *child)
                    .filter(is_directory)
                    .map(|child| (child, number)),
            );
            let blocks = self.out.block() - start;
            self.inode_mut(number).size = u64::from(blocks) * BLOCK_BYTES as u64;
            self.close_run(number, start)?;
        }
        Ok(())
    }
}
