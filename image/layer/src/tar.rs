//! Tar entries from a stream, read as Go's `archive/tar` reads them: hcsshim, whose hashes policies carry, uses it.
//!
//! ```text
//! next():  skip rest of data ─► header ─┬─ x ──► pax records for the next entry ──┐
//!                 ▲                     ├─ L, K ► long name, long link ───────────┤
//!                 └─────────────────────┴─────────────────────────────────────────┘
//!                                       └─ any other ► Entry, then piece() until None
//! ```
//!
//! Formats: V7, ustar, pax, GNU (long names, base-256 numbers, sparse files in all four forms), star.

mod error;
mod foreign;
mod header;
mod number;
mod pax;
mod source;
mod sparse;

use crate::pipeline::Stream;
use crate::time::Time;
pub use error::HeaderError;
use error::Problem;
pub(crate) use error::TarError;
use header::RawHeader;
use oci::Digest;
use pax::Records;
use source::Source;
use sparse::SparseMap;
use std::io;

pub(crate) const TAR_BLOCK_BYTES: usize = 512;
/// Longest pax header, long name or sparse map; Go's and libarchive's limit.
const MAX_SPECIAL_BYTES: u64 = 1 << 20;

/// An entry's file type. Unknown type flags are regular files, as in hcsshim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Regular,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One entry of the tar, with its pax and GNU headers merged.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    /// Bytes of content, including the holes of sparse files.
    pub(crate) size: u64,
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Option<Time>,
    pub(crate) atime: Option<Time>,
    pub(crate) ctime: Option<Time>,
    pub(crate) device: (u32, u32),
    /// Extended attributes with their full names.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Part of a file's content.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    Bytes(&'a [u8]),
    Zeros(u64),
}

/// Reads entries one after the other.
pub(crate) struct TarReader {
    source: Source,
    /// Bytes of the current entry not yet read from the stream.
    remaining: u64,
    /// Padding after them up to the next tar block.
    padding: u64,
    sparse: Option<SparseMap>,
}

/// The type byte's meaning (POSIX ustar, GNU tar `tar.h`).
mod flag {
    pub(super) const OLD_REGULAR: u8 = 0;
    pub(super) const HARD_LINK: u8 = b'1';
    pub(super) const SYMLINK: u8 = b'2';
    pub(super) const CHAR_DEVICE: u8 = b'3';
    pub(super) const BLOCK_DEVICE: u8 = b'4';
    pub(super) const DIRECTORY: u8 = b'5';
    pub(super) const FIFO: u8 = b'6';
    pub(super) const PAX: u8 = b'x';
    pub(super) const PAX_GLOBAL: u8 = b'g';
    pub(super) const GNU_LONG_NAME: u8 = b'L';
    pub(super) const GNU_LONG_LINK: u8 = b'K';
    pub(super) const GNU_SPARSE: u8 = b'S';

    /// Types without data, whatever their size field.
    pub(super) fn has_no_data(flag: u8) -> bool {
        (HARD_LINK..=FIFO).contains(&flag)
    }
}

impl TarReader {
    pub(crate) fn new(stream: Stream, limit: u64) -> Self {
        TarReader {
            source: Source::new(stream, limit),
            remaining: 0,
            padding: 0,
            sparse: None,
        }
    }

    /// Bytes of tar read so far.
    pub(crate) fn offset(&self) -> u64 {
        self.source.offset()
    }

    /// Reads past the archive's end to the end of the stream, and returns the digest of the whole stream.
    pub(crate) fn finish(&mut self) -> Result<Digest, TarError> {
        while !self.source.take(u64::MAX)?.is_empty() {}
        let unended = || TarError::Read(io::ErrorKind::UnexpectedEof.into());
        self.source.digest().ok_or_else(unended)
    }

    /// The next entry, or `None` at the end of the archive.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut records = Records::default();
        let mut long_name = Vec::new();
        let mut long_link = Vec::new();
        loop {
            if !self.skip_data()? {
                return Ok(None);
            }
            let offset = self.source.offset();
            let bad = |source| TarError::Header { offset, source };
            let Some(raw) = self.header().map_err(|error| error.at(offset))? else {
                return Ok(None);
            };
            let mut size = raw.number(header::SIZE).map_err(bad)?;
            let flag = raw.flag();
            self.begin_data(flag, size).map_err(bad)?;
            match flag {
                flag::PAX => records = Records::parse(&self.special().map_err(|error| error.at(offset))?).map_err(bad)?,
                flag::GNU_LONG_NAME => long_name = until_nul(&self.special().map_err(|error| error.at(offset))?).to_vec(),
                flag::GNU_LONG_LINK => long_link = until_nul(&self.special().map_err(|error| error.at(offset))?).to_vec(),
                flag::PAX_GLOBAL => {
                    let global = Records::parse(&self.special().map_err(|error| error.at(offset))?).map_err(bad)?;
                    return global_entry(&raw, global).map(Some).map_err(bad);
                }
                _ => {
                    let mut entry = raw.entry().map_err(bad)?;
                    records.merge(&mut entry, &mut size).map_err(bad)?;
                    if !long_name.is_empty() {
                        entry.name = long_name;
                    }
                    if !long_link.is_empty() {
                        entry.link = long_link;
                    }
                    if flag == flag::OLD_REGULAR && entry.name.ends_with(b"/") {
                        entry.kind = Kind::Directory;
                    }
                    let directory = if entry.kind == Kind::Directory { flag::DIRECTORY } else { flag };
                    self.begin_data(directory, size).map_err(bad)?;
                    self.read_sparse_map(&raw, &records, &mut entry, &mut size)
                        .map_err(|error| error.at(offset))?;
                    if entry.kind == Kind::Regular {
                        entry.size = u64::try_from(size).map_err(|_| bad(HeaderError::NegativeSize))?;
                    }
                    return Ok(Some(entry));
                }
            }
        }
    }

    /// The next part of the current entry's content.
    pub(crate) fn piece(&mut self) -> Result<Option<Piece<'_>>, TarError> {
        let mut most = self.remaining;
        if let Some(map) = &mut self.sparse {
            match map.step() {
                sparse::Step::Hole(length) => return Ok(Some(Piece::Zeros(length))),
                sparse::Step::Data(length) => most = length.min(self.remaining),
                sparse::Step::End if self.remaining > 0 => return Err(TarError::SparseData),
                sparse::Step::End => return Ok(None),
            }
            if most == 0 {
                return Err(TarError::SparseData);
            }
        }
        if most == 0 {
            return Ok(None);
        }
        let bytes = self.source.take(most)?;
        if bytes.is_empty() {
            return Err(TarError::Truncated);
        }
        self.remaining -= bytes.len() as u64;
        if let Some(map) = &mut self.sparse {
            map.advance(bytes.len() as u64);
        }
        Ok(Some(Piece::Bytes(bytes)))
    }

    fn begin_data(&mut self, flag: u8, size: i64) -> Result<(), HeaderError> {
        let size = u64::try_from(size).map_err(|_| HeaderError::NegativeSize);
        self.remaining = if flag::has_no_data(flag) { 0 } else { size? };
        self.padding = self.remaining.wrapping_neg() % TAR_BLOCK_BYTES as u64;
        self.sparse = None;
        Ok(())
    }

    /// False if the tar ends in the padding after the data, which counts as the archive's end.
    fn skip_data(&mut self) -> Result<bool, TarError> {
        if self.source.skip(self.remaining)? != self.remaining {
            return Err(TarError::Truncated);
        }
        let whole = self.source.skip(self.padding)? == self.padding;
        (self.remaining, self.padding) = (0, 0);
        Ok(whole)
    }

    /// The next header, or `None` at the archive's end: two blocks of zeros, or the end of the stream in their place.
    fn header(&mut self) -> Result<Option<RawHeader>, Problem> {
        let mut block = [0; TAR_BLOCK_BYTES];
        let first = self.source.offset() == 0;
        for zero_blocks in 0..2 {
            match self.source.fill(&mut block)? {
                0 => return Ok(None),
                TAR_BLOCK_BYTES if block != [0; TAR_BLOCK_BYTES] => {
                    return if zero_blocks == 0 {
                        RawHeader::new(block).map(Some).map_err(|error| no_tar(error, first, &block))
                    } else {
                        Err(HeaderError::HalfEnd.into())
                    };
                }
                TAR_BLOCK_BYTES => {}
                filled => return Err(no_tar(HeaderError::Truncated, first, &block[..filled])),
            }
        }
        Ok(None)
    }

    /// The content of a pax header or long name.
    fn special(&mut self) -> Result<Vec<u8>, Problem> {
        if self.remaining > MAX_SPECIAL_BYTES {
            return Err(HeaderError::SpecialTooLong(self.remaining).into());
        }
        let mut content = vec![0; self.remaining as usize];
        if self.source.fill(&mut content)? < content.len() {
            return Err(HeaderError::Truncated.into());
        }
        self.remaining = 0;
        Ok(content)
    }

    fn read_sparse_map(&mut self, raw: &RawHeader, records: &Records, entry: &mut Entry, size: &mut i64) -> Result<(), Problem> {
        let map = if raw.flag() == flag::GNU_SPARSE {
            *size = raw.number(header::GNU_REAL_SIZE)?;
            let mut map = Vec::new();
            let mut more = raw.sparse_entries(&mut map)?;
            while more {
                let mut block = [0; TAR_BLOCK_BYTES];
                if self.source.fill(&mut block)? < TAR_BLOCK_BYTES {
                    return Err(HeaderError::Truncated.into());
                }
                more = sparse::extension_entries(&block, &mut map)?;
            }
            map
        } else {
            let Some(form) = records.sparse_form() else { return Ok(()) };
            records.merge_sparse(entry, size)?;
            match form {
                pax::SparseForm::InRecords => records.sparse_map()?,
                pax::SparseForm::InData => {
                    let (map, read) = sparse::map_in_data(&mut self.source, self.remaining)?;
                    self.remaining -= read;
                    map
                }
            }
        };
        if entry.kind != Kind::Regular {
            return Err(HeaderError::SparseMap.into());
        }
        self.sparse = Some(SparseMap::new(map, *size)?);
        Ok(())
    }
}

/// hcsshim writes a global pax header as an empty file of mode 0 with the header's name, so its hashes include that file.
fn global_entry(raw: &RawHeader, records: Records) -> Result<Entry, HeaderError> {
    let mut merged = raw.entry()?;
    // Only name and attributes matter; records with invalid numbers are ignored.
    let merge = records.merge(&mut merged, &mut 0);
    Ok(Entry {
        name: merged.name,
        link: Vec::new(),
        kind: Kind::Regular,
        size: 0,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: None,
        atime: None,
        ctime: None,
        device: (0, 0),
        xattrs: if merge.is_ok() { merged.xattrs } else { Vec::new() },
    })
}

/// An error in a header; the first header may show that the stream is no tar. A tar whose first name begins like another format has a
/// valid checksum, so it does not come here.
fn no_tar(error: HeaderError, first: bool, block: &[u8]) -> Problem {
    let foreign = foreign::format(block).filter(|_| first);
    foreign.map_or(error, HeaderError::Foreign).into()
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len())]
}
