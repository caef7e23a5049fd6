//! SHA-256 (FIPS 180-4) of pieces of RAM, over the machine's compression function.

use crate::machine::Machine;
use sha2::{compress256, digest::generic_array::GenericArray};

const BLOCK: usize = 64;
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// A hash under way; every piece but the last is whole blocks.
pub struct Sha256 {
    state: [u32; 8],
    bytes: u64,
}

impl Sha256 {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self { state: INITIAL, bytes: 0 }
    }

    /// Adds whole blocks; bytes after the last whole block are not hashed and not counted.
    pub fn blocks(&mut self, machine: &impl Machine, bytes: &[u8]) {
        let (blocks, _) = bytes.as_chunks::<BLOCK>();
        machine.compress(&mut self.state, blocks);
        self.bytes += blocks.as_flattened().len() as u64;
    }

    /// Adds the last piece and returns the digest.
    pub fn last(&mut self, machine: &impl Machine, bytes: &[u8]) -> [u8; 32] {
        let (_, rest) = bytes.as_chunks::<BLOCK>();
        self.blocks(machine, bytes);
        let bits = (self.bytes + rest.len() as u64) * 8;
        let mut end = [[0; BLOCK]; 2];
        end.as_flattened_mut()[..rest.len()].copy_from_slice(rest);
        end.as_flattened_mut()[rest.len()] = 0x80;
        let blocks = if rest.len() < BLOCK - 8 { 1 } else { 2 };
        end[blocks - 1][BLOCK - 8..].copy_from_slice(&bits.to_be_bytes());
        machine.compress(&mut self.state, &end[..blocks]);
        let mut digest = [0; 32];
        for (bytes, word) in digest.chunks_exact_mut(4).zip(self.state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        digest
    }
}

/// The compression function without SHA instructions.
pub fn soft(state: &mut [u32; 8], blocks: &[[u8; BLOCK]]) {
    for block in blocks {
        compress256(state, &[GenericArray::from(*block)]);
    }
}
