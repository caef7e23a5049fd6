//! The decompressed stream: buffered, counted, limited, and hashed to its real end.

use crate::digest::DiffId;
use sha2::{Digest, Sha256};
use std::io::{self, Read};

/// Hashed at a time while still in the cache of the core that decompressed it.
const BUFFER_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub(super) enum SourceError {
    Read(io::Error),
    TooLong { limit: u64 },
}

pub(super) struct Source<R> {
    input: R,
    digest: Sha256,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes that the input has given.
    read: u64,
    limit: u64,
}

impl<R: Read> Source<R> {
    pub(super) fn new(input: R, limit: u64) -> Self {
        Source {
            input,
            digest: Sha256::new(),
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
            read: 0,
            limit,
        }
    }

    /// Bytes taken out so far.
    pub(super) fn offset(&self) -> u64 {
        self.read - (self.end - self.start) as u64
    }

    /// Digest of all that was read.
    pub(super) fn digest(self) -> DiffId {
        DiffId(self.digest.finalize().into())
    }

    /// At least one and at most `most` bytes; none only at the end of the stream.
    pub(super) fn take(&mut self, most: u64) -> Result<&[u8], SourceError> {
        if self.start == self.end {
            self.refill()?;
        }
        let length = most.min((self.end - self.start) as u64) as usize;
        let taken = &self.buffer[self.start..self.start + length];
        self.start += length;
        Ok(taken)
    }

    /// Fills `target` and returns how much of it; less only at the end of the stream.
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

    /// Drops `count` bytes and returns how many there were.
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

    fn refill(&mut self) -> Result<(), SourceError> {
        (self.start, self.end) = (0, 0);
        let mut filled = 0;
        while filled < self.buffer.len() {
            match self.input.read(&mut self.buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(SourceError::Read(error)),
            }
        }
        if self.read + filled as u64 > self.limit {
            return Err(SourceError::TooLong { limit: self.limit });
        }
        self.digest.update(&self.buffer[..filled]);
        self.end = filled;
        self.read += filled as u64;
        Ok(())
    }
}
