//! Extended attributes: as many as fit in the inode, the rest in one block (kernel: `fs/ext4/xattr.h`).

use super::Fields;
use crate::BLOCK_BYTES;
use crate::error::{EntryError, EntryName};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Bytes after the inode's fixed part (152 of 256), less the magic number.
pub(crate) const INLINE_BYTES: usize = 100;
pub(super) const MAGIC: u32 = 0xea02_0000;
/// Header of the attribute block.
const BLOCK_HEADER_BYTES: usize = 32;
const BLOCK_AREA_BYTES: usize = BLOCK_BYTES - BLOCK_HEADER_BYTES;
/// Four zero bytes end a list of entries.
const LIST_END_BYTES: usize = 4;
const ENTRY_BYTES: usize = 16;
/// Prefixes that are stored as a number, in the order in which they are tried.
const PREFIXES: [(u8, &[u8]); 7] = [
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (8, b"system.richacl"),
    (7, b"system."),
    (1, b"user."),
    (4, b"trusted."),
    (6, b"security."),
];

/// Attributes by full name, sorted: the order decides which are stored in the inode.
pub(crate) type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;
pub(super) type InlineArea = [u8; INLINE_BYTES];

/// One attribute with its prefix replaced by the number.
struct Stored<'a> {
    index: u8,
    name: &'a [u8],
    value: &'a [u8],
}

/// The attributes as stored in the inode and in the block.
pub(super) struct Encoded {
    pub(super) inline: Option<Box<InlineArea>>,
    /// The attribute block; `None` if it would be empty.
    pub(super) block: Option<Box<[u8; BLOCK_BYTES]>>,
}

impl Stored<'_> {
    fn entry_bytes(&self) -> usize {
        self.name.len().next_multiple_of(4) + ENTRY_BYTES
    }

    fn value_bytes(&self) -> usize {
        self.value.len().next_multiple_of(4)
    }
}

/// Stores the attributes in name order: in the inode while there is room, then in the block.
pub(super) fn encode(xattrs: &Xattrs) -> Result<Encoded, EntryError> {
    let mut inline = (Vec::new(), INLINE_BYTES - LIST_END_BYTES);
    let mut block = (Vec::new(), BLOCK_AREA_BYTES - LIST_END_BYTES);
    for (name, value) in xattrs {
        let (index, short) = compress(name);
        let stored = Stored { index, name: short, value };
        let bytes = stored.entry_bytes() + stored.value_bytes();
        let too_large = stored.name.len() > usize::from(u8::MAX);
        let place = [&mut inline, &mut block].into_iter().find(|(_, left)| *left >= bytes && !too_large);
        let (list, left) = place.ok_or_else(|| EntryError::XattrTooLarge(EntryName::new(name)))?;
        list.push(stored);
        *left -= bytes;
    }
    Ok(Encoded {
        inline: encode_inline(&inline.0),
        block: encode_block(block.0),
    })
}

/// An attribute block without attributes: replaces the block of an inode whose attributes no longer need it.
pub(super) fn empty_block() -> Box<[u8; BLOCK_BYTES]> {
    let mut content = Box::new([0; BLOCK_BYTES]);
    // Reference count and number of blocks.
    Fields(&mut *content).u32(0, MAGIC).u32(4, 1).u32(8, 1);
    content
}

fn encode_inline(list: &[Stored]) -> Option<Box<InlineArea>> {
    let mut area = Box::new([0; INLINE_BYTES]);
    put(list, &mut *area, 0);
    (!list.is_empty()).then_some(area)
}

fn encode_block(mut list: Vec<Stored>) -> Option<Box<[u8; BLOCK_BYTES]>> {
    sort(&mut list);
    let mut content = empty_block();
    put(&list, &mut content[BLOCK_HEADER_BYTES..], BLOCK_HEADER_BYTES);
    (!list.is_empty()).then_some(content)
}

/// hcsshim's comparison is not a total order (any of number, length and name may decide), so the result depends on
/// the algorithm: Go uses insertion sort up to 12 attributes. No image tool writes more; those are sorted as in the kernel.
fn sort(list: &mut [Stored]) {
    if list.len() > 12 {
        list.sort_by(|a, b| (a.index, a.name.len(), a.name).cmp(&(b.index, b.name.len(), b.name)));
        return;
    }
    let less = |a: &Stored, b: &Stored| a.index < b.index || a.name.len() < b.name.len() || a.name.cmp(b.name) == Ordering::Less;
    for sorted in 1..list.len() {
        let mut at = sorted;
        while at > 0 && less(&list[at], &list[at - 1]) {
            list.swap(at, at - 1);
            at -= 1;
        }
    }
}

/// Writes entries from the front and values from the back; offsets count from `delta` bytes before the area.
fn put(list: &[Stored], area: &mut [u8], delta: usize) {
    let (mut entry, mut value) = (0, area.len());
    for stored in list {
        value -= stored.value_bytes();
        area[entry] = stored.name.len() as u8;
        area[entry + 1] = stored.index;
        Fields(&mut area[entry..])
            .u16(2, (value + delta) as u16)
            .u32(8, stored.value.len() as u32)
            .u32(12, hash(stored.name, stored.value))
            .bytes(ENTRY_BYTES, stored.name);
        area[value..value + stored.value.len()].copy_from_slice(stored.value);
        entry += stored.entry_bytes();
    }
}

/// Decodes an area that [`encode`] wrote, up to the first entry with an empty short name (an access control list):
/// hcsshim takes that for the end of the list.
pub(super) fn decode_inline(area: &InlineArea) -> Vec<(Vec<u8>, Vec<u8>)> {
    decode(area, 0)
}

/// The same for an attribute block.
pub(super) fn decode_block(block: &[u8; BLOCK_BYTES]) -> Vec<(Vec<u8>, Vec<u8>)> {
    decode(&block[BLOCK_HEADER_BYTES..], BLOCK_HEADER_BYTES)
}

fn decode(area: &[u8], delta: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let mut entry = 0;
    while area[entry] != 0 {
        let name_end = entry + ENTRY_BYTES + usize::from(area[entry]);
        let start = usize::from(u16::from_le_bytes([area[entry + 2], area[entry + 3]])) - delta;
        let length = u32::from_le_bytes([area[entry + 8], area[entry + 9], area[entry + 10], area[entry + 11]]) as usize;
        let name = decompress(area[entry + 1], &area[entry + ENTRY_BYTES..name_end]);
        found.push((name, area[start..start + length].to_vec()));
        entry = name_end.next_multiple_of(4);
    }
    found
}

fn compress(name: &[u8]) -> (u8, &[u8]) {
    let found = PREFIXES
        .iter()
        .find_map(|(index, prefix)| Some((*index, name.strip_prefix(*prefix)?)));
    found.unwrap_or((0, name))
}

fn decompress(index: u8, short: &[u8]) -> Vec<u8> {
    let prefix = PREFIXES
        .iter()
        .find(|(known, _)| *known == index)
        .map_or([].as_slice(), |(_, prefix)| prefix);
    [prefix, short].concat()
}

/// `ext4_xattr_hash_entry`.
fn hash(name: &[u8], value: &[u8]) -> u32 {
    let hash = name.iter().fold(0u32, |hash, byte| hash << 5 ^ hash >> 27 ^ u32::from(*byte));
    value.chunks(4).fold(hash, |hash, chunk| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        hash << 16 ^ hash >> 16 ^ u32::from_le_bytes(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attribute_name() -> impl Strategy<Value = Vec<u8>> {
        "(user|trusted|security|system)\\.[a-z]{1,40}|[a-z]{1,9}".prop_map(String::into_bytes)
    }

    proptest! {
        #[test]
        fn attributes_round_trip(xattrs in proptest::collection::btree_map(attribute_name(), proptest::collection::vec(any::<u8>(), 0..90), 0..12)) {
            let encoded = encode(&xattrs).unwrap();
            let mut back = Xattrs::new();
            back.extend(encoded.inline.iter().flat_map(|area| decode_inline(area)));
            back.extend(encoded.block.iter().flat_map(|block| decode_block(block)));
            prop_assert_eq!(back, xattrs);
        }
    }

    #[test]
    fn an_attribute_that_does_not_fit_is_refused_by_name() {
        let fits = Xattrs::from([(b"user.a".to_vec(), vec![1; 4060 - 16 - 4])]);
        assert!(encode(&fits).is_ok_and(|encoded| encoded.inline.is_none() && encoded.block.is_some()));
        for (name, value) in [
            (b"user.a".to_vec(), vec![1; 4060 - 16 - 3]),
            ([b"user.".as_slice(), &[b'n'; 256]].concat(), Vec::new()),
        ] {
            let refused = encode(&Xattrs::from([(name.clone(), value)])).err();
            assert_eq!(refused, Some(EntryError::XattrTooLarge(EntryName(name))));
        }
    }

    #[test]
    fn an_access_control_list_hides_the_attributes_after_it() {
        let xattrs = Xattrs::from([
            (b"security.a".to_vec(), b"1".to_vec()),
            (b"system.posix_acl_access".to_vec(), b"2".to_vec()),
            (b"user.b".to_vec(), b"3".to_vec()),
        ]);
        let area = encode(&xattrs).unwrap().inline.unwrap();
        assert_eq!(decode_inline(&area), [(b"security.a".to_vec(), b"1".to_vec())]);
    }
}
