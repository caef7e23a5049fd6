//! The 512-byte header block in its five formats (POSIX ustar; GNU tar `tar.h`; star).

use super::number::{parse_numeric, parse_octal};
use super::sparse::{self, Fragment};
use super::{Entry, HeaderError, Kind, TAR_BLOCK_BYTES, flag, until_nul};
use crate::time::Time;
use std::ops::Range;

/// A header field: its byte range, and its name in messages.
pub(super) type Field = (Range<usize>, &'static str);

const NAME: Range<usize> = 0..100;
const MODE: Field = (100..108, "mode");
const UID: Field = (108..116, "uid");
const GID: Field = (116..124, "gid");
pub(super) const SIZE: Field = (124..136, "size");
const MTIME: Field = (136..148, "mtime");
const CHECKSUM: Range<usize> = 148..156;
const FLAG: usize = 156;
const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..265;
const DEVICE_MAJOR: Field = (329..337, "devmajor");
const DEVICE_MINOR: Field = (337..345, "devminor");
const USTAR_PREFIX: Range<usize> = 345..500;
const STAR_PREFIX: Range<usize> = 345..476;
const STAR_ATIME: Field = (476..488, "atime");
const STAR_CTIME: Field = (488..500, "ctime");
const STAR_TRAILER: Range<usize> = 508..512;
const GNU_ATIME: Field = (345..357, "atime");
const GNU_CTIME: Field = (357..369, "ctime");
const GNU_SPARSE: Range<usize> = 386..483;
pub(super) const GNU_REAL_SIZE: Field = (483..495, "realsize");

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    V7,
    Ustar,
    Gnu,
    Star,
}

/// A header with a valid checksum.
pub(super) struct RawHeader {
    block: [u8; TAR_BLOCK_BYTES],
    format: Format,
}

impl RawHeader {
    pub(super) fn new(block: [u8; TAR_BLOCK_BYTES]) -> Result<Self, HeaderError> {
        let stated = parse_octal(&block[CHECKSUM]).ok_or(HeaderError::Checksum)?;
        let summed = |byte: fn(u8) -> i64| -> i64 {
            let blanked = |(index, value): (usize, &u8)| byte(if CHECKSUM.contains(&index) { b' ' } else { *value });
            block.iter().enumerate().map(blanked).sum()
        };
        // Some old writers summed signed bytes.
        if stated != summed(i64::from) && stated != summed(|value| i64::from(value as i8)) {
            return Err(HeaderError::Checksum);
        }
        let format = match &block[MAGIC] {
            [b'u', b's', b't', b'a', b'r', 0, ..] if &block[STAR_TRAILER] == b"tar\0" => Format::Star,
            [b'u', b's', b't', b'a', b'r', 0, ..] => Format::Ustar,
            b"ustar  \0" => Format::Gnu,
            _ => Format::V7,
        };
        Ok(RawHeader { block, format })
    }

    pub(super) fn flag(&self) -> u8 {
        self.block[FLAG]
    }

    pub(super) fn number(&self, (place, name): Field) -> Result<i64, HeaderError> {
        parse_numeric(&self.block[place]).ok_or(HeaderError::Number(name))
    }

    /// Adds the sparse map's first four fragments; true if extension blocks follow.
    pub(super) fn sparse_entries(&self, map: &mut Vec<Fragment>) -> Result<bool, HeaderError> {
        if self.format != Format::Gnu {
            return Err(HeaderError::SparseMap);
        }
        sparse::fragments(&self.block[GNU_SPARSE], map)
    }

    /// The entry that the header alone describes. All numeric fields must be valid, even unused ones.
    pub(super) fn entry(&self) -> Result<Entry, HeaderError> {
        let kind = match self.flag() {
            flag::HARD_LINK => Kind::HardLink,
            flag::SYMLINK => Kind::Symlink,
            flag::CHAR_DEVICE => Kind::CharDevice,
            flag::BLOCK_DEVICE => Kind::BlockDevice,
            flag::DIRECTORY => Kind::Directory,
            flag::FIFO => Kind::Fifo,
            _ => Kind::Regular,
        };
        self.number(SIZE)?;
        let mut entry = Entry {
            name: until_nul(&self.block[NAME]).to_vec(),
            link: until_nul(&self.block[LINK]).to_vec(),
            kind,
            size: 0,
            mode: self.number(MODE)? as u16,
            uid: self.number(UID)? as u32,
            gid: self.number(GID)? as u32,
            mtime: Some(self.time(MTIME)?),
            atime: None,
            ctime: None,
            device: (0, 0),
            xattrs: Vec::new(),
        };
        if self.format != Format::V7 {
            entry.device = (self.number(DEVICE_MAJOR)? as u32, self.number(DEVICE_MINOR)? as u32);
        }
        let prefix = match self.format {
            Format::V7 => [].as_slice(),
            Format::Ustar => until_nul(&self.block[USTAR_PREFIX]),
            Format::Star => {
                entry.atime = Some(self.time(STAR_ATIME)?);
                entry.ctime = Some(self.time(STAR_CTIME)?);
                until_nul(&self.block[STAR_PREFIX])
            }
            Format::Gnu => self.gnu_times(&mut entry),
        };
        if !prefix.is_empty() {
            entry.name = [prefix, b"/", &entry.name].concat();
        }
        Ok(entry)
    }

    fn time(&self, field: Field) -> Result<Time, HeaderError> {
        Ok(Time::new(self.number(field)?, 0))
    }

    /// Old versions of Go wrote a ustar prefix into GNU headers. If the time fields are not numbers, Go's reader takes
    /// ASCII in their place as that prefix.
    fn gnu_times(&self, entry: &mut Entry) -> &[u8] {
        let stated = |field: Field| {
            if self.block[field.0.start] == 0 {
                Ok(None)
            } else {
                self.time(field).map(Some)
            }
        };
        match (stated(GNU_ATIME), stated(GNU_CTIME)) {
            (Ok(atime), Ok(ctime)) => {
                (entry.atime, entry.ctime) = (atime, ctime);
                &[]
            }
            _ => Some(until_nul(&self.block[USTAR_PREFIX]))
                .filter(|prefix| prefix.is_ascii())
                .unwrap_or_default(),
        }
    }
}
