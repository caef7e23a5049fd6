//! Files within a tar file, by name and through links, read where they are.

use crate::limits::ARCHIVE_FILES_MAX;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path};
use std::sync::Arc;

/// Most links from a name to its file.
const LINKS_MAX: usize = 8;

/// The files of a tar file. A later entry replaces an earlier one of the same name.
pub(super) struct Tarball {
    file: Arc<File>,
    entries: BTreeMap<String, Entry>,
}

enum Entry {
    File {
        offset: u64,
        size: u64,
    },
    /// Name that a symbolic or hard link leads to.
    Link(String),
}

/// One file's bytes.
pub(super) struct Slice {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Tarball {
    /// Reads the headers of the whole tar file.
    pub(super) fn index(mut file: File) -> io::Result<Self> {
        file.seek(SeekFrom::Start(0))?;
        let mut entries = BTreeMap::new();
        let mut archive = tar::Archive::new(file);
        for (number, entry) in archive.entries_with_seek()?.enumerate() {
            let entry = entry?;
            if number >= ARCHIVE_FILES_MAX {
                return Err(io::Error::other(format!("the tar file has more than {ARCHIVE_FILES_MAX} entries")));
            }
            let path = entry.path()?.into_owned();
            let Some(name) = normal(Path::new(""), &path) else { continue };
            let kind = entry.header().entry_type();
            let link = entry.link_name()?.map(std::borrow::Cow::into_owned);
            let found = match (kind, link) {
                (tar::EntryType::Regular | tar::EntryType::Continuous, _) => Some(Entry::File {
                    offset: entry.raw_file_position(),
                    size: entry.size(),
                }),
                (tar::EntryType::Symlink, Some(target)) => {
                    let directory = path.parent().unwrap_or(Path::new(""));
                    normal(directory, &target).map(Entry::Link)
                }
                (tar::EntryType::Link, Some(target)) => normal(Path::new(""), &target).map(Entry::Link),
                _ => None,
            };
            if let Some(found) = found {
                entries.insert(name, found);
            }
        }
        let file = Arc::new(archive.into_inner());
        Ok(Self { file, entries })
    }

    /// The content of the file called `name`, if there is one.
    pub(super) fn reader(&self, name: &str) -> Option<Slice> {
        let mut name = normal(Path::new(""), Path::new(name))?;
        for _ in 0..=LINKS_MAX {
            match self.entries.get(&name)? {
                Entry::Link(target) => name.clone_from(target),
                Entry::File { offset, size } => {
                    return Some(Slice {
                        file: self.file.clone(),
                        offset: *offset,
                        left: *size,
                    });
                }
            }
        }
        None
    }
}

/// `path` seen from `directory`, without `.` and `..`; `None` if it leads out of the archive, or is not text.
fn normal(directory: &Path, path: &Path) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    let whole = directory.join(path);
    for part in whole.components() {
        match part {
            Component::Normal(part) => parts.push(part.to_str()?),
            Component::ParentDir => drop(parts.pop()?),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

impl Read for Slice {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        match self.file.read_at(&mut buffer[..most], self.offset)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.offset += count as u64;
                self.left -= count as u64;
                Ok(count)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_files_within_the_archive() {
        let mut tar = tar::Builder::new(tempfile::tempfile().unwrap());
        let mut add = |name: &str, kind: tar::EntryType, link: &str, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            match link {
                "" => tar.append_data(&mut header, name, content).unwrap(),
                target => tar.append_link(&mut header, name, target).unwrap(),
            }
        };
        add("one/layer.tar", tar::EntryType::Regular, "", b"replaced");
        add("./one/layer.tar", tar::EntryType::Regular, "", b"one");
        add("two/layer.tar", tar::EntryType::Symlink, "../one/layer.tar", b"");
        add("three", tar::EntryType::Link, "two/layer.tar", b"");
        add("out", tar::EntryType::Symlink, "../../etc/passwd", b"");
        add("a", tar::EntryType::Symlink, "b", b"");
        add("b", tar::EntryType::Symlink, "a", b"");
        let tarball = Tarball::index(tar.into_inner().unwrap()).unwrap();
        let content = |name: &str| {
            let mut content = String::new();
            tarball.reader(name)?.read_to_string(&mut content).unwrap();
            Some(content)
        };
        for name in ["one/layer.tar", "two/layer.tar", "./three"] {
            assert_eq!(content(name).as_deref(), Some("one"), "{name}");
        }
        for name in ["out", "a", "none", "one"] {
            assert_eq!(content(name), None, "{name}");
        }
    }

    #[test]
    fn names_stay_within_the_archive() {
        let from = |directory: &str, path: &str| normal(Path::new(directory), Path::new(path));
        assert_eq!(from("", "./a//b").as_deref(), Some("a/b"));
        assert_eq!(from("x", "../a/layer.tar").as_deref(), Some("a/layer.tar"));
        assert_eq!(from("x", "../../etc/passwd"), None);
        assert_eq!(from("", "."), None);
        // An absolute link is seen from the archive's root, as when it is unpacked there.
        assert_eq!(from("x", "/etc/passwd").as_deref(), Some("etc/passwd"));
    }
}
