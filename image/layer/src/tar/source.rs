//! Reads the decompressed tar in small portions, counts its bytes and enforces the limit.

use crate::pipeline::Stream;
use oci::Digest;
use std::io;

#[derive(Debug)]
pub(super) enum SourceError {
    Read(io::Error),
    TooLong { limit: u64 },
}

pub(super) struct Source {
    stream: Stream,
    buffer: Vec<u8>,
    /// Bytes of the buffer already consumed.
    taken: usize,
    /// Bytes received from the stream.
    read: u64,
    limit: u64,
}

impl Source {
    pub(super) fn new(stream: Stream, limit: u64) -> Self {
        Source {
            stream,
            buffer: Vec::new(),
            taken: 0,
            read: 0,
            limit,
        }
    }

    /// Bytes consumed so far.
    pub(super) fn offset(&self) -> u64 {
        self.read - (self.buffer.len() - self.taken) as u64
    }

    /// Digest of the stream, once [`Self::take`] has reached its end.
    pub(super) fn digest(&self) -> Option<Digest> {
        self.stream.digest()
    }

    /// At least one and at most `most` bytes; empty only at the end of the stream.
    pub(super) fn take(&mut self, most: u64) -> Result<&[u8], SourceError> {
        if self.taken == self.buffer.len() {
            self.taken = 0;
            self.buffer = self.stream.next(std::mem::take(&mut self.buffer)).map_err(SourceError::Read)?;
            self.read += self.buffer.len() as u64;
            if self.read > self.limit {
                return Err(SourceError::TooLong { limit: self.limit });
            }
        }
        let start = self.taken;
        self.taken += most.min((self.buffer.len() - start) as u64) as usize;
        Ok(&self.buffer[start..self.taken])
    }

    /// Fills `target` and returns the number of bytes; fewer than requested only at the end of the stream.
    pub(super) fn fill(&mut self, target: &mut [u8]) -> Result<usize, SourceError> {
        let mut filled = 0;
        while filled < target.len() {
            let bytes = self.take((target.len() - filled) as u64)?;
            if bytes.is_empty() {
                break;
            }
            target[filled..filled + bytes.len()].copy_from_slice(bytes);
            filled += bytes.len();
        }
        Ok(filled)
    }

    /// Skips `count` bytes and returns how many the stream had.
    pub(super) fn skip(&mut self, count: u64) -> Result<u64, SourceError> {
        let mut skipped = 0;
        while skipped < count {
            match self.take(count - skipped)? {
                [] => break,
                bytes => skipped += bytes.len() as u64,
            }
        }
        Ok(skipped)
    }
}
