//! The dm-verity hash tree and its superblock (kernel: Documentation/admin-guide/device-mapper/verity.rst; cryptsetup: `verity.c`).

use crate::root_hash::RootHash;
use sha2::{Digest, Sha256};
use std::io::{self, Write};

/// Data and hash block size in bytes.
pub const BLOCK_BYTES: usize = 4096;
/// The salt hashed before every block: hcsshim uses 32 zero bytes, so the hashes in policies do.
pub const SALT: [u8; 32] = [0; 32];

pub(crate) const DIGEST_BYTES: usize = 32;
/// Digests in a block of the tree.
const DIGESTS: u64 = (BLOCK_BYTES / DIGEST_BYTES) as u64;

/// Blocks of the hash tree over `data_blocks` blocks, down to the one block that the root hash is the digest of, as the kernel
/// counts them (`drivers/md/dm-verity-target.c`, `verity_ctr`).
pub fn hash_blocks(data_blocks: u64) -> u64 {
    let mut sum = 0;
    let mut level = data_blocks;
    while level > 1 {
        level = level.div_ceil(DIGESTS);
        sum += level;
    }
    sum
}

/// Hashes one block as dm-verity's format 1 does: salt first.
pub(crate) struct LeafHasher {
    salted: Sha256,
    zero_block: [u8; DIGEST_BYTES],
}

impl LeafHasher {
    pub(crate) fn new() -> Self {
        let salted = Sha256::new_with_prefix(SALT);
        let zero_block = salted.clone().chain_update([0; BLOCK_BYTES]).finalize().into();
        LeafHasher { salted, zero_block }
    }

    pub(crate) fn hash(&self, block: &[u8]) -> [u8; DIGEST_BYTES] {
        // Padding, sparse files and unused metadata make many blocks of zeros; comparing is far cheaper than hashing.
        if block.len() == BLOCK_BYTES && is_zero(block) {
            return self.zero_block;
        }
        self.salted.clone().chain_update(block).finalize().into()
    }
}

fn is_zero(block: &[u8]) -> bool {
    block.chunks_exact(64).all(|line| line.iter().fold(0, |all, byte| all | byte) == 0)
}

/// Writes superblock and tree after the data blocks whose digests are `leaves`.
/// Returns the root and the number of blocks written.
pub(crate) fn append(out: &mut impl Write, hasher: &LeafHasher, leaves: Vec<u8>) -> io::Result<(RootHash, u64)> {
    let data_blocks = (leaves.len() / DIGEST_BYTES) as u64;
    let mut levels = vec![padded(leaves)];
    while levels[levels.len() - 1].len() > BLOCK_BYTES {
        let below = &levels[levels.len() - 1];
        let level = below.chunks_exact(BLOCK_BYTES).flat_map(|block| hasher.hash(block)).collect();
        levels.push(padded(level));
    }
    let root = RootHash(hasher.hash(&levels[levels.len() - 1]));

    out.write_all(&superblock(&root, data_blocks))?;
    let mut blocks = 1;
    for level in levels.iter().rev() {
        out.write_all(level)?;
        blocks += (level.len() / BLOCK_BYTES) as u64;
    }
    Ok((root, blocks))
}

/// Blocks of the levels of the tree that [`append`] writes over `data_blocks` blocks, the lowest level first. A single data
/// block has a level too.
fn levels(data_blocks: u64) -> Vec<u64> {
    let mut levels = vec![data_blocks.div_ceil(DIGESTS).max(1)];
    while levels[levels.len() - 1] > 1 {
        levels.push(levels[levels.len() - 1].div_ceil(DIGESTS));
    }
    levels
}

/// Blocks of image, superblock and tree of a layer with `data_blocks` blocks; `None` for a count that no file has.
pub fn total_blocks(data_blocks: u64) -> Option<u64> {
    levels(data_blocks)
        .into_iter()
        .try_fold(data_blocks.checked_add(1)?, u64::checked_add)
}

/// Whether an image is whole: superblock and tree are those of its data, and their root is `root`. `read_at` fills a buffer from an
/// offset in bytes. It takes a few blocks of memory, and ends at the first difference, whatever a hostile image says it is.
///
/// # Errors
/// When it cannot be read; one that ends early is not whole.
pub fn is_whole(read_at: &mut impl FnMut(&mut [u8], u64) -> io::Result<()>, data_blocks: u64, root: &RootHash) -> io::Result<bool> {
    match compare(read_at, data_blocks, root) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        other => other,
    }
}

fn compare(read_at: &mut impl FnMut(&mut [u8], u64) -> io::Result<()>, data_blocks: u64, root: &RootHash) -> io::Result<bool> {
    let hasher = LeafHasher::new();
    let Some(mut end) = total_blocks(data_blocks) else {
        return Ok(false);
    };
    let mut read = |buffer: &mut [u8; BLOCK_BYTES], block: u64| read_at(buffer, block.saturating_mul(BLOCK_BYTES as u64));
    let (mut below, mut tree) = ([0; BLOCK_BYTES], [0; BLOCK_BYTES]);
    read(&mut below, data_blocks)?;
    if below != superblock(root, data_blocks) {
        return Ok(false);
    }
    // The lowest level is the last in the file.
    let (mut first, mut count) = (0, data_blocks);
    for level in levels(data_blocks) {
        let start = end - level;
        for position in 0..level {
            read(&mut tree, start + position)?;
            for (slot, digest) in tree.chunks_exact(DIGEST_BYTES).enumerate() {
                let index = position * DIGESTS + slot as u64;
                let same = if index < count {
                    read(&mut below, first + index)?;
                    hasher.hash(&below) == digest
                } else {
                    digest.iter().all(|byte| *byte == 0)
                };
                if !same {
                    return Ok(false);
                }
            }
        }
        (first, count, end) = (start, level, start);
    }
    // `tree` is the topmost block.
    Ok(hasher.hash(&tree) == root.0)
}

fn padded(mut level: Vec<u8>) -> Vec<u8> {
    level.resize(level.len().next_multiple_of(BLOCK_BYTES).max(BLOCK_BYTES), 0);
    level
}

/// Superblock version 1, padded to a block. Its UUID derives from the root hash (RFC 9562, version 8), so that equal layers
/// give equal files. Nothing reads the UUID, and the root hash does not cover it.
fn superblock(root: &RootHash, data_blocks: u64) -> [u8; BLOCK_BYTES] {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&root.0[..16]);
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;

    let mut block = [0; BLOCK_BYTES];
    let mut put = |offset: usize, bytes: &[u8]| block[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, b"verity\0\0");
    put(8, &1u32.to_le_bytes()); // superblock version
    put(12, &1u32.to_le_bytes()); // hash type 1: the salt goes first
    put(16, &uuid);
    put(32, b"sha256");
    put(64, &(BLOCK_BYTES as u32).to_le_bytes());
    put(68, &(BLOCK_BYTES as u32).to_le_bytes());
    put(72, &data_blocks.to_le_bytes());
    put(80, &(SALT.len() as u16).to_le_bytes());
    put(88, &SALT);
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn the_tree_has_as_many_blocks_as_are_written() {
        for data_blocks in [2, 128, 129, 16_384, 16_385, 40_000] {
            let leaves = vec![1; data_blocks as usize * DIGEST_BYTES];
            let (_, written) = append(&mut io::sink(), &LeafHasher::new(), leaves).unwrap();
            assert_eq!(hash_blocks(data_blocks), written - 1, "{data_blocks}");
            assert_eq!(total_blocks(data_blocks), Some(data_blocks + written), "{data_blocks}");
        }
        for data_blocks in [0, 1] {
            let leaves = vec![1; data_blocks as usize * DIGEST_BYTES];
            let (_, written) = append(&mut io::sink(), &LeafHasher::new(), leaves).unwrap();
            assert_eq!(total_blocks(data_blocks), Some(data_blocks + written), "{data_blocks}");
        }
        assert_eq!(total_blocks(u64::MAX), None);
    }

    fn reference(data: &[u8]) -> [u8; 32] {
        let mut level: Vec<u8> = data.to_vec();
        loop {
            let mut above = Vec::new();
            for block in level.chunks(BLOCK_BYTES) {
                let mut salted = vec![0; 32];
                salted.extend_from_slice(block);
                salted.resize(32 + BLOCK_BYTES, 0);
                above.extend_from_slice(&Sha256::digest(&salted));
            }
            if level.len() <= BLOCK_BYTES && level.as_slice() != data {
                return above.try_into().unwrap();
            }
            level = above;
        }
    }

    fn tree(data: &[u8]) -> (RootHash, u64, Vec<u8>) {
        let hasher = LeafHasher::new();
        let leaves = data.chunks(BLOCK_BYTES).flat_map(|block| hasher.hash(block)).collect();
        let mut out = Vec::new();
        let (root, blocks) = append(&mut out, &hasher, leaves).unwrap();
        (root, blocks, out)
    }

    #[test]
    fn trees_of_every_height_have_the_root_of_a_recursive_definition() {
        for blocks in [2usize, 127, 128, 129, 16_384, 16_385] {
            let data: Vec<u8> = (0..blocks * BLOCK_BYTES).map(|at| (at / 7 + at / BLOCK_BYTES) as u8).collect();
            let (root, written, out) = tree(&data);
            assert_eq!(root.0, reference(&data), "{blocks} blocks");
            assert_eq!(out.len() as u64, written * BLOCK_BYTES as u64);
            // The guest recomputes the root from the block after the superblock.
            assert_eq!(LeafHasher::new().hash(&out[BLOCK_BYTES..2 * BLOCK_BYTES]), root.0);
        }
    }

    #[test]
    fn the_superblock_says_what_cryptsetup_reads() {
        let (root, _, out) = tree(&[1; 3 * BLOCK_BYTES]);
        assert_eq!(&out[..16], b"verity\0\0\x01\0\0\0\x01\0\0\0");
        assert_eq!(out[16..22], root.0[..6]);
        assert_eq!(out[22] >> 4, 8);
        assert_eq!(out[24] >> 6, 2);
        assert_eq!(&out[32..40], b"sha256\0\0");
        assert_eq!(out[64..80], [0, 16, 0, 0, 0, 16, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(out[80..82], [32, 0]);
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        let data: Vec<u8> = (0..200 * BLOCK_BYTES).map(|at| (at / 7) as u8).collect();
        let (root, _, tail) = tree(&data);
        let whole = [data, tail].concat();
        let check_as = |image: &[u8], root: &RootHash| {
            let mut read_at = |buffer: &mut [u8], offset: u64| image.get(offset as usize..).unwrap_or_default().read_exact(buffer);
            is_whole(&mut read_at, 200, root).unwrap()
        };
        let check = |image: &[u8]| check_as(image, &root);
        assert!(check(&whole));
        for at in [0, 777_777, 200 * BLOCK_BYTES, 201 * BLOCK_BYTES + 5, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(!check(&damaged), "byte {at}");
        }
        for short in [0, 5 * BLOCK_BYTES, whole.len() - 1] {
            assert!(!check(&whole[..short]), "{short} bytes");
        }
        assert!(!check_as(&whole, &RootHash([7; 32])));
    }

    /// A sparse file costs whoever wrote it nothing.
    #[test]
    fn a_difference_is_found_before_the_rest_is_read() {
        let data_blocks = (64 << 30) / BLOCK_BYTES as u64;
        let root = RootHash([7; 32]);
        let mut reads = 0;
        let mut read_at = |buffer: &mut [u8], offset: u64| {
            reads += 1;
            buffer.fill(0);
            if offset == data_blocks * BLOCK_BYTES as u64 {
                buffer.copy_from_slice(&superblock(&root, data_blocks));
            }
            Ok(())
        };
        assert!(!is_whole(&mut read_at, data_blocks, &root).unwrap());
        assert!(reads < 10, "{reads}");
    }
}
