//! Why a layer cannot be converted; every error in the tar's content names the entry.

use crate::tar::HeaderError;
use std::fmt;
use std::io;
use thiserror::Error;

/// Bytes of a name that a message shows at most.
const SHOWN_NAME_BYTES: usize = 256;

/// Why [`crate::convert`] failed. The output then holds an unusable part of an image.
#[derive(Debug, Error)]
pub enum ConvertError {
    /// The input cannot be read, or its compression is damaged.
    #[error("the layer cannot be read or decompressed past byte {offset} of its tar")]
    Read {
        /// Bytes of tar read so far.
        offset: u64,
        /// The error of the reader or decompressor.
        source: io::Error,
    },
    /// The tar is longer than [`crate::Limits::max_tar_bytes`].
    #[error("the layer's tar is longer than {limit} bytes, at entry {last}")]
    TarTooLong {
        /// The limit exceeded.
        limit: u64,
        /// The entry that was being read.
        last: EntryName,
    },
    /// The layer is no tar.
    #[error("the layer is {0}; OCI layers are tar archives, plain or compressed with gzip or zstd")]
    Format(&'static str),
    /// An invalid tar header.
    #[error("bad tar header at byte {offset}, after entry {last}")]
    Header {
        /// Where the header starts in the decompressed tar.
        offset: u64,
        /// The last entry that was read in full.
        last: EntryName,
        /// What is wrong with it.
        source: HeaderError,
    },
    /// An entry that cannot be added to the image.
    #[error("entry {name}")]
    Entry {
        /// The entry's name as in the tar.
        name: EntryName,
        /// Why it is refused.
        source: EntryError,
    },
    /// The file system's tables exceed the limits.
    #[error("the file system cannot be completed")]
    Close(#[source] EntryError),
    /// The output cannot be written.
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
        /// The limit exceeded.
        limit: usize,
    },
    /// A path component longer than Linux allows.
    #[error("a name in the path is longer than 255 bytes")]
    NameTooLong,
    /// A path component is not a directory.
    #[error("{0} is not a directory")]
    NotADirectory(EntryName),
    /// A hard link whose target does not exist.
    #[error("hard link to {0}, which no earlier entry creates")]
    NoLinkTarget(EntryName),
    /// A hard link to a directory, or to itself.
    #[error("hard link to {0}, which is a directory or the link itself")]
    BadLinkTarget(EntryName),
    /// More hard links or subdirectories than ext4 allows (`EXT4_LINK_MAX`).
    #[error("more than 65000 links to one inode")]
    TooManyLinks,
    /// A file replaces a directory.
    #[error("an earlier entry of this name is a directory (hcsshim refuses such a layer too: no policy can list it)")]
    ReplacesDirectory,
    /// A directory replaces a file.
    #[error("an earlier entry of this name is not a directory (hcsshim refuses such a layer too: no policy can list it)")]
    ReplacesFile,
    /// A whiteout without a name to hide.
    #[error("the whiteout names no file")]
    EmptyWhiteout,
    /// A symbolic link without target, which Linux reports as a damaged inode.
    #[error("the symbolic link has no target")]
    EmptyLink,
    /// An extended attribute that fits neither into the inode nor into the attribute block.
    #[error("extended attribute {0} does not fit: ext4 has 4 KiB for the attributes of an inode")]
    XattrTooLarge(EntryName),
    /// Extended attributes of all directories exceed [`crate::Limits::max_directory_xattr_bytes`].
    #[error("extended attributes of directories exceed {limit} bytes")]
    TooManyXattrs {
        /// The limit exceeded.
        limit: usize,
    },
    /// A file larger than one extent index block can describe.
    #[error("a file of {size} bytes, more than the {limit} that one extent index block can describe")]
    FileTooLarge {
        /// Size in the header.
        size: u64,
        /// The largest possible size.
        limit: u64,
    },
    /// The image exceeds [`crate::Limits::max_image_bytes`].
    #[error("the image would exceed {limit} bytes")]
    ImageTooLarge {
        /// The limit exceeded.
        limit: u64,
    },
    /// More inodes, or more hard links, than [`crate::Limits::max_inodes`].
    #[error("the image would have more than {limit} inodes or hard links")]
    TooManyInodes {
        /// The limit exceeded.
        limit: u32,
    },
    /// The tar ends within the entry's data.
    #[error("the tar ends within the entry's data")]
    Truncated,
    /// The data do not match the map of a sparse file.
    #[error("the data of the sparse file do not match its map")]
    SparseData,
}

/// A name as in the tar; printed with escapes, and truncated if long.
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
