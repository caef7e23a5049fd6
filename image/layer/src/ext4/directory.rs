//! Directories: names in memory while the image grows, linear directory blocks at its end.

use super::Fields;
use super::xattr::Xattrs;
use crate::BLOCK_BYTES;
use std::collections::BTreeMap;

/// Inode, record length, name length and type.
const ENTRY_BYTES: usize = 8;
/// Bytes that an entry must leave free in its block: room for the unused entry that fills the rest.
const CLOSING_BYTES: usize = 12;

/// The content of a directory.
#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) children: BTreeMap<Box<[u8]>, u32>,
    /// Attributes in its attribute block; an opaque whiteout later in the tar must preserve them.
    pub(super) block_xattrs: Xattrs,
}

impl Directory {
    /// Children in the order in which they are written: by inode number, hard links to one inode by name.
    pub(super) fn sorted(&self) -> Vec<(u32, &[u8])> {
        let mut children: Vec<_> = self.children.iter().map(|(name, inode)| (*inode, &**name)).collect();
        children.sort_unstable();
        children
    }
}

/// Packs entries into blocks and passes each full block to `emit`.
pub(crate) fn write_entries<'a, E>(
    entries: impl Iterator<Item = (u32, u8, &'a [u8])>,
    mut emit: impl FnMut(&[u8; BLOCK_BYTES]) -> Result<(), E>,
) -> Result<(), E> {
    let mut block = [0; BLOCK_BYTES];
    let mut used = 0;
    for (inode, file_type, name) in entries {
        let record = (ENTRY_BYTES + name.len()).next_multiple_of(4);
        if BLOCK_BYTES - used < record + CLOSING_BYTES {
            emit(close(&mut block, used))?;
            (block, used) = ([0; BLOCK_BYTES], 0);
        }
        block[used + 6] = name.len() as u8;
        block[used + 7] = file_type;
        Fields(&mut block[used..])
            .u32(0, inode)
            .u16(4, record as u16)
            .bytes(ENTRY_BYTES, name);
        used += record;
    }
    emit(close(&mut block, used))
}

/// Fills the rest of the block with an unused entry.
fn close(block: &mut [u8; BLOCK_BYTES], used: usize) -> &[u8; BLOCK_BYTES] {
    Fields(&mut block[used..]).u16(4, (BLOCK_BYTES - used) as u16);
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The records of a block fill it exactly, and hold the entries in order.
        #[test]
        fn blocks_hold_what_was_put_in(names in proptest::collection::vec(proptest::collection::vec(1u8.., 1..=255), 0..80)) {
            let mut found = Vec::new();
            let entries = names.iter().enumerate().map(|(index, name)| (index as u32 + 11, 1, name.as_slice()));
            write_entries(entries, |block| {
                let mut at = 0;
                while at < BLOCK_BYTES {
                    let record = usize::from(u16::from_le_bytes([block[at + 4], block[at + 5]]));
                    prop_assert!(record >= ENTRY_BYTES && record % 4 == 0 && at + record <= BLOCK_BYTES);
                    let name = &block[at + ENTRY_BYTES..][..usize::from(block[at + 6])];
                    if block[at..at + 4] != [0; 4] {
                        found.push(name.to_vec());
                    }
                    at += record;
                }
                Ok(())
            })?;
            prop_assert_eq!(found, names);
        }
    }
}
