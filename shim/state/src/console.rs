//! The file that keeps the end of a guest's console: of fixed length, the newest output in order, zeros behind it.
//!
//! The VMM maps it and closes it, so a VMM that its guest has taken over can write nonsense into it and nothing else. When it is
//! full, the VMM moves its newer half to its beginning.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

/// Length of the file; at least half of it is always the newest output.
pub const CONSOLE_BYTES: usize = 128 << 10;

/// Makes the file at `path`. Its blocks are not reserved yet: the VMM does that, so that they are charged to its cgroup.
///
/// # Errors
/// When it exists or cannot be made.
pub fn create(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    file.set_len(CONSOLE_BYTES as u64)?;
    Ok(file)
}

/// What the file at `path` holds.
///
/// # Errors
/// When it cannot be opened or read.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    content(&File::open(path)?)
}

/// What an open file holds.
///
/// # Errors
/// When it cannot be read.
pub fn content(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; CONSOLE_BYTES];
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], length as u64)? {
            0 => break,
            n => length += n,
        }
    }
    let end = bytes[..length].iter().rposition(|byte| *byte != 0);
    bytes.truncate(end.map_or(0, |last| last + 1));
    Ok(bytes)
}

/// Appends `words`, on a line of their own, and drops the oldest output for which there is no room then. Only once the VMM has
/// ended: it does not know of them.
///
/// # Errors
/// When the file cannot be read or written.
pub fn append(file: &File, words: &[u8]) -> io::Result<()> {
    let mut text = content(file)?;
    if text.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
    text.extend_from_slice(words);
    text.drain(..text.len().saturating_sub(CONSOLE_BYTES));
    text.resize(CONSOLE_BYTES, 0);
    file.write_all_at(&text, 0)
}

/// Follows a console's file while it grows.
#[derive(Debug)]
pub struct Follower {
    file: File,
    position: u64,
}

impl Follower {
    /// Follows the file at `path` from its beginning.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: File::open(path)?,
            position: 0,
        })
    }

    /// What was written since the last call. A file whose newer half has moved meanwhile ends before the position; some output is
    /// lost if the half was full again.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn news(&mut self) -> io::Result<Vec<u8>> {
        let half = (CONSOLE_BYTES / 2) as u64;
        let mut last = [1];
        if self.position > half {
            self.file.read_exact_at(&mut last, self.position - 1)?;
        }
        if last == [0] {
            self.position -= half;
        }
        let mut news = Vec::new();
        let mut part = [0; 4096];
        loop {
            let n = self.file.read_at(&mut part, self.position)?;
            let written = part[..n].iter().position(|byte| *byte == 0).unwrap_or(n);
            news.extend_from_slice(&part[..written]);
            self.position += written as u64;
            if written < part.len() {
                return Ok(news);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, std::path::PathBuf, File) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let file = create(&path).unwrap();
        (dir, path, file)
    }

    #[test]
    fn an_empty_file_takes_last_words_and_keeps_its_length() {
        let (_dir, path, file) = file();
        assert_eq!(read(&path).unwrap(), b"");
        append(&file, b"one\n").unwrap();
        append(&file, b"two").unwrap();
        append(&file, b"three\n").unwrap();
        assert_eq!(read(&path).unwrap(), b"one\ntwo\nthree\n");
        append(&file, &[b'x'; CONSOLE_BYTES - 4]).unwrap();
        assert!(read(&path).unwrap().starts_with(b"ree\nxxx"), "the newest is kept");
        assert_eq!(file.metadata().unwrap().len(), CONSOLE_BYTES as u64);
    }

    /// A hostile VMM may leave anything in it, and has it no longer than it was.
    #[test]
    fn any_content_is_read_within_the_length() {
        let (_dir, path, file) = file();
        file.write_all_at(&[b'z'; CONSOLE_BYTES], 0).unwrap();
        file.write_all_at(&[b'z'; 10], CONSOLE_BYTES as u64 + 100).unwrap();
        assert_eq!(read(&path).unwrap().len(), CONSOLE_BYTES);
        assert!(Follower::open(&path).unwrap().news().unwrap().len() <= CONSOLE_BYTES + 110);
    }

    #[test]
    fn a_follower_sees_each_byte_once_also_when_the_newer_half_has_moved() {
        let (_dir, path, file) = file();
        let mut follower = Follower::open(&path).unwrap();
        file.write_all_at(b"one\n", 0).unwrap();
        assert_eq!(follower.news().unwrap(), b"one\n");
        assert_eq!(follower.news().unwrap(), b"");
        file.write_all_at(&[b'a'; CONSOLE_BYTES - 4], 4).unwrap();
        assert_eq!(follower.news().unwrap(), [b'a'; CONSOLE_BYTES - 4]);
        let half = CONSOLE_BYTES / 2;
        file.write_all_at(&vec![0; half], half as u64).unwrap();
        file.write_all_at(b"two\n", half as u64).unwrap();
        assert_eq!(follower.news().unwrap(), b"two\n");
    }
}
