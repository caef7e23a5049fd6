//! The walk through an unpacked layer: every file below a directory becomes an entry of a tar that depends on the files alone.
//!
//! Each directory's entries come in the order of their names, and directories before what is in them. The files are a hostile image's:
//! no link is followed, nothing but directories and files is opened, and everything is counted.
//!
//! A directory whose time has a fraction of a second was made by whoever unpacked the layer, because the layer's tar names a file in it
//! and not the directory: archives have whole seconds. Its time is that of the unpacking, so it becomes 0.

use super::{
    archive::{Archive, Entry, Kind},
    attributes::{self, AttributeError, Attributes},
};
use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, major, minor, openat, openat2, readlinkat, statat},
    io::Errno,
};
use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

/// What overlayfs shows as a removed file (kernel, Documentation/filesystems/overlayfs.rst, "whiteouts").
const WHITEOUT_DEVICE: u64 = 0;
/// The forms of whiteouts in a layer's tar (image specification, layer.md, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Longest path: the converter's limit, and the kernel's.
const PATH_MAX: usize = 4095;
/// Bytes of a file that are read at once.
const PIECE: usize = 256 << 10;
/// What a name takes in memory besides its bytes.
const NAME_COST: usize = 48;

/// Below the layer's directory, whatever the image has made of it.
const WITHIN: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
const OPEN: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);

/// Limits of one walk.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries.
    pub entries: u32,
    /// Bytes of files.
    pub bytes: u64,
    /// Bytes of names that are held at once, each with its cost.
    pub names: usize,
}

impl Limits {
    /// The converter's, and of memory as much as shims have.
    pub fn of_layers() -> Self {
        let layer = layer::Limits::default();
        Self {
            entries: layer.max_inodes,
            bytes: layer.max_tar_bytes,
            names: 64 << 20,
        }
    }
}

/// Why there is no tar of an unpacked layer. Names are the image's, so they are shown with escapes.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// A file cannot be used.
    #[error("cannot {doing} {path:?}")]
    File {
        /// The operation.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The attributes of a file cannot be used.
    #[error("{0:?} cannot be written to a layer")]
    Attributes(PathBuf, #[source] AttributeError),
    /// A file that a layer's tar would make a whiteout of.
    #[error("{0:?} begins like a whiteout, so it cannot be written to a layer")]
    Whiteout(PathBuf),
    /// Somebody writes to the layer.
    #[error("{0:?} has changed while it was read")]
    Changed(PathBuf),
    /// The path is too long.
    #[error("{0:?} is longer than {PATH_MAX} bytes")]
    Long(PathBuf),
    /// Too many entries.
    #[error("it has more than {0} files")]
    Entries(u32),
    /// Too many bytes.
    #[error("its files have more than {0} bytes")]
    Bytes(u64),
    /// Too many names at once.
    #[error("its directories have more names than {0} bytes of memory hold")]
    Names(usize),
    /// The tar cannot be written.
    #[error("the tar cannot be written")]
    Write(#[source] io::Error),
}

/// Writes the tar of what is below `root`. `user_xattr`: whether overlayfs's own attributes are `user.overlay.*`.
///
/// # Errors
/// See [`WalkError`]; the tar is then cut off.
pub fn archive(root: &Path, user_xattr: bool, limits: Limits, out: impl Write) -> Result<(), WalkError> {
    let opened = openat(CWD, root, OPEN | OFlags::PATH | OFlags::DIRECTORY, Mode::empty());
    let mut walk = Walk {
        root: opened.map_err(|error| failed("open", root.to_owned(), error))?,
        shown: root,
        user_xattr,
        limits,
        tar: Archive::new(out),
        links: HashMap::new(),
        entries: 0,
        bytes: 0,
        names: 0,
        piece: vec![0; PIECE],
    };
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        walk.names = walk.names.saturating_sub(cost(&path));
        walk.directory(&path, &mut pending)?;
    }
    walk.tar.end().map_err(WalkError::Write)
}

struct Walk<'a, W> {
    root: OwnedFd,
    shown: &'a Path,
    user_xattr: bool,
    limits: Limits,
    tar: Archive<W>,
    /// Files with several names, by device and number: the first of them.
    links: HashMap<(u64, u64), Vec<u8>>,
    entries: u32,
    bytes: u64,
    names: usize,
    piece: Vec<u8>,
}

impl<W: Write> Walk<'_, W> {
    /// Writes what is in a directory; adds the directories in it to `pending`, the first one last.
    fn directory(&mut self, path: &[u8], pending: &mut Vec<Vec<u8>>) -> Result<(), WalkError> {
        let within = if path.is_empty() { b"." } else { path };
        let opened = openat2(&self.root, within, OPEN | OFlags::DIRECTORY, Mode::empty(), WITHIN);
        let directory = opened.map_err(|error| failed("open", self.shown(path), error))?;
        if path.is_empty() {
            let stat = fstat(&directory).map_err(|error| failed("look at", self.shown(path), error))?;
            self.one_directory(directory.as_fd(), b".", b"./", &stat)?;
        }
        let names = self.names_in(directory.as_fd(), path)?;
        let first = pending.len();
        for name in names {
            self.names = self.names.saturating_sub(cost(&name));
            if let Some(below) = self.entry(directory.as_fd(), path, &name)? {
                self.hold(&below)?;
                pending.push(below);
            }
        }
        pending[first..].reverse();
        Ok(())
    }

    fn names_in(&mut self, directory: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<Vec<u8>>, WalkError> {
        let unread = |error| failed("read", self.shown(path), error);
        let mut names = Vec::new();
        let entries = Dir::read_from(directory).map_err(unread)?;
        for entry in entries {
            let entry = entry.map_err(|error| failed("read", self.shown(path), error))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                self.hold(name)?;
                names.push(name.to_vec());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Writes one entry; returns its path if it is a directory.
    fn entry(&mut self, parent: BorrowedFd<'_>, directory: &[u8], name: &[u8]) -> Result<Option<Vec<u8>>, WalkError> {
        let path = joined(directory, name);
        if path.len() > PATH_MAX {
            return Err(WalkError::Long(self.shown(&path)));
        }
        if name.starts_with(WHITEOUT) {
            return Err(WalkError::Whiteout(self.shown(&path)));
        }
        let looked = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = looked.map_err(|error| failed("look at", self.shown(&path), error))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        match kind {
            // A tar has no word for one.
            FileType::Socket => return Ok(None),
            FileType::CharacterDevice if stat.st_rdev == WHITEOUT_DEVICE => {
                let path = joined(directory, &[WHITEOUT, name].concat());
                return self.write(&Entry::empty(&path)).map(|()| None);
            }
            FileType::Directory => return self.one_directory(parent, name, &path, &stat).map(|()| Some(path)),
            _ => {}
        }
        if let Some(first) = self.other_name(&path, &stat)? {
            let link = Entry {
                kind: Kind::HardLink(&first),
                ..described(&path, &stat)
            };
            return self.write(&link).map(|()| None);
        }
        let attributes = self.attributes(parent, name, &path)?;
        let mut target = Vec::new();
        let kind = match kind {
            FileType::Symlink => {
                let read = readlinkat(parent, name, Vec::new());
                target.extend(read.map_err(|error| failed("read", self.shown(&path), error))?.into_bytes());
                Kind::Symlink(&target)
            }
            FileType::CharacterDevice => Kind::Character(major(stat.st_rdev), minor(stat.st_rdev)),
            FileType::BlockDevice => Kind::Block(major(stat.st_rdev), minor(stat.st_rdev)),
            FileType::Fifo => Kind::Fifo,
            _ => Kind::File,
        };
        let size = if kind == Kind::File { stat.st_size as u64 } else { 0 };
        self.write(&Entry {
            kind,
            size,
            attributes: &attributes.kept,
            ..described(&path, &stat)
        })?;
        if kind == Kind::File {
            self.content(parent, name, &path, &stat)?;
        }
        Ok(None)
    }

    /// `name` in `parent` is the directory at `path`.
    fn one_directory(&mut self, parent: BorrowedFd<'_>, name: &[u8], path: &[u8], stat: &Stat) -> Result<(), WalkError> {
        let attributes = self.attributes(parent, name, path)?;
        let entry = Entry {
            kind: Kind::Directory,
            attributes: &attributes.kept,
            ..described(path, stat)
        };
        let mtime = if entry.mtime.1 == 0 { entry.mtime } else { (0, 0) };
        self.write(&Entry { mtime, ..entry })?;
        if attributes.opaque {
            self.write(&Entry::empty(&joined(path.strip_suffix(b"/").unwrap_or(path), OPAQUE)))?;
        }
        Ok(())
    }

    fn write(&mut self, entry: &Entry<'_>) -> Result<(), WalkError> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(WalkError::Entries(self.limits.entries));
        }
        self.bytes = self.bytes.saturating_add(entry.size);
        if self.bytes > self.limits.bytes {
            return Err(WalkError::Bytes(self.limits.bytes));
        }
        self.tar.entry(entry).map_err(WalkError::Write)
    }

    /// The first name of a file that has several; the name of another one is noted.
    fn other_name(&mut self, path: &[u8], stat: &Stat) -> Result<Option<Vec<u8>>, WalkError> {
        if stat.st_nlink < 2 {
            return Ok(None);
        }
        let file = (stat.st_dev, stat.st_ino);
        if let Some(first) = self.links.get(&file) {
            return Ok(Some(first.clone()));
        }
        self.hold(path)?;
        self.links.insert(file, path.to_vec());
        Ok(None)
    }

    /// Copies a file, which has as many bytes as was said of it.
    fn content(&mut self, parent: BorrowedFd<'_>, name: &[u8], path: &[u8], stat: &Stat) -> Result<(), WalkError> {
        // What was a file a moment ago is not waited for if it has become a pipe.
        let opened = openat2(parent, name, OPEN | OFlags::NONBLOCK, Mode::empty(), WITHIN);
        let file = opened.map_err(|error| failed("open", self.shown(path), error))?;
        let now = fstat(&file).map_err(|error| failed("look at", self.shown(path), error))?;
        if (now.st_dev, now.st_ino, now.st_mode) != (stat.st_dev, stat.st_ino, stat.st_mode) {
            return Err(WalkError::Changed(self.shown(path)));
        }
        let size = stat.st_size as u64;
        let mut rest = size;
        let mut file = File::from(file);
        while rest > 0 {
            let most = usize::try_from(rest).unwrap_or(PIECE).min(PIECE);
            let read = match file.read(&mut self.piece[..most]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(|source| WalkError::File {
                    doing: "read",
                    path: self.shown(path),
                    source,
                })?,
            };
            if read == 0 {
                return Err(WalkError::Changed(self.shown(path)));
            }
            self.tar.content(&self.piece[..read]).map_err(WalkError::Write)?;
            rest -= read as u64;
        }
        self.tar.pad(size).map_err(WalkError::Write)
    }

    fn attributes(&self, parent: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<Attributes, WalkError> {
        attributes::of(parent, name, self.user_xattr).map_err(|error| WalkError::Attributes(self.shown(path), error))
    }

    /// Counts a name that is kept.
    fn hold(&mut self, name: &[u8]) -> Result<(), WalkError> {
        self.names += cost(name);
        if self.names > self.limits.names {
            return Err(WalkError::Names(self.limits.names));
        }
        Ok(())
    }

    fn shown(&self, path: &[u8]) -> PathBuf {
        self.shown.join(OsStr::from_bytes(path))
    }
}

fn cost(name: &[u8]) -> usize {
    name.len() + NAME_COST
}

fn joined(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() || directory == b"." {
        return name.to_vec();
    }
    [directory, name].join(&b'/')
}

/// Permissions, owners and time.
fn described<'a>(path: &'a [u8], stat: &Stat) -> Entry<'a> {
    Entry {
        mode: stat.st_mode,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
        ..Entry::empty(path)
    }
}

fn failed(doing: &'static str, path: PathBuf, error: Errno) -> WalkError {
    WalkError::File {
        doing,
        path,
        source: error.into(),
    }
}

#[cfg(test)]
mod tests;
