//! The bytes of a descriptor chain in one direction, as a cursor over slices of guest memory.

use super::Memory;
use std::collections::VecDeque;
use vm_memory::{GuestAddress, GuestMemory, Permissions, VolatileSlice};

/// The chain holds fewer bytes than the request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the descriptor chain is too short")]
pub struct ShortBuffer;

/// A queue of slices of guest memory, consumed from the front. The guest may change the bytes at any time.
#[derive(Clone, Debug, Default)]
pub struct Buffers<'m> {
    slices: VecDeque<VolatileSlice<'m>>,
    len: usize,
}

impl<'m> Buffers<'m> {
    /// Appends `len` bytes of guest memory at `address`; `None` if any of them is not guest memory.
    pub(super) fn push(&mut self, memory: &'m Memory, address: GuestAddress, len: usize, access: Permissions) -> Option<()> {
        let total = self.len.checked_add(len)?;
        for slice in memory.get_slices(address, len, access).ok()? {
            self.slices.push_back(slice.ok()?);
        }
        self.len = total;
        Some(())
    }

    /// Bytes left.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no byte is left.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The slices left, in order.
    pub fn slices(&self) -> impl Iterator<Item = &VolatileSlice<'m>> {
        self.slices.iter()
    }

    /// Fills `data` from the front.
    pub fn read_exact(&mut self, data: &mut [u8]) -> Result<(), ShortBuffer> {
        let part = self.split_to(data.len())?;
        let mut filled = 0;
        for slice in &part.slices {
            filled += slice.copy_to(&mut data[filled..]);
        }
        Ok(())
    }

    /// Writes `data` to the front.
    pub fn write_all(&mut self, data: &[u8]) -> Result<(), ShortBuffer> {
        let part = self.split_to(data.len())?;
        let mut written = 0;
        for slice in &part.slices {
            let n = slice.len();
            slice.copy_from(&data[written..written + n]);
            written += n;
        }
        Ok(())
    }

    /// Removes the first `count` bytes and returns them.
    pub fn split_to(&mut self, count: usize) -> Result<Buffers<'m>, ShortBuffer> {
        if count > self.len {
            return Err(ShortBuffer);
        }
        let mut front = Buffers::default();
        while front.len < count {
            let slice = self.slices.pop_front().ok_or(ShortBuffer)?;
            let wanted = count - front.len;
            if slice.len() > wanted {
                let (head, tail) = slice.split_at(wanted).map_err(|_| ShortBuffer)?;
                self.slices.push_front(tail);
                front.push_slice(head);
            } else {
                front.push_slice(slice);
            }
        }
        self.len -= count;
        Ok(front)
    }

    fn push_slice(&mut self, slice: VolatileSlice<'m>) {
        self.len += slice.len();
        self.slices.push_back(slice);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vm_memory::Bytes;

    fn memory() -> Memory {
        Memory::from_ranges(&[
            (GuestAddress(0), 0x1000),
            (GuestAddress(0x1000), 0x1000),
            (GuestAddress(0x4000), 0x1000),
        ])
        .unwrap()
    }

    #[test]
    fn ranges_outside_memory_are_refused_and_adjacent_regions_join() {
        let memory = memory();
        let mut buffers = Buffers::default();
        for (address, len) in [(0x1fff, 2), (0x2000, 1), (0x4fff, 2), (u64::MAX, 2), (0, usize::MAX), (0x3fff, 1)] {
            assert!(
                buffers.push(&memory, GuestAddress(address), len, Permissions::Read).is_none(),
                "{address:#x}"
            );
        }
        assert_eq!(buffers.len(), 0);
        let mut buffers = Buffers::default();
        buffers.push(&memory, GuestAddress(0xff0), 0x20, Permissions::Write).unwrap();
        buffers.write_all(&[7; 0x20]).unwrap();
        assert_eq!(memory.read_obj::<[u8; 0x20]>(GuestAddress(0xff0)).unwrap(), [7; 0x20]);
        assert!(buffers.is_empty());
    }

    proptest! {
        #[test]
        fn reading_in_pieces_gives_the_bytes_in_order(
            lens in proptest::collection::vec(0usize..300, 1..8),
            cuts in proptest::collection::vec(0usize..400, 1..12),
        ) {
            let memory = memory();
            let mut buffers = Buffers::default();
            let mut wanted = Vec::new();
            for (i, len) in lens.iter().enumerate() {
                // Descending addresses, so that the order of the chain is not that of memory.
                let address = GuestAddress(0xe00 - 0x180 * i as u64);
                let bytes: Vec<u8> = (0..*len).map(|b| (b * 7 + i) as u8).collect();
                memory.write_slice(&bytes, address).unwrap();
                buffers.push(&memory, address, *len, Permissions::Read).unwrap();
                wanted.extend(bytes);
            }
            let mut got = Vec::new();
            for cut in cuts {
                let mut piece = vec![0; cut];
                match buffers.read_exact(&mut piece) {
                    Ok(()) => got.extend(piece),
                    Err(ShortBuffer) => prop_assert!(got.len() + cut > wanted.len()),
                }
                prop_assert_eq!(buffers.len(), wanted.len() - got.len());
            }
            prop_assert_eq!(&got[..], &wanted[..got.len()]);
        }
    }
}
