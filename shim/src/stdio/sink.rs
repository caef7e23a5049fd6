//! Where an output goes: a FIFO that a client reads, or a file that is appended to.

use super::{StdioError, open_error};
use std::{fs::OpenOptions, io};
use tokio::{
    fs::File,
    io::AsyncWriteExt,
    net::unix::pipe::{self, Sender},
};

/// The scheme of plain log files, as in `ctr run --log-uri file:///var/log/web`.
const FILE_SCHEME: &str = "file://";

/// An opened output.
pub enum Sink {
    /// A client's FIFO.
    Fifo(Sender),
    /// A log file.
    File(File),
    /// Nobody takes it any more.
    Closed,
}

impl Sink {
    /// Opens `path` without waiting for a reader.
    pub fn open(stream: &'static str, path: &str) -> Result<Self, StdioError> {
        if let Some(file) = path.strip_prefix(FILE_SCHEME) {
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(file)
                .map_err(open_error(stream, path))?;
            return Ok(Self::File(File::from_std(file)));
        }
        if path.contains("://") {
            return Err(StdioError::Scheme {
                stream,
                path: path.to_owned(),
            });
        }
        let fifo = pipe::OpenOptions::new().read_write(true).open_sender(path);
        fifo.map(Self::Fifo).map_err(open_error(stream, path))
    }

    /// Writes all of `bytes`, waiting while the reader is slow.
    pub async fn write(&mut self, bytes: &[u8]) {
        let written: io::Result<()> = match self {
            Self::Fifo(fifo) => fifo.write_all(bytes).await,
            Self::File(file) => match file.write_all(bytes).await {
                Ok(()) => file.flush().await,
                failed => failed,
            },
            Self::Closed => Ok(()),
        };
        if let Err(error) = written {
            log::warn!("an output cannot be written, the rest of it is discarded: {error}");
            *self = Self::Closed;
        }
    }
}
