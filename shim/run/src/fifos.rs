//! The FIFOs of a container's streams, in a directory of their own that goes with them.

use crate::containerd::Stdio;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::io;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tokio::net::unix::pipe::{OpenOptions, Receiver, Sender};

/// Where containerd's own client has them.
pub const DIRECTORY: &str = "/run/containerd/fifo";

/// Named pipes; dropping this removes them.
pub struct Fifos {
    dir: TempDir,
    terminal: bool,
}

impl Fifos {
    /// Makes them below `directory`.
    pub fn new(directory: &Path, terminal: bool) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let dir = tempfile::Builder::new().prefix("casemate-run-").tempdir_in(directory)?;
        let fifos = Self { dir, terminal };
        let outputs: &[&str] = if terminal { &["stdout"] } else { &["stdout", "stderr"] };
        for name in outputs.iter().chain(&["stdin"]) {
            mkfifo(&fifos.path(name), Mode::S_IRUSR | Mode::S_IWUSR)?;
        }
        Ok(fifos)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Their paths, for containerd.
    pub fn stdio(&self) -> Stdio {
        let shown = |name: &str| self.path(name).display().to_string();
        Stdio {
            stdin: shown("stdin"),
            stdout: shown("stdout"),
            stderr: if self.terminal { String::new() } else { shown("stderr") },
            terminal: self.terminal,
        }
    }

    /// The reading ends of both outputs; with a terminal there is one. They are opened before the task exists, so that nothing of it
    /// is lost, and read once it does: until a writer has opened them they are at their end.
    pub fn outputs(&self) -> io::Result<(Receiver, Option<Receiver>)> {
        let open = |name: &str| OpenOptions::new().open_receiver(self.path(name));
        let stderr = if self.terminal { None } else { Some(open("stderr")?) };
        Ok((open("stdout")?, stderr))
    }

    /// The writing end of the input, which the task has opened.
    pub fn input(&self) -> io::Result<Sender> {
        OpenOptions::new().open_sender(self.path("stdin"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn bytes_pass_and_nothing_stays() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("fifo");
        let fifos = Fifos::new(&below, false).unwrap();
        let (mut stdout, stderr) = fifos.outputs().unwrap();
        assert!(stderr.is_some());
        // Nobody reads the input yet.
        assert!(fifos.input().is_err());
        let mut task = OpenOptions::new().open_sender(fifos.stdio().stdout).unwrap();
        task.write_all(b"hello").await.unwrap();
        drop(task);
        let mut text = String::new();
        stdout.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
        drop(fifos);
        assert_eq!(std::fs::read_dir(&below).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_terminal_has_one_output() {
        let directory = tempfile::tempdir().unwrap();
        let fifos = Fifos::new(directory.path(), true).unwrap();
        assert!(fifos.outputs().unwrap().1.is_none());
        let stdio = fifos.stdio();
        assert!(stdio.terminal && stdio.stderr.is_empty());
    }
}
