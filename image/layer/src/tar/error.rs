//! Why a tar cannot be read further.

use super::source::SourceError;
use std::io;
use thiserror::Error;

/// What is wrong with a header, or with the extended headers before it.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum HeaderError {
    /// Not a tar header, or a damaged one.
    #[error("the checksum does not match")]
    Checksum,
    /// Another format than tar, by its first bytes; the stream was not compressed, or has been decompressed.
    #[error("it is no tar but {0}")]
    Foreign(&'static str),
    /// The stream ends within a header.
    #[error("the tar ends within a header")]
    Truncated,
    /// A block of zeros is followed by something else.
    #[error("one block of zeros is followed by other data")]
    HalfEnd,
    /// A numeric field that is neither octal nor base-256.
    #[error("field {0} is not a number")]
    Number(&'static str),
    /// A size below zero.
    #[error("the size is negative")]
    NegativeSize,
    /// A pax header, long name or sparse map beyond 1 MiB.
    #[error("a pax header, long name or sparse map of {0} bytes")]
    SpecialTooLong(u64),
    /// A pax record that breaks the format (POSIX pax, "Extended Header").
    #[error("malformed pax record at byte {0} of the extended header")]
    PaxRecord(usize),
    /// A pax value that is not a number or time.
    #[error("pax record {0} has no valid value")]
    PaxValue(&'static str),
    /// A sparse file with an invalid map.
    #[error("the map of the sparse file is malformed")]
    SparseMap,
}

/// Why the next entry, or the next data, cannot be read.
#[derive(Debug)]
pub(crate) enum TarError {
    Read(io::Error),
    TooLong {
        limit: u64,
    },
    Header {
        offset: u64,
        source: HeaderError,
    },
    /// The tar ends within an entry's data.
    Truncated,
    /// The data do not match the map of a sparse file.
    SparseData,
}

impl From<SourceError> for TarError {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Read(source) => TarError::Read(source),
            SourceError::TooLong { limit } => TarError::TooLong { limit },
        }
    }
}

/// A failure within a header, whose offset the caller adds.
#[derive(Debug)]
pub(super) enum Problem {
    Header(HeaderError),
    Source(SourceError),
}

impl Problem {
    pub(super) fn at(self, offset: u64) -> TarError {
        match self {
            Problem::Header(source) => TarError::Header { offset, source },
            Problem::Source(error) => error.into(),
        }
    }
}

impl From<HeaderError> for Problem {
    fn from(error: HeaderError) -> Self {
        Problem::Header(error)
    }
}

impl From<SourceError> for Problem {
    fn from(error: SourceError) -> Self {
        Problem::Source(error)
    }
}
