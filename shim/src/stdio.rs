//! A process's streams: each copied between a FIFO of containerd and a vsock connection.
//!
//! - An output is copied until the guest closes it; only then is the FIFO closed, which is the client's end of file. The
//!   FIFO is opened for both directions, so that a client may reconnect (a containerd restart) without EPIPE in between.
//! - Input ends when the last client has closed it *and* `CloseIO` was called. Until then the shim holds a write end, so
//!   that one client may detach and another attach.

mod destination;
mod logger;
mod sink;

use agent_protocol::{ConnectError, Stdio as AgentStdio, StreamToken, open_stream};
use logger::Logger;
use nix::libc::O_NONBLOCK;
use sink::{Outputs, Sink};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixStream, unix::pipe},
    sync::watch,
    task::JoinHandle,
};

/// Bytes copied at a time: a pipe's default capacity.
const BUFFER_BYTES: usize = 64 * 1024;
/// Longest wait for the outputs of an ended process, even while bytes move: one line a second would never end.
const DRAIN_AT_MOST: Duration = Duration::from_secs(120);

/// Where a process's streams lead, as containerd wrote it; empty means none.
#[derive(Clone, Debug, Default)]
pub struct StdioPaths {
    /// FIFO that is read.
    pub stdin: String,
    /// FIFO, `file://` or `binary://` that is written.
    pub stdout: String,
    /// The same; unused with a terminal.
    pub stderr: String,
    /// Whether the process has a terminal.
    pub terminal: bool,
    /// containerd namespace, for a logging program.
    pub namespace: String,
    /// Id of the container or exec, for a logging program.
    pub id: String,
}

/// Why a stream cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StdioError {
    /// A FIFO or file cannot be opened, or a logging program cannot be started.
    #[error("cannot open {stream} at {path}")]
    Open {
        /// Which stream.
        stream: &'static str,
        /// Where it leads.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The URI has an unknown scheme.
    #[error("{stream} leads to {path}, which is no FIFO's path, file:// nor, for both outputs, binary://")]
    Scheme {
        /// Which stream.
        stream: &'static str,
        /// Where it leads.
        path: String,
    },
    /// The connection to the guest failed.
    #[error("cannot connect {stream} to the guest")]
    Connect {
        /// Which stream.
        stream: &'static str,
        /// Why not.
        source: ConnectError,
    },
    /// The kernel's random bytes cannot be read.
    #[error("cannot make a stream's token")]
    Token(#[source] io::Error),
}

/// More bytes than the buffers between guest and reader (pipes, sockets, the VMM) can hold of an ended process's output.
const UNDER_WAY_BYTES: u64 = 8 << 20;

/// The state of a process's outputs together.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    /// Outputs that the guest has not closed yet; a logging program counts as one until it exits.
    open: usize,
    /// Bytes that readers have read, or that were discarded.
    moved: u64,
}

/// The open streams of one process. Dropping this closes them.
pub struct Streams {
    /// Held until `CloseIO`: while it lives, the FIFO has a writer.
    stdin_writer: Mutex<Option<File>>,
    copies: Vec<JoinHandle<()>>,
    stdin: Option<JoinHandle<()>>,
    /// Progress of the outputs.
    outputs: watch::Receiver<Flow>,
    /// The program that reads the outputs; dropped after them.
    _logger: Option<Logger>,
}

impl Streams {
    /// Opens `paths` and starts to copy; the second value identifies the streams to the agent.
    ///
    /// # Errors
    /// See [`StdioError`]; nothing stays open.
    pub async fn open(paths: &StdioPaths, vsock: &Path) -> Result<(Self, AgentStdio), StdioError> {
        let mut request = AgentStdio {
            terminal: paths.terminal,
            ..Default::default()
        };
        let (flow, outputs) = watch::channel(Flow::default());
        let Outputs { stdout, stderr, logger } = Outputs::open(paths).await?;
        let mut streams = Self {
            stdin_writer: Mutex::new(None),
            copies: Vec::new(),
            stdin: None,
            outputs,
            _logger: None,
        };
        if let Some((logger, ended)) = logger {
            streams._logger = Some(logger);
            let open = Open::count(&flow);
            tokio::spawn(async move {
                let _ = ended.await;
                drop(open);
            });
        }
        let outputs = [
            ("stdout", stdout, &mut request.stdout_token),
            ("stderr", stderr, &mut request.stderr_token),
        ];
        for (stream, sink, field) in outputs {
            if let Some(sink) = sink {
                let (token, connection) = connect(stream, vsock).await?;
                *field = token.to_field();
                streams.copies.push(tokio::spawn(copy_out(connection, sink, Open::count(&flow))));
            }
        }
        if !paths.stdin.is_empty() {
            let (writer, reader) = open_stdin(&paths.stdin).map_err(open_error("stdin", &paths.stdin))?;
            let (token, connection) = connect("stdin", vsock).await?;
            request.stdin_token = token.to_field();
            streams.stdin_writer = Mutex::new(Some(writer));
            streams.stdin = Some(tokio::spawn(copy_in(reader, connection)));
        }
        Ok((streams, request))
    }

    /// `CloseIO`: from now on the process gets the client's end of file, after all bytes before it.
    pub fn close_stdin(&self) {
        if let Ok(mut writer) = self.stdin_writer.lock() {
            writer.take();
        }
    }

    /// Waits until every output has ended, at most `limit`; whether they have.
    pub async fn drained(&self, limit: Duration) -> bool {
        let mut outputs = self.outputs.clone();
        // All senders gone means that all copies have ended.
        tokio::time::timeout(limit, outputs.wait_for(|flow| flow.open == 0)).await.is_ok()
    }

    /// Waits until every output has ended; false when no byte has moved for `patience`, when more than [`UNDER_WAY_BYTES`] have
    /// moved, or after [`DRAIN_AT_MOST`]: then a process that outlived this one still writes.
    ///
    /// A reader that keeps reading gets every byte that this process wrote.
    pub async fn drained_while_moving(&self, patience: Duration) -> bool {
        let mut outputs = self.outputs.clone();
        let at_first = outputs.borrow().moved;
        let end = tokio::time::Instant::now() + DRAIN_AT_MOST;
        loop {
            let so_far = outputs.borrow_and_update().moved;
            if so_far - at_first > UNDER_WAY_BYTES {
                return false;
            }
            let change = outputs.wait_for(|flow| flow.open == 0 || flow.moved != so_far);
            let next = end.min(tokio::time::Instant::now() + patience);
            match tokio::time::timeout_at(next, change).await {
                Err(_) => return false,
                Ok(Ok(flow)) if flow.open > 0 => {}
                Ok(_) => return true,
            }
        }
    }

    /// Stops reading input after the process's exit.
    pub fn end_stdin(&self) {
        if let Some(copy) = &self.stdin {
            copy.abort();
        }
        self.close_stdin();
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        for copy in self.copies.iter().chain(&self.stdin) {
            copy.abort();
        }
    }
}

/// Counts as an open output for as long as it lives.
struct Open(watch::Sender<Flow>);

impl Open {
    fn count(flow: &watch::Sender<Flow>) -> Self {
        flow.send_modify(|flow| flow.open += 1);
        Self(flow.clone())
    }

    fn moved(&self, bytes: usize) {
        self.0.send_modify(|flow| flow.moved += bytes as u64);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|flow| flow.open -= 1);
    }
}

async fn connect(stream: &'static str, vsock: &Path) -> Result<(StreamToken, UnixStream), StdioError> {
    let token = random_token().map_err(StdioError::Token)?;
    let connection = open_stream(vsock, token)
        .await
        .map_err(|source| StdioError::Connect { stream, source })?;
    Ok((token, connection))
}

/// A token for a new stream.
///
/// # Errors
/// The kernel's random bytes cannot be read.
pub fn random_token() -> io::Result<StreamToken> {
    let mut bytes = [0; StreamToken::BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(StreamToken(bytes))
}

fn open_error(stream: &'static str, path: &str) -> impl FnOnce(io::Error) -> StdioError + use<> {
    let path = path.to_owned();
    move |source| StdioError::Open { stream, path, source }
}

/// The FIFO's write end for the shim to hold, and its read end. An open for both directions does not block (fifo(7)), and
/// while it is held the reader does not see an end of file before the first client has connected.
fn open_stdin(path: &str) -> io::Result<(File, pipe::Receiver)> {
    let path = PathBuf::from(path);
    let writer = OpenOptions::new().read(true).write(true).custom_flags(O_NONBLOCK).open(&path)?;
    let reader = pipe::OpenOptions::new().open_receiver(&path)?;
    Ok((writer, reader))
}

/// Guest → FIFO, until the guest has closed.
async fn copy_out(mut connection: UnixStream, mut sink: Sink, open: Open) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match connection.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            // A broken sink must not stop the process: its further output is discarded.
            Ok(n) => sink.write(&buffer[..n], |bytes| open.moved(bytes)).await,
        }
    }
    // In this order: the sink is closed before the output counts as ended.
    drop(sink);
    drop(open);
}

/// FIFO → guest, until end of file, which is passed on as a half-close.
async fn copy_in(mut reader: pipe::Receiver, mut connection: UnixStream) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(n) => {
                if connection.write_all(&buffer[..n]).await.is_err() {
                    // The process has closed its input; closing the FIFO shows that to the client.
                    return;
                }
            }
        }
    }
    drop(reader);
    if connection.shutdown().await.is_ok() {
        // An immediate close could discard bytes in flight; the guest closes when it has read them all.
        let _ = connection.read(&mut buffer[..1]).await;
    }
}

#[cfg(test)]
mod tests;
