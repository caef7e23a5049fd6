//! Chains of the receive queue that wait for a frame.

use super::{
    frame_io::{Frame, SLICES_MAX},
    header::{HEADER_BYTES, Header, set_buffers},
};
use crate::devices::virtio::{Buffers, Chain, Memory, Ring, RingError};
use std::collections::VecDeque;
use vm_memory::VolatileSlice;

/// Room for frames, in order of the queue.
#[derive(Default)]
pub struct Room<'m> {
    chains: VecDeque<Chain<'m>>,
    bytes: usize,
    slices: usize,
}

impl<'m> Room<'m> {
    /// Takes chains until there is room for `wanted` bytes, or for one frame in one chain if that is `None`; a chain without room for
    /// a header is returned empty. `false` if the queue has too few.
    pub fn fill(&mut self, ring: &mut Ring, memory: &'m Memory, wanted: Option<usize>) -> Result<bool, RingError> {
        while !self.has(wanted) {
            let Some(chain) = ring.pop(memory)? else {
                // More than all of them cannot be had.
                return Ok(self.chains.len() == usize::from(ring.size()));
            };
            let slices = chain.writable.slices().count();
            if chain.writable.len() < HEADER_BYTES || slices > SLICES_MAX {
                ring.push_used(memory, chain.head, 0)?;
                continue;
            }
            self.bytes += chain.writable.len();
            self.slices += slices;
            self.chains.push_back(chain);
        }
        Ok(true)
    }

    fn has(&self, wanted: Option<usize>) -> bool {
        match wanted {
            Some(bytes) => self.bytes >= bytes || self.slices >= SLICES_MAX,
            None => !self.chains.is_empty(),
        }
    }

    /// The guest memory for the next frame.
    pub fn slices(&self) -> impl Iterator<Item = &VolatileSlice<'m>> {
        self.chains.iter().flat_map(|chain| chain.writable.slices())
    }

    /// Returns to the driver the chains that a frame fills, its header being `header`.
    pub fn deliver(&mut self, ring: &mut Ring, memory: &Memory, frame: &Frame, mut header: Header) -> Result<(), RingError> {
        let mut rest = HEADER_BYTES + frame.bytes;
        let mut first: Option<Buffers<'m>> = None;
        let mut used = Vec::new();
        while rest > 0
            && let Some(chain) = self.chains.pop_front()
        {
            let length = chain.writable.len().min(rest);
            self.bytes -= chain.writable.len();
            self.slices -= chain.writable.slices().count();
            rest -= length;
            used.push((chain.head, length as u32));
            first.get_or_insert(chain.writable);
        }
        set_buffers(&mut header, used.len() as u16);
        // Each chain has room for a header.
        let _ = first.map(|mut buffers| buffers.write_all(&header));
        ring.push_used_together(memory, &used)
    }

    /// Gives the chains that no frame has filled back to the queue.
    pub fn give_back(self, ring: &mut Ring) {
        self.chains.iter().for_each(|_| ring.undo_pop());
    }
}
