//! The conversion: one pass that reads the tar's entries, adds them to the ext4 image and appends the hash tree.

use crate::error::{ConvertError, EntryError, EntryName};
use crate::ext4::{Attributes, CleanPath, FileType, FsError, Writer};
use crate::limits::Limits;
use crate::notes::Notes;
use crate::pipeline::{self, Stream};
use crate::root_hash::RootHash;
use crate::tar::{Entry, HeaderError, Kind, Piece, TarError, TarReader};
use crate::verity;
use oci::Digest;
use std::io::{self, Read, Seek, SeekFrom, Write};

/// Number of the format, for whoever keeps root hashes: raised whenever any tar gets other bytes or other notes than before.
pub const FORMAT: u32 = 1;

/// OCI image spec, "Whiteouts".
const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE_WHITEOUT: &[u8] = b".wh..wh..opq";

/// The result of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Converted {
    /// Root of the dm-verity tree.
    pub root_hash: RootHash,
    /// SHA-256 of the decompressed tar to the end of the stream: the diff id in an image's config (OCI image spec, "Layer DiffID").
    pub diff_id: Digest,
    /// Blocks of 4 KiB of the ext4 image; the verity superblock is the next one.
    pub data_blocks: u64,
    /// Blocks of 4 KiB of image, superblock and tree.
    pub total_blocks: u64,
    /// What a guest will show otherwise than the tar says.
    pub notes: Notes,
}

/// Converts a layer. The image starts at the start of `output` and ends at its final position.
///
/// Equal tars give equal bytes, whatever their compression. The caller's thread writes `output`,
/// mostly in order; two more threads read, decompress and hash the input.
pub fn convert<R: Read + Send, W: Write + Seek>(input: R, output: &mut W, limits: &Limits) -> Result<Converted, ConvertError> {
    let unstarted = |source| ConvertError::Read { offset: 0, source };
    pipeline::run(input, limits.max_zstd_window_bytes, |stream| build(stream, output, limits)).map_err(unstarted)?
}

fn build<W: Write + Seek>(stream: Stream, output: &mut W, limits: &Limits) -> Result<Converted, ConvertError> {
    let mut tar = TarReader::new(stream, limits.max_tar_bytes);
    let mut image = Writer::new(output, limits).map_err(close_error)?;
    let mut name = Vec::new();
    let mut notes = Notes::default();
    loop {
        let entry = tar.next().map_err(|error| tar_error(error, tar.offset(), &name))?;
        let Some(entry) = entry else { break };
        name.clone_from(&entry.name);
        add_entry(&mut image, entry, limits, &mut notes).map_err(|error| entry_error(error, &name))?;
        loop {
            let offset = tar.offset();
            let written = match tar.piece().map_err(|error| tar_error(error, offset, &name))? {
                None => break,
                Some(Piece::Bytes(bytes)) => image.write(bytes),
                Some(Piece::Zeros(length)) => image.write_zeros(length),
            };
            written.map_err(|error| entry_error(error, &name))?;
        }
    }
    let diff_id = tar.finish().map_err(|error| tar_error(error, tar.offset(), &name))?;
    let blocks = image.finish().map_err(close_error)?;
    let (output, hasher, leaves) = blocks.finish().map_err(ConvertError::Write)?;
    let data_blocks = (leaves.len() / 32) as u64;
    let (root_hash, tree_blocks) = verity::append(output, &hasher, leaves).map_err(ConvertError::Write)?;
    output.flush().map_err(ConvertError::Write)?;
    Ok(Converted {
        root_hash,
        diff_id,
        data_blocks,
        total_blocks: data_blocks + tree_blocks,
        notes,
    })
}

/// Computes what [`convert`] returns, without storing the image.
pub fn hash<R: Read + Send>(input: R, limits: &Limits) -> Result<Converted, ConvertError> {
    convert(input, &mut Discard { position: 0 }, limits)
}

/// A failure of the tar reader at `offset`, while `last` was the newest entry.
fn tar_error(error: TarError, offset: u64, last: &[u8]) -> ConvertError {
    let last = EntryName::new(last);
    let entry = |name, source| ConvertError::Entry { name, source };
    match error {
        TarError::Read(source) => ConvertError::Read { offset, source },
        TarError::TooLong { limit } => ConvertError::TarTooLong { limit, last },
        TarError::Header {
            source: HeaderError::Foreign(format),
            ..
        } => ConvertError::Format(format),
        TarError::Header { offset, source } => ConvertError::Header { offset, last, source },
        TarError::Truncated => entry(last, EntryError::Truncated),
        TarError::SparseData => entry(last, EntryError::SparseData),
    }
}

/// A failure of the file system while the entry `name` was added.
fn entry_error(error: FsError, name: &[u8]) -> ConvertError {
    match error {
        FsError::Write(source) => ConvertError::Write(source),
        FsError::Refused(source) => ConvertError::Entry {
            name: EntryName::new(name),
            source,
        },
    }
}

/// A failure of the file system outside of any entry.
fn close_error(error: FsError) -> ConvertError {
    match error {
        FsError::Write(source) => ConvertError::Write(source),
        FsError::Refused(source) => ConvertError::Close(source),
    }
}

fn add_entry<W: Write + Seek>(image: &mut Writer<'_, W>, entry: Entry, limits: &Limits, notes: &mut Notes) -> Result<(), FsError> {
    let place = image.place(&CleanPath::new(&entry.name, limits.max_path_bytes)?)?;
    // A name that ends with a slash is never a whiteout.
    let last = entry.name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    if last == OPAQUE_WHITEOUT {
        return image.make_opaque(&place);
    }
    if let Some(hidden) = last.strip_prefix(WHITEOUT_PREFIX) {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(EntryError::EmptyWhiteout.into());
        }
        // In overlayfs a character device 0/0 hides the name in lower layers.
        return image
            .create(&place.sibling(hidden), Attributes::new(FileType::CharDevice, 0))
            .map(drop);
    }
    let file_type = match entry.kind {
        Kind::HardLink => {
            let Ok(target) = CleanPath::new(&entry.link, limits.max_path_bytes) else {
                return Err(EntryError::NoLinkTarget(EntryName(entry.link)).into());
            };
            return image.link(&place, &target, &entry.link);
        }
        Kind::Regular => FileType::Regular,
        Kind::Symlink if entry.link.is_empty() => return Err(EntryError::EmptyLink.into()),
        Kind::Symlink => FileType::Symlink,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        Kind::Directory => FileType::Directory,
        Kind::Fifo => FileType::Fifo,
    };
    let attributes = Attributes {
        uid: entry.uid,
        gid: entry.gid,
        atime: entry.atime,
        ctime: entry.ctime,
        mtime: entry.mtime,
        crtime: entry.mtime,
        size: entry.size,
        target: entry.link,
        device: entry.device,
        xattrs: entry.xattrs.into_iter().collect(),
        ..Attributes::new(file_type, entry.mode)
    };
    notes.add(&attributes);
    image.create(&place, attributes).map(drop)
}

/// An output that only counts bytes.
struct Discard {
    position: u64,
}

impl Write for Discard {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.position += data.len() as u64;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Discard {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            // Nothing is stored, so the end is unknown.
            SeekFrom::End(_) => None,
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
