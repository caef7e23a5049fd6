//! The image as a sequence of 4 KiB blocks, written in order and hashed on the way; a few are rewritten later.

use crate::verity::{BLOCK_BYTES, DIGEST_BYTES, LeafHasher};
use std::io::{self, Seek, SeekFrom, Write};

/// Blocks buffered before they are hashed and written: enough to make system calls rare, few enough for the CPU cache.
const BUFFERED_BLOCKS: usize = 64;
const ZEROS: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];

/// Writes blocks and keeps the digest of each: the leaves of the verity tree.
pub(crate) struct BlockWriter<'w, W> {
    out: &'w mut W,
    hasher: LeafHasher,
    /// Digests of the blocks before the buffer, 32 bytes each.
    leaves: Vec<u8>,
    /// The blocks that follow, the last of which may be incomplete; at most `BUFFERED_BLOCKS`.
    buffer: Vec<u8>,
}

impl<'w, W: Write + Seek> BlockWriter<'w, W> {
    /// Starts after `skipped` blocks, each of which the caller must pass to [`Self::rewrite`] before [`Self::finish`].
    pub(crate) fn new(out: &'w mut W, skipped: usize) -> io::Result<Self> {
        out.seek(SeekFrom::Start((skipped * BLOCK_BYTES) as u64))?;
        let leaves = vec![0; skipped * DIGEST_BYTES];
        Ok(BlockWriter {
            out,
            hasher: LeafHasher::new(),
            leaves,
            buffer: Vec::with_capacity(BUFFERED_BLOCKS * BLOCK_BYTES),
        })
    }

    /// Offset of the next byte in the image.
    pub(crate) fn position(&self) -> u64 {
        self.written_blocks() * BLOCK_BYTES as u64 + self.buffer.len() as u64
    }

    /// Number of the block that holds the next byte.
    pub(crate) fn block(&self) -> u32 {
        (self.position() / BLOCK_BYTES as u64) as u32
    }

    pub(crate) fn write(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let room = BUFFERED_BLOCKS * BLOCK_BYTES - self.buffer.len();
            let (now, later) = data.split_at(room.min(data.len()));
            self.buffer.extend_from_slice(now);
            data = later;
            if self.buffer.len() == BUFFERED_BLOCKS * BLOCK_BYTES {
                self.flush_blocks()?;
            }
        }
        Ok(())
    }

    pub(crate) fn zeros(&mut self, mut count: u64) -> io::Result<()> {
        while count > 0 {
            let now = count.min(BLOCK_BYTES as u64);
            self.write(&ZEROS[..now as usize])?;
            count -= now;
        }
        Ok(())
    }

    pub(crate) fn pad_to_block(&mut self) -> io::Result<()> {
        self.zeros(self.position().next_multiple_of(BLOCK_BYTES as u64) - self.position())
    }

    /// Replaces a block before the current position.
    pub(crate) fn rewrite(&mut self, block: u32, content: &[u8; BLOCK_BYTES]) -> io::Result<()> {
        let written = self.written_blocks();
        if u64::from(block) >= written {
            let start = (u64::from(block) - written) as usize * BLOCK_BYTES;
            self.buffer[start..start + BLOCK_BYTES].copy_from_slice(content);
            return Ok(());
        }
        self.out.seek(SeekFrom::Start(u64::from(block) * BLOCK_BYTES as u64))?;
        self.out.write_all(content)?;
        self.out.seek(SeekFrom::Start(written * BLOCK_BYTES as u64))?;
        let leaf = block as usize * DIGEST_BYTES;
        self.leaves[leaf..leaf + DIGEST_BYTES].copy_from_slice(&self.hasher.hash(content));
        Ok(())
    }

    /// Flushes the buffer and returns the output, positioned after the last block, and the leaves.
    pub(crate) fn finish(mut self) -> io::Result<(&'w mut W, LeafHasher, Vec<u8>)> {
        self.pad_to_block()?;
        self.flush_blocks()?;
        Ok((self.out, self.hasher, self.leaves))
    }

    fn written_blocks(&self) -> u64 {
        (self.leaves.len() / DIGEST_BYTES) as u64
    }

    fn flush_blocks(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buffer)?;
        for block in self.buffer.chunks_exact(BLOCK_BYTES) {
            self.leaves.extend_from_slice(&self.hasher.hash(block));
        }
        self.buffer.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    proptest! {
        /// Whatever the sizes of the writes, the output is their concatenation and the leaves are the hashes of its blocks.
        #[test]
        fn leaves_describe_the_output(sizes in proptest::collection::vec(0usize..40_000, 0..30), rewritten in 0usize..200, seed: u8) {
            let mut out = Cursor::new(Vec::new());
            let mut expected = vec![0; BLOCK_BYTES];
            let mut writer = BlockWriter::new(&mut out, 1).unwrap();
            writer.rewrite(0, &[7; BLOCK_BYTES]).unwrap();
            expected.fill(7);
            for (index, size) in sizes.iter().enumerate() {
                if index % 3 == 0 {
                    writer.zeros(*size as u64).unwrap();
                    expected.resize(expected.len() + size, 0);
                } else {
                    let data: Vec<u8> = (0..*size).map(|byte| (byte as u8).wrapping_mul(31).wrapping_add(seed)).collect();
                    writer.write(&data).unwrap();
                    expected.extend(data);
                }
                prop_assert_eq!(writer.position(), expected.len() as u64);
            }
            let whole = expected.len() / BLOCK_BYTES;
            let block = rewritten % whole;
            writer.rewrite(block as u32, &[seed; BLOCK_BYTES]).unwrap();
            expected[block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES].fill(seed);
            expected.resize(expected.len().next_multiple_of(BLOCK_BYTES), 0);
            let (_, hasher, leaves) = writer.finish().unwrap();
            let again: Vec<u8> = expected.chunks(BLOCK_BYTES).flat_map(|block| hasher.hash(block)).collect();
            prop_assert_eq!(leaves, again);
            prop_assert_eq!(out.into_inner(), expected);
        }
    }
}
