//! Why a layer is not converted: every refusal of the tar's content names the entry.

use crate::ext4::FsError;
use crate::tar::{HeaderError, TarError};
use std::fmt;
use std::io;
use thiserror::Error;

/// Longest part of a name that a message shows.
const SHOWN_NAME_BYTES: usize = 256;

/// Why [`crate::convert`] gave up. The output then holds an unusable part of an image.
#[derive(Debug, Error)]
pub enum ConvertError {
    /// The input failed, or its compression is broken.
    #[error("the layer cannot be read or decompressed past byte {offset} of its tar")]
    Read {
        /// Bytes of tar read so far.
        offset: u64,
        /// What the reader or the decompressor said.
        source: io::Error,
    },
    /// The tar is longer than [`crate::Limits::max_tar_bytes`].
    #[error("the layer's tar is longer than {limit} bytes, at entry {last}")]
    TarTooLong {
        /// The limit that was passed.
        limit: u64,
        /// The entry that was being read.
        last: EntryName,
    },
    /// What stands where an entry's header should be is none.
    #[error("bad tar header at byte {offset}, after entry {last}")]
    Header {
        /// Where the header starts in the decompressed tar.
        offset: u64,
        /// The last entry that was read in full.
        last: EntryName,
        /// What is wrong with it.
        source: HeaderError,
    },
    /// An entry that cannot become part of the image.
    #[error("entry {name}")]
    Entry {
        /// The entry's name as the tar has it.
        name: EntryName,
        /// Why it is refused.
        source: EntryError,
    },
    /// The file system could not be finished within the limits.
    #[error("the file system cannot be closed")]
    Close(#[source] EntryError),
    /// The output failed.
    #[error("the image cannot be written")]
    Write(#[source] io::Error),
}

/// Why one entry of the tar is refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum EntryError {
    /// `..` leads out of the layer.
    #[error("path leads out of the layer")]
    Escapes,
    /// Path longer than [`crate::Limits::max_path_bytes`].
    #[error("path is longer than {limit} bytes")]
    PathTooLong {
        /// The limit that was passed.
        limit: usize,
    },
    /// A path component that no Linux file system can hold.
    #[error("a name in the path is longer than 255 bytes")]
    NameTooLong,
    /// A path component is a file.
    #[error("{0} is not a directory")]
    NotADirectory(EntryName),
    /// A hard link to nothing.
    #[error("hard link to {0}, which the layer does not have before it")]
    NoLinkTarget(EntryName),
    /// A hard link to a directory, or to itself.
    #[error("hard link to {0}, which is a directory or the entry itself")]
    BadLinkTarget(EntryName),
    /// More hard links or subdirectories than ext4 can count.
    #[error("more than 65000 links to one inode")]
    TooManyLinks,
    /// A directory would become something else.
    #[error("an earlier entry of this name is a directory")]
    ReplacesDirectory,
    /// Something else would become a directory.
    #[error("an earlier entry of this name is not a directory")]
    ReplacesFile,
    /// A whiteout of nothing.
    #[error("the whiteout names no file")]
    EmptyWhiteout,
    /// A symbolic link to nothing, which Linux calls a damaged inode.
    #[error("the symbolic link has no target")]
    EmptyLink,
    /// An extended attribute without a place in inode and attribute block.
    #[error("extended attribute {0} does not fit into the 4 KiB that ext4 has for an inode's attributes")]
    XattrTooLarge(EntryName),
    /// Extended attributes of all directories together pass [`crate::Limits::max_directory_xattr_bytes`].
    #[error("extended attributes of directories exceed {limit} bytes")]
    TooManyXattrs {
        /// The limit that was passed.
        limit: usize,
    },
    /// A file beyond what the layout can describe.
    #[error("a file of {size} bytes, more than the {limit} that one index block describes")]
    FileTooLarge {
        /// Size that the header announces.
        size: u64,
        /// The most a file can have.
        limit: u64,
    },
    /// The image passes [`crate::Limits::max_image_bytes`].
    #[error("the image would exceed {limit} bytes")]
    ImageTooLarge {
        /// The limit that was passed.
        limit: u64,
    },
    /// More inodes, or more hard links, than [`crate::Limits::max_inodes`].
    #[error("the image would have more than {limit} inodes or hard links")]
    TooManyInodes {
        /// The limit that was passed.
        limit: u32,
    },
    /// The tar ends within the entry's data.
    #[error("the tar ends within the entry's data")]
    Truncated,
    /// The data do not match the map of a sparse file.
    #[error("the data of the sparse file do not match its map")]
    SparseData,
}

/// A name as the tar has it, shown with escapes and cut where it would fill a screen.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EntryName(pub Vec<u8>);

impl EntryName {
    pub(crate) fn new(name: &[u8]) -> Self {
        EntryName(name.to_vec())
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(SHOWN_NAME_BYTES)];
        write!(f, "{:?}", String::from_utf8_lossy(shown))?;
        if shown.len() < self.0.len() {
            write!(f, "… ({} bytes)", self.0.len())
        } else {
            Ok(())
        }
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl ConvertError {
    /// A failure of the tar reader while `last` was the newest entry.
    pub(crate) fn from_tar(error: TarError, offset: u64, last: &[u8]) -> Self {
        let last = EntryName::new(last);
        match error {
            TarError::Read(source) => ConvertError::Read { offset, source },
            TarError::TooLong { limit } => ConvertError::TarTooLong { limit, last },
            TarError::Header { offset, source } => ConvertError::Header { offset, last, source },
            TarError::Data(source) => ConvertError::Entry { name: last, source },
        }
    }

    /// A failure of the file system while it took in the entry `name`.
    pub(crate) fn from_fs(error: FsError, name: &[u8]) -> Self {
        match error {
            FsError::Write(source) => ConvertError::Write(source),
            FsError::Refused(source) => ConvertError::Entry {
                name: EntryName::new(name),
                source,
            },
        }
    }
}
