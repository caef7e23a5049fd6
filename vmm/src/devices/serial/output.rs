//! Where the console's output goes: a stream of limited length, or a file of fixed length that keeps the newest output.
#![expect(unsafe_code, reason = "the file is mapped")]

use std::{
    fs::File,
    io::{self, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, FileTypeExt},
    },
};
use vm_memory::{Bytes, VolatileMemory, mmap::MmapRegion, mmap::MmapRegionError};

/// Most bytes that a stream receives, so that a reader that stores them has a bound.
pub const STREAM_MAX_BYTES: u64 = 16 << 20;
const LIMIT_NOTICE: &[u8] = b"\n[the console's limit of 16 MiB is reached, output ends here]\n";
/// Lengths of a file that keeps the newest output; multiples of the page size.
const KEPT_BYTES: std::ops::RangeInclusive<u64> = 4096..=256 << 10;

/// Why a file cannot take the console's output.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// `fstat` failed.
    #[error("cannot stat the console's file")]
    Metadata(#[source] io::Error),
    /// It would grow, or cost too much memory.
    #[error(
        "the console's file has {0} bytes: give it a length from 4096 to 262144, a multiple of 4096, or pass a pipe, socket or terminal"
    )]
    Length(u64),
    /// Not a file, pipe, socket or terminal.
    #[error("the console must be a file, a pipe, a socket or a terminal")]
    Kind,
    /// Its file system is full.
    #[error("cannot reserve the {0} bytes of the console's file")]
    Reserve(u64, #[source] io::Error),
    /// `mmap` failed.
    #[error("cannot map the console's file, which must be open for reading and writing")]
    Map(#[source] io::Error),
    /// The mapping is not usable.
    #[error("cannot use the mapping of the console's file")]
    Region(#[from] MmapRegionError),
}

/// An opened output.
#[derive(Debug)]
pub struct Output(Kind);

#[derive(Debug)]
enum Kind {
    Stream { file: File, left: u64 },
    Kept(Kept),
}

impl Output {
    /// A pipe, socket or terminal becomes a stream. A regular file keeps its length: it is mapped and closed, so that no
    /// descriptor is left by which a VMM that its guest has taken over could make it grow.
    pub fn open(file: File) -> Result<Self, OutputError> {
        let metadata = file.metadata().map_err(OutputError::Metadata)?;
        let kind = metadata.file_type();
        if metadata.is_file() {
            return Ok(Self(Kind::Kept(Kept::map(&file, metadata.len())?)));
        }
        if kind.is_fifo() || kind.is_socket() || kind.is_char_device() {
            return Ok(Self(Kind::Stream {
                file,
                left: STREAM_MAX_BYTES,
            }));
        }
        Err(OutputError::Kind)
    }

    /// Writes one line, or a part of a long one. The console is for debugging only: what cannot be written is lost.
    pub fn write(&mut self, line: &[u8]) {
        match &mut self.0 {
            Kind::Kept(kept) => kept.push(line),
            Kind::Stream { left: 0, .. } => {}
            Kind::Stream { file, left } => {
                let allowed = line.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= allowed as u64;
                stream(file, &line[..allowed]);
                if *left == 0 {
                    stream(file, LIMIT_NOTICE);
                }
            }
        }
    }

    #[cfg(test)]
    fn limit_to(&mut self, bytes: u64) {
        if let Kind::Stream { left, .. } = &mut self.0 {
            *left = bytes;
        }
    }
}

/// An interrupted write is not repeated, because the signal asks this vCPU thread to stop.
fn stream(file: &mut File, mut rest: &[u8]) {
    while !rest.is_empty() {
        let Ok(written @ 1..) = file.write(rest) else { break };
        rest = &rest[written..];
    }
}

/// A mapped file: the newest output in order, zeros behind it. When it is full, its newer half moves to its beginning, so
/// that it reads like any log, and at least half of its length is always the newest output.
#[derive(Debug)]
struct Kept {
    /// Stays mapped until the process ends.
    region: MmapRegion,
    end: usize,
}

impl Kept {
    fn map(file: &File, length: u64) -> Result<Self, OutputError> {
        if !KEPT_BYTES.contains(&length) || !length.is_multiple_of(*KEPT_BYTES.start()) {
            return Err(OutputError::Length(length));
        }
        // A store to a page that the file system has no room for would be SIGBUS. This also charges the pages to the cgroup of
        // this process.
        file.write_all_at(&vec![0; length as usize], 0)
            .map_err(|e| OutputError::Reserve(length, e))?;
        let (size, access) = (length as usize, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new shared mapping at an address that the kernel chooses, of a file that is open while `file` is borrowed.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), size, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if address == libc::MAP_FAILED {
            return Err(OutputError::Map(io::Error::last_os_error()));
        }
        // SAFETY: the mapping of `size` bytes was just made, and nothing unmaps it. Its file is not shortened: this process has no
        // other use of it, and whoever passed it keeps its length.
        let region = unsafe { MmapRegion::build_raw(address.cast(), size, access, libc::MAP_SHARED) }?;
        Ok(Self { region, end: 0 })
    }

    fn push(&mut self, bytes: &[u8]) {
        let half = self.region.size() / 2;
        for part in bytes.chunks(half) {
            if self.end + part.len() > self.region.size() {
                self.keep_newest(half);
            }
            self.put(part, self.end);
            self.end += part.len();
        }
    }

    fn keep_newest(&mut self, count: usize) {
        let mut newest = vec![0; self.region.size()];
        if let Ok(from) = self.region.get_slice(self.end - count, count) {
            from.copy_to(&mut newest[..count]);
        }
        self.put(&newest, 0);
        self.end = count;
    }

    fn put(&self, bytes: &[u8], at: usize) {
        // Fails only beyond the region, which the callers exclude.
        let _ = self.region.as_volatile_slice().write_slice(bytes, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::{Read, Seek};

    fn file_of(length: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(length).unwrap();
        file
    }

    fn content(mut file: &File) -> Vec<u8> {
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_stream_is_limited() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut output = Output::open(File::from(std::os::fd::OwnedFd::from(writer))).unwrap();
        output.limit_to(10);
        for _ in 0..30 {
            output.write(b"zzz\n");
        }
        drop(output);
        let mut seen = Vec::new();
        reader.read_to_end(&mut seen).unwrap();
        assert_eq!(seen, [b"zzz\nzzz\nzz", LIMIT_NOTICE].concat());
    }

    #[test]
    fn a_file_that_would_grow_or_is_too_large_or_read_only_is_refused() {
        for length in [0, 1, 4095, 6000, 512 << 10, 1 << 40] {
            assert!(matches!(Output::open(file_of(length)), Err(OutputError::Length(_))), "{length}");
        }
        let named = tempfile::NamedTempFile::new().unwrap();
        named.as_file().set_len(8192).unwrap();
        assert!(Output::open(File::open(named.path()).unwrap()).is_err());
        let write_only = File::options().write(true).open(named.path()).unwrap();
        assert!(matches!(Output::open(write_only), Err(OutputError::Map(_))));
        assert!(matches!(Output::open(File::open("/").unwrap()), Err(OutputError::Kind)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever is printed, the file keeps its length and holds the newest output, at least half of its length of it.
        #[test]
        fn the_newest_output_is_kept(lines in prop::collection::vec(prop::collection::vec(1u8.., 1..6000), 0..20)) {
            let file = file_of(8192);
            let mut output = Output::open(file.try_clone().unwrap()).unwrap();
            lines.iter().for_each(|line| output.write(line));
            let (all, bytes) = (lines.concat(), content(&file));
            prop_assert_eq!(bytes.len(), 8192);
            let kept: Vec<u8> = bytes.iter().copied().take_while(|byte| *byte != 0).collect();
            prop_assert!(bytes[kept.len()..].iter().all(|byte| *byte == 0));
            prop_assert!(all.ends_with(&kept));
            prop_assert!(kept.len() >= all.len().min(4096));
        }
    }
}
