//! A FIFO that a story reads or writes as containerd's client library does.

use anyhow::{Context, Result, bail};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::stat::Mode,
    unistd::mkfifo,
};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const POLL: Duration = Duration::from_millis(20);

/// A FIFO in a directory of its own; dropping it removes both.
pub struct Fifo {
    dir: TempDir,
}

/// What a FIFO's reader has received.
pub struct Reading {
    so_far: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Fifo {
    /// Creates one.
    pub fn new() -> Result<Self> {
        let dir = tempfile::tempdir().context("cannot create a directory for a FIFO")?;
        let fifo = Self { dir };
        mkfifo(&fifo.file(), Mode::S_IRUSR | Mode::S_IWUSR).context("cannot create a FIFO")?;
        Ok(fifo)
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("fifo")
    }

    /// Its path.
    pub fn path(&self) -> String {
        self.file().display().to_string()
    }

    /// Its reading end, opened before any writer exists; it reaches end of file when the last writer has closed.
    pub fn reader(&self) -> Result<File> {
        let open = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(self.file());
        let file = open.context("cannot open a FIFO")?;
        fcntl(&file, FcntlArg::F_SETFL(OFlag::empty())).context("cannot make a FIFO blocking")?;
        Ok(file)
    }

    /// Its writing end; waits for a reader.
    pub fn writer(&self) -> Result<File> {
        OpenOptions::new().write(true).open(self.file()).context("cannot open a FIFO")
    }

    /// Reads it in the background, from its first writer on, until end of file.
    pub fn read(&self) -> Result<Reading> {
        Ok(Reading::of(self.reader()?))
    }
}

impl Reading {
    /// Reads `file` in the background, from its first writer on, until end of file.
    pub fn of(mut file: File) -> Self {
        let so_far = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&so_far);
        let thread = std::thread::spawn(move || {
            // Before the first writer a read returns end of file; poll(2) returns only once a writer has opened the FIFO.
            poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
            let mut bytes = [0; 64 * 1024];
            loop {
                let count = file.read(&mut bytes)?;
                if count == 0 {
                    return Ok(());
                }
                if let Ok(mut all) = shared.lock() {
                    all.extend_from_slice(&bytes[..count]);
                }
            }
        });
        Self { so_far, thread }
    }

    /// The bytes received so far.
    pub fn so_far(&self) -> Vec<u8> {
        self.so_far.lock().map(|all| all.clone()).unwrap_or_default()
    }

    /// Whether it has reached end of file.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for end of file; returns everything received.
    pub fn end(self, limit: Duration) -> Result<Vec<u8>> {
        let end = Instant::now() + limit;
        while !self.thread.is_finished() {
            if Instant::now() > end {
                bail!(
                    "a FIFO did not reach end of file within {limit:?}; {} bytes arrived",
                    self.so_far().len()
                );
            }
            std::thread::sleep(POLL);
        }
        match self.thread.join() {
            Ok(result) => result.context("cannot read a FIFO")?,
            Err(_) => bail!("a reader panicked"),
        }
        self.so_far
            .lock()
            .map(|all| all.clone())
            .map_err(|_| anyhow::anyhow!("a reader panicked"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_reader_waits_for_its_first_writer_and_stops_after_the_last() {
        let fifo = Fifo::new().unwrap();
        let reading = fifo.read().unwrap();
        std::thread::sleep(POLL);
        assert!(!reading.has_ended());
        let mut writer = fifo.writer().unwrap();
        writer.write_all(b"here").unwrap();
        drop(writer);
        assert_eq!(reading.end(Duration::from_secs(10)).unwrap(), b"here");
    }
}
