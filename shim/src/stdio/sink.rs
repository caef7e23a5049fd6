//! Open outputs: a FIFO that a client reads, a file that is appended to, or a program's pipe.

use super::{
    StdioError, StdioPaths,
    destination::Destination,
    logger::{Logger, Started},
    open_error,
};
use std::{
    fs::{self, OpenOptions},
    io::{self, PipeWriter},
    os::fd::OwnedFd,
    path::Path,
};
use tokio::{
    fs::File,
    io::AsyncWriteExt,
    net::unix::pipe::{self, Sender},
    task::JoinHandle,
};

/// An opened output.
pub enum Sink {
    /// A client's FIFO, or a program's pipe.
    Pipe(Sender),
    /// A log file.
    File(File),
    /// A write has failed; further output is discarded.
    Closed,
}

/// The outputs of a process.
pub struct Outputs {
    /// Standard output, or the terminal.
    pub stdout: Option<Sink>,
    /// Standard error; with a terminal there is none.
    pub stderr: Option<Sink>,
    /// The program that reads both, and the task that waits for its exit.
    pub logger: Option<(Logger, JoinHandle<()>)>,
}

impl Outputs {
    /// Opens the outputs of `paths`, without waiting for a reader.
    pub async fn open(paths: &StdioPaths) -> Result<Self, StdioError> {
        let wanted = |path: &str| (!path.is_empty()).then(|| path.to_owned());
        let stdout = wanted(&paths.stdout);
        let stderr = wanted(&paths.stderr).filter(|_| !paths.terminal);
        if let Some(uri) = &stdout
            && let Some(Destination::Program { path, arguments }) = Destination::parse(uri)
        {
            let failed = open_error("stdout", uri);
            let started = Logger::start(&path, &arguments, &paths.namespace, &paths.id).await;
            return Self::of_program(started.map_err(failed)?, stderr.is_some()).map_err(open_error("stdout", uri));
        }
        Ok(Self {
            stdout: stdout.map(|path| Sink::open("stdout", &path)).transpose()?,
            stderr: stderr.map(|path| Sink::open("stderr", &path)).transpose()?,
            logger: None,
        })
    }

    /// One program reads both, as in containerd; an output that the process does not have ends at once.
    fn of_program(started: Started, with_stderr: bool) -> io::Result<Self> {
        let sink = |writer: PipeWriter| Sender::from_owned_fd(OwnedFd::from(writer)).map(Sink::Pipe);
        Ok(Self {
            stdout: Some(sink(started.stdout)?),
            stderr: with_stderr.then(|| sink(started.stderr)).transpose()?,
            logger: Some((started.logger, started.ended)),
        })
    }
}

impl Sink {
    fn open(stream: &'static str, uri: &str) -> Result<Self, StdioError> {
        match Destination::parse(uri) {
            Some(Destination::Fifo(path)) => {
                let fifo = pipe::OpenOptions::new().read_write(true).open_sender(path);
                fifo.map(Self::Pipe).map_err(open_error(stream, uri))
            }
            Some(Destination::File(path)) => log_file(&path).map_err(open_error(stream, uri)),
            Some(Destination::Program { .. }) | None => Err(StdioError::Scheme {
                stream,
                path: uri.to_owned(),
            }),
        }
    }

    /// Writes all of `bytes`, waiting for a slow reader, and reports each written part to `moved`.
    pub async fn write(&mut self, mut bytes: &[u8], moved: impl Fn(usize)) {
        let mut written = Ok(());
        while !bytes.is_empty() && written.is_ok() {
            let part = match self {
                Self::Pipe(pipe) => pipe.write(bytes).await,
                Self::File(file) => match file.write_all(bytes).await {
                    Ok(()) => file.flush().await.map(|()| bytes.len()),
                    Err(error) => Err(error),
                },
                Self::Closed => Ok(bytes.len()),
            };
            match part {
                Ok(count) => {
                    moved(count);
                    bytes = &bytes[count..];
                }
                Err(error) => written = Err(error),
            }
        }
        if let Err(error) = written {
            log::warn!("cannot write an output, the rest of it is discarded: {error}");
            *self = Self::Closed;
        }
    }
}

/// Opens a log file as containerd's own shim does: its directory is created too.
fn log_file(path: &Path) -> io::Result<Sink> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    Ok(Sink::File(File::from_std(file)))
}
