//! Position and size of a layer image on the layer disk.

use super::DecodeError;

/// Sectors of a block of ext4 and of the hash tree.
const SECTORS_PER_BLOCK: u64 = layer::BLOCK_BYTES as u64 / 512;
/// The extent of a layer image; consistent in itself, not yet checked against the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    first_sector: u64,
    data_blocks: u64,
    total_blocks: u64,
}

impl Geometry {
    /// An image of `total_blocks` blocks of 4096 bytes starting at the 512-byte sector `first_sector`: `data_blocks` of ext4, the
    /// dm-verity superblock, and the hash tree.
    ///
    /// # Errors
    /// The numbers contradict each other.
    pub fn new(first_sector: u64, data_blocks: u64, total_blocks: u64) -> Result<Self, DecodeError> {
        if !first_sector.is_multiple_of(SECTORS_PER_BLOCK) {
            return Err(DecodeError::Geometry("first_sector is not the start of a block"));
        }
        let end = total_blocks
            .checked_mul(SECTORS_PER_BLOCK)
            .and_then(|sectors| sectors.checked_add(first_sector));
        // In places the kernel counts sectors in signed 64-bit numbers.
        if end.is_none_or(|end| end > i64::MAX as u64) {
            return Err(DecodeError::Geometry("the end is beyond any disk"));
        }
        if data_blocks == 0 {
            return Err(DecodeError::Geometry("there is no data"));
        }
        // Bounded by total_blocks first, so that the sum below cannot overflow.
        if data_blocks > total_blocks || data_blocks + 1 + layer::hash_blocks(data_blocks) > total_blocks {
            return Err(DecodeError::Geometry("total_blocks has no room for data, superblock and hash tree"));
        }
        Ok(Self {
            first_sector,
            data_blocks,
            total_blocks,
        })
    }

    /// First 512-byte sector.
    pub fn first_sector(&self) -> u64 {
        self.first_sector
    }

    /// 4096-byte blocks of ext4; the dm-verity superblock follows.
    pub fn data_blocks(&self) -> u64 {
        self.data_blocks
    }

    /// 512-byte sectors in total.
    pub fn sectors(&self) -> u64 {
        self.total_blocks * SECTORS_PER_BLOCK
    }

    /// 512-byte sectors of ext4.
    pub fn data_sectors(&self) -> u64 {
        self.data_blocks * SECTORS_PER_BLOCK
    }

    /// First sector after the image.
    pub fn end_sector(&self) -> u64 {
        self.first_sector + self.sectors()
    }
}
