//! A tar whose bytes depend on its entries alone: ustar, with pax records where ustar has no room (POSIX pax, "ustar Interchange Format").

use std::io::{self, Write};

const BLOCK: usize = 512;
/// Longest name and link that a ustar header holds; the prefix field stays unused.
const NAME_MAX: usize = 100;
/// Greatest numbers of fields of seven and of eleven octal digits.
const SEVEN_DIGITS: u64 = 0o7_777_777;
const ELEVEN_DIGITS: u64 = 0o77_777_777_777;
/// Key of an extended attribute, before its name; what Go's and GNU's tools write and read.
const XATTR: &str = "SCHILY.xattr.";

/// An extended attribute: its name and value.
pub type Attribute = (Vec<u8>, Vec<u8>);

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A file, whose content follows.
    File,
    /// Another name of the file at this path.
    HardLink(&'a [u8]),
    /// A symbolic link with this target.
    Symlink(&'a [u8]),
    /// A character device.
    Character(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A directory.
    Directory,
    /// A pipe with a name.
    Fifo,
}

/// One entry.
pub struct Entry<'a> {
    /// Path from the root, without a leading slash.
    pub path: &'a [u8],
    /// What it is.
    pub kind: Kind<'a>,
    /// Permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Modification time: seconds since 1970, and nanoseconds after them.
    pub mtime: (i64, u32),
    /// Bytes of content, none but a file's.
    pub size: u64,
    /// Extended attributes, in the order in which they are written.
    pub attributes: &'a [Attribute],
}

impl<'a> Entry<'a> {
    /// An empty file of nobody's, as whiteouts are.
    pub fn empty(path: &'a [u8]) -> Self {
        Self {
            path,
            kind: Kind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            size: 0,
            attributes: &[],
        }
    }

    /// The pax records that it needs.
    fn records(&self) -> Vec<u8> {
        let mut records = Vec::new();
        let mut add = |key: &[u8], value: &[u8]| records.extend(record(key, value));
        if self.path.len() > NAME_MAX {
            add(b"path", self.path);
        }
        if let Kind::HardLink(link) | Kind::Symlink(link) = self.kind
            && link.len() > NAME_MAX
        {
            add(b"linkpath", link);
        }
        for (key, id) in [(b"uid", self.uid), (b"gid", self.gid)] {
            if u64::from(id) > SEVEN_DIGITS {
                add(key, id.to_string().as_bytes());
            }
        }
        if self.size > ELEVEN_DIGITS {
            add(b"size", self.size.to_string().as_bytes());
        }
        if self.whole_seconds().is_none() {
            add(b"mtime", seconds(self.mtime).as_bytes());
        }
        for (name, value) in self.attributes {
            add(&[XATTR.as_bytes(), name].concat(), value);
        }
        records
    }

    /// The modification time, if the header holds it.
    fn whole_seconds(&self) -> Option<u64> {
        let whole = u64::try_from(self.mtime.0).ok().filter(|_| self.mtime.1 == 0);
        whole.filter(|seconds| *seconds <= ELEVEN_DIGITS)
    }

    /// Its header; what has a record is cut or zero here.
    fn header(&self) -> [u8; BLOCK] {
        let (flag, link, device) = match self.kind {
            Kind::File => (b'0', &[][..], (0, 0)),
            Kind::HardLink(link) => (b'1', link, (0, 0)),
            Kind::Symlink(link) => (b'2', link, (0, 0)),
            Kind::Character(major, minor) => (b'3', &[][..], (major, minor)),
            Kind::Block(major, minor) => (b'4', &[][..], (major, minor)),
            Kind::Directory => (b'5', &[][..], (0, 0)),
            Kind::Fifo => (b'6', &[][..], (0, 0)),
        };
        let held = |number: u64, most| if number > most { 0 } else { number };
        let mut block = [0; BLOCK];
        put(&mut block, 0, cut(self.path));
        octal(&mut block, 100, 7, (self.mode & 0o7777).into());
        octal(&mut block, 108, 7, held(self.uid.into(), SEVEN_DIGITS));
        octal(&mut block, 116, 7, held(self.gid.into(), SEVEN_DIGITS));
        octal(&mut block, 124, 11, held(self.size, ELEVEN_DIGITS));
        octal(&mut block, 136, 11, self.whole_seconds().unwrap_or(0));
        block[156] = flag;
        put(&mut block, 157, cut(link));
        // Both fit: device numbers of Linux have 12 and 20 bits.
        octal(&mut block, 329, 7, device.0.into());
        octal(&mut block, 337, 7, device.1.into());
        sealed(block)
    }
}

/// A tar that is being written.
pub struct Archive<W> {
    out: W,
}

impl<W: Write> Archive<W> {
    /// An empty one.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// Adds an entry. A file's content follows by [`Self::content`], `size` bytes of it, and then [`Self::pad`].
    pub fn entry(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let records = entry.records();
        if !records.is_empty() {
            let mut header = [0; BLOCK];
            octal(&mut header, 100, 7, 0);
            octal(&mut header, 108, 7, 0);
            octal(&mut header, 116, 7, 0);
            octal(&mut header, 124, 11, records.len() as u64);
            octal(&mut header, 136, 11, 0);
            header[156] = b'x';
            self.out.write_all(&sealed(header))?;
            self.out.write_all(&records)?;
            self.pad(records.len() as u64)?;
        }
        self.out.write_all(&entry.header())
    }

    /// Adds a piece of a file.
    pub fn content(&mut self, piece: &[u8]) -> io::Result<()> {
        self.out.write_all(piece)
    }

    /// Fills up the last block of `size` bytes.
    pub fn pad(&mut self, size: u64) -> io::Result<()> {
        let rest = (size % BLOCK as u64) as usize;
        self.out.write_all(&[0; BLOCK][..(BLOCK - rest) % BLOCK])
    }

    /// Ends it.
    pub fn end(mut self) -> io::Result<()> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()
    }
}

fn cut(name: &[u8]) -> &[u8] {
    &name[..name.len().min(NAME_MAX)]
}

fn put(block: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

fn octal(block: &mut [u8; BLOCK], at: usize, digits: usize, number: u64) {
    put(block, at, format!("{number:0digits$o}").as_bytes());
}

/// The header with its magic and checksum.
fn sealed(mut block: [u8; BLOCK]) -> [u8; BLOCK] {
    put(&mut block, 257, b"ustar\x0000");
    put(&mut block, 148, b"        ");
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    octal(&mut block, 148, 6, sum);
    block[154] = 0;
    block
}

/// `"%d %s=%s\n"`, where the number counts itself.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key, b"=", value, b"\n"].concat();
    let digits = |number: usize| number.to_string().len();
    // One more digit at most, since the number grows by less than tenfold.
    let shorter = rest.len() + digits(rest.len());
    let length = rest.len() + digits(shorter);
    [length.to_string().as_bytes(), &rest].concat()
}

/// A time as pax has it: a decimal number, whose fraction has the sign of the whole.
fn seconds((whole, nanoseconds): (i64, u32)) -> String {
    const SECOND: u32 = 1_000_000_000;
    let value = match (whole < 0, nanoseconds) {
        (_, 0) => return whole.to_string(),
        (false, _) => format!("{whole}.{nanoseconds:09}"),
        (true, _) => format!("-{}.{:09}", (whole + 1).unsigned_abs(), SECOND - nanoseconds),
    };
    value.trim_end_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn other_readers_read_what_is_written() {
        let long = "d/".repeat(80) + "file";
        let attributes = [(b"user.key".to_vec(), b"va\0lue".to_vec())];
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive
            .entry(&Entry {
                path: long.as_bytes(),
                mode: 0o104_755,
                uid: 1000,
                gid: 3_000_000,
                mtime: (7, 500_000_000),
                size: 3,
                attributes: &attributes,
                ..Entry::empty(b"")
            })
            .unwrap();
        archive.content(b"abc").unwrap();
        archive.pad(3).unwrap();
        let target = "t".repeat(200);
        for kind in [Kind::Symlink(target.as_bytes()), Kind::HardLink(b"a"), Kind::Character(10, 229)] {
            archive
                .entry(&Entry {
                    kind,
                    ..Entry::empty(b"b")
                })
                .unwrap();
        }
        archive.end().unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut entries = archive.entries().unwrap();
        let mut file = entries.next().unwrap().unwrap();
        assert_eq!(file.path_bytes(), long.as_bytes());
        assert_eq!(file.header().mode().unwrap(), 0o4755);
        let mut content = String::new();
        file.read_to_string(&mut content).unwrap();
        assert_eq!(content, "abc");
        let records: Vec<_> = file.pax_extensions().unwrap().unwrap().map(|record| record.unwrap()).collect();
        let records: Vec<_> = records.iter().map(|record| (record.key().unwrap(), record.value_bytes())).collect();
        assert_eq!(
            records,
            [
                ("path", long.as_bytes()),
                ("gid", b"3000000"),
                ("mtime", b"7.5"),
                ("SCHILY.xattr.user.key", b"va\0lue")
            ]
        );
        let links: Vec<_> = entries
            .map(|entry| entry.unwrap())
            .map(|entry| {
                let link = entry.link_name_bytes().map(|link| link.into_owned());
                (link, entry.header().device_major().unwrap(), entry.header().device_minor().unwrap())
            })
            .collect();
        assert_eq!(
            links,
            [
                (Some(target.into_bytes()), Some(0), Some(0)),
                (Some(b"a".to_vec()), Some(0), Some(0)),
                (None, Some(10), Some(229))
            ]
        );
    }

    #[test]
    fn a_record_counts_its_own_number() {
        for length in 0..2000 {
            let record = record(b"k", &vec![b'v'; length]);
            let number = String::from_utf8(record.clone()).unwrap();
            assert_eq!(number.split(' ').next().unwrap().parse(), Ok(record.len()), "{length}");
        }
    }

    #[test]
    fn times_before_1970_have_a_fraction_of_their_own_sign() {
        for (time, text) in [
            ((0, 1), "0.000000001"),
            ((12, 340_000_000), "12.34"),
            ((-2, 500_000_000), "-1.5"),
            ((-1, 750_000_000), "-0.25"),
            ((-3, 0), "-3"),
        ] {
            assert_eq!(seconds(time), text);
        }
    }
}
