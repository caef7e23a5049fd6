//! Maps of GNU sparse files: which parts of a file are in the tar; the rest are holes.

use super::number::{parse_decimal, parse_numeric};
use super::source::Source;
use super::{HeaderError, MAX_SPECIAL_BYTES, Problem, TAR_BLOCK_BYTES};

/// Most fragments of one file: as many as fit into the longest map in pax records.
const MAX_FRAGMENTS: usize = MAX_SPECIAL_BYTES as usize / 16;
/// Offset and length, 12 bytes each.
const FRAGMENT_BYTES: usize = 24;
/// An extension block: 21 fragments and a byte that says whether another block follows.
const EXTENSION_BYTES: usize = 21 * FRAGMENT_BYTES + 1;

/// A part of the file that the tar holds, in bytes of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    offset: i64,
    length: i64,
}

/// What comes next in the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Hole(u64),
    Data(u64),
    End,
}

/// A validated map and the read position: fragments are in order, do not overlap, and end within the file.
#[derive(Debug)]
pub(super) struct SparseMap {
    /// Start and end of each fragment.
    fragments: std::vec::IntoIter<(u64, u64)>,
    current: (u64, u64),
    position: u64,
    size: u64,
}

impl SparseMap {
    pub(super) fn new(fragments: Vec<Fragment>, size: i64) -> Result<Self, HeaderError> {
        let size = u64::try_from(size).map_err(|_| HeaderError::SparseMap)?;
        let mut end = 0;
        let mut checked = Vec::with_capacity(fragments.len());
        for Fragment { offset, length } in fragments {
            let (Ok(offset), Ok(length)) = (u64::try_from(offset), u64::try_from(length)) else {
                return Err(HeaderError::SparseMap);
            };
            if offset < end || offset + length > size {
                return Err(HeaderError::SparseMap);
            }
            end = offset + length;
            checked.push((offset, end));
        }
        Ok(SparseMap {
            fragments: checked.into_iter(),
            current: (0, 0),
            position: 0,
            size,
        })
    }

    /// The next part of the file. A hole counts as read at once, data when passed to [`Self::advance`].
    pub(super) fn step(&mut self) -> Step {
        while self.position >= self.current.1 {
            match self.fragments.next() {
                Some(fragment) => self.current = fragment,
                None => self.current = (self.size, u64::MAX),
            }
        }
        if self.position < self.current.0 {
            let hole = self.current.0 - self.position;
            self.position = self.current.0;
            return Step::Hole(hole);
        }
        if self.position == self.size {
            Step::End
        } else {
            Step::Data(self.current.1 - self.position)
        }
    }

    pub(super) fn advance(&mut self, bytes: u64) {
        self.position += bytes;
    }
}

/// Fragments of an old GNU header or extension block: they end at the first whose offset field starts with NUL.
/// True if another block follows.
pub(super) fn fragments(area: &[u8], map: &mut Vec<Fragment>) -> Result<bool, HeaderError> {
    let (entries, more) = area.split_at(area.len() - 1);
    for entry in entries.chunks_exact(FRAGMENT_BYTES).take_while(|entry| entry[0] != 0) {
        let (offset, length) = entry.split_at(FRAGMENT_BYTES / 2);
        let (Some(offset), Some(length)) = (parse_numeric(offset), parse_numeric(length)) else {
            return Err(HeaderError::SparseMap);
        };
        push(map, Fragment { offset, length })?;
    }
    Ok(more[0] != 0)
}

/// Fragments of an extension block after an old GNU header.
pub(super) fn extension_entries(block: &[u8; TAR_BLOCK_BYTES], map: &mut Vec<Fragment>) -> Result<bool, HeaderError> {
    let before = map.len();
    let more = fragments(&block[..EXTENSION_BYTES], map)?;
    // Refuse empty blocks: a chain of them would never end.
    if more && map.len() == before {
        Err(HeaderError::SparseMap)
    } else {
        Ok(more)
    }
}

/// Pairs of decimal numbers, as in pax records and in the map within the data.
pub(super) fn fragment_pairs<'a>(mut numbers: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Fragment>, HeaderError> {
    let mut map = Vec::new();
    while let Some(offset) = numbers.next() {
        let (Some(offset), Some(length)) = (parse_decimal(offset), numbers.next().and_then(parse_decimal)) else {
            return Err(HeaderError::SparseMap);
        };
        push(&mut map, Fragment { offset, length })?;
    }
    Ok(map)
}

fn push(map: &mut Vec<Fragment>, fragment: Fragment) -> Result<(), HeaderError> {
    if map.len() == MAX_FRAGMENTS {
        return Err(HeaderError::SparseMap);
    }
    map.push(fragment);
    Ok(())
}

/// The map of format 1.0: lines with the count and that many pairs, in whole tar blocks at the start of the data.
/// Returns the size of the map in bytes.
pub(super) fn map_in_data(source: &mut Source, available: u64) -> Result<(Vec<Fragment>, u64), Problem> {
    let mut text = Vec::new();
    let mut lines = 0;
    let mut wanted = 1;
    loop {
        while lines < wanted {
            if text.len() as u64 >= MAX_SPECIAL_BYTES {
                return Err(HeaderError::SpecialTooLong(text.len() as u64).into());
            }
            let mut block = [0; TAR_BLOCK_BYTES];
            if available - (text.len() as u64) < TAR_BLOCK_BYTES as u64 || source.fill(&mut block)? < TAR_BLOCK_BYTES {
                return Err(HeaderError::SparseMap.into());
            }
            lines += block.iter().filter(|byte| **byte == b'\n').count();
            text.extend_from_slice(&block);
        }
        let mut numbers = text.split(|byte| *byte == b'\n');
        let count = numbers.next().and_then(parse_decimal).and_then(|count| usize::try_from(count).ok());
        let count = count.filter(|count| *count <= MAX_FRAGMENTS).ok_or(HeaderError::SparseMap)?;
        if lines > 2 * count {
            return Ok((fragment_pairs(numbers.take(2 * count))?, text.len() as u64));
        }
        wanted = 2 * count + 1;
    }
}
