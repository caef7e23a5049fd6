//! The one pass: decompress, hash, read entries, put them into the image, append the tree.

use crate::digest::{DiffId, RootHash};
use crate::error::{ConvertError, EntryError, EntryName};
use crate::ext4::{Attributes, CleanPath, FileType, FsError, Writer};
use crate::limits::Limits;
use crate::stages::{self, Stream};
use crate::tar::{Entry, Kind, TarReader};
use crate::verity;
use std::io::{self, Read, Seek, SeekFrom, Write};

/// OCI image spec, "Whiteouts".
const WHITEOUT_PREFIX: &[u8] = b".wh.";
const OPAQUE_WHITEOUT: &[u8] = b".wh..wh..opq";

/// What a conversion says about its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Converted {
    /// Root of the hash tree.
    pub root_hash: RootHash,
    /// Digest of the tar, to the end of the stream.
    pub diff_id: DiffId,
    /// Blocks of 4 KiB of the ext4 image; the verity superblock is the next one.
    pub data_blocks: u64,
    /// Blocks of 4 KiB of everything that was written.
    pub total_blocks: u64,
}

/// Converts a layer. The image starts at the start of `output` and ends where the position is left.
///
/// Equal tars give equal bytes, whatever their compression. `output` is only written to, mostly in order, and by the
/// caller's thread; two more threads read, decompress and digest the input while it lasts.
pub fn convert<R: Read + Send, W: Write + Seek>(input: R, output: &mut W, limits: &Limits) -> Result<Converted, ConvertError> {
    let unstarted = |source| ConvertError::Read { offset: 0, source };
    stages::run(input, |stream| build(stream, output, limits)).map_err(unstarted)?
}

fn build<W: Write + Seek>(stream: Stream, output: &mut W, limits: &Limits) -> Result<Converted, ConvertError> {
    let mut tar = TarReader::new(stream, limits.max_tar_bytes);
    let mut image = Writer::new(output, limits).map_err(closing)?;
    let mut name = Vec::new();
    loop {
        let entry = tar.next().map_err(|error| ConvertError::from_tar(error, tar.offset(), &name))?;
        let Some(entry) = entry else { break };
        name.clone_from(&entry.name);
        apply(&mut image, entry, limits).map_err(|error| ConvertError::from_fs(error, &name))?;
        loop {
            let offset = tar.offset();
            match tar.piece() {
                Ok(None) => break,
                Ok(Some(piece)) => image.write(piece).map_err(|error| ConvertError::from_fs(error, &name))?,
                Err(error) => return Err(ConvertError::from_tar(error, offset, &name)),
            }
        }
    }
    let diff_id = tar.finish().map_err(|error| ConvertError::from_tar(error, tar.offset(), &name))?;
    let blocks = image.finish().map_err(closing)?;
    let (output, hasher, leaves) = blocks.finish().map_err(ConvertError::Write)?;
    let data_blocks = (leaves.len() / 32) as u64;
    let (root_hash, tree_blocks) = verity::append(output, &hasher, leaves).map_err(ConvertError::Write)?;
    output.flush().map_err(ConvertError::Write)?;
    Ok(Converted {
        root_hash,
        diff_id,
        data_blocks,
        total_blocks: data_blocks + tree_blocks,
    })
}

/// Computes what [`convert`] would return, and keeps nothing of the image.
pub fn hash<R: Read + Send>(input: R, limits: &Limits) -> Result<Converted, ConvertError> {
    convert(input, &mut Discard { position: 0 }, limits)
}

fn closing(error: FsError) -> ConvertError {
    match error {
        FsError::Write(source) => ConvertError::Write(source),
        FsError::Refused(source) => ConvertError::Close(source),
    }
}

fn apply<W: Write + Seek>(image: &mut Writer<'_, W>, entry: Entry, limits: &Limits) -> Result<(), FsError> {
    let place = image.place(&CleanPath::new(&entry.name, limits.max_path_bytes)?)?;
    // A name with a slash at its end has no last part, and is no whiteout.
    let last = entry.name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    if last == OPAQUE_WHITEOUT {
        return image.make_opaque(&place);
    }
    if let Some(hidden) = last.strip_prefix(WHITEOUT_PREFIX) {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(EntryError::EmptyWhiteout.into());
        }
        // overlayfs: a character device 0/0 hides what lower layers have by this name.
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
    image.create(&place, attributes).map(drop)
}

/// An output that is only counted.
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
            // The end is not known: nothing is kept.
            SeekFrom::End(_) => None,
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
