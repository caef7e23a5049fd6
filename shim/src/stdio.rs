//! A process's streams: containerd's FIFOs on one side, one vsock connection each on the other.
//!
//! - Outputs are copied until the guest ends them; only then does the FIFO close, which tells the client that
//!   nothing more will come. The FIFO is opened for both directions: a client that goes away and comes back (a
//!   containerd restart) must not end the container with EPIPE.
//! - Input ends when the last client has closed it *and* `CloseIO` was called: until then the shim holds a write
//!   end of its own, so that one client may detach and another attach.

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
/// Outputs of an ended process are waited for no longer than this, however they move: a line a second would never end.
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
    /// containerd namespace, which a logging program is told.
    pub namespace: String,
    /// Id of the container or exec, which a logging program is told.
    pub id: String,
}

/// Why a stream cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StdioError {
    /// A FIFO or file cannot be opened, or a logging program not be started.
    #[error("cannot open {stream} at {path}")]
    Open {
        /// Which stream.
        stream: &'static str,
        /// Where it leads.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// A way of logging that is not known.
    #[error("{stream} leads to {path}, which is no FIFO's path, file:// nor, for both outputs, binary://")]
    Scheme {
        /// Which stream.
        stream: &'static str,
        /// Where it leads.
        path: String,
    },
    /// No connection into the guest.
    #[error("cannot connect {stream} to the guest")]
    Connect {
        /// Which stream.
        stream: &'static str,
        /// Why not.
        source: ConnectError,
    },
    /// The host has no randomness.
    #[error("cannot make a stream's token")]
    Token(#[source] io::Error),
}

/// Most bytes of an ended process's output that are on their way between guest and reader: buffers of pipes, sockets and the
/// VMM, several times over.
const UNDER_WAY_BYTES: u64 = 8 << 20;

/// The state of a process's outputs together.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    /// Outputs that the guest has not ended yet; a logging program counts until it has ended.
    open: usize,
    /// Bytes that readers took, or that were discarded.
    moved: u64,
}

/// The running streams of one process. Dropping this cuts them.
pub struct Streams {
    /// Held until `CloseIO`: while it lives, the FIFO has a writer.
    stdin_writer: Mutex<Option<File>>,
    copies: Vec<JoinHandle<()>>,
    stdin: Option<JoinHandle<()>>,
    /// What is still to come of the outputs, and what has come.
    outputs: watch::Receiver<Flow>,
    /// The program that reads the outputs; dropped after them.
    _logger: Option<Logger>,
}

impl Streams {
    /// Opens what `paths` names and starts to copy; the second value names the streams to the agent.
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

    /// `CloseIO`: from now on the client's end of file is the process's, after all bytes before it.
    pub fn close_stdin(&self) {
        if let Ok(mut writer) = self.stdin_writer.lock() {
            writer.take();
        }
    }

    /// Waits until every output has ended, at most `limit`; false when that was too short.
    pub async fn drained(&self, limit: Duration) -> bool {
        let mut outputs = self.outputs.clone();
        // All senders gone means that all copies have ended.
        tokio::time::timeout(limit, outputs.wait_for(|flow| flow.open == 0)).await.is_ok()
    }

    /// Waits until every output has ended; false when nothing of them has moved for `patience`, when more has come than
    /// can have been on its way, or after [`DRAIN_AT_MOST`]: then somebody who outlived the process still writes.
    ///
    /// A reader that takes what was on its way within that time gets every byte.
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

    /// Stops reading input: the process has ended.
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

fn random_token() -> io::Result<StreamToken> {
    let mut bytes = [0; StreamToken::BYTES];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(StreamToken(bytes))
}

fn open_error(stream: &'static str, path: &str) -> impl FnOnce(io::Error) -> StdioError + use<> {
    let path = path.to_owned();
    move |source| StdioError::Open { stream, path, source }
}

/// The FIFO's write end that we hold, and its read end. A FIFO opened for both never waits for the other side
/// (fifo(7)), and with it in place the reader cannot see an end of file before the first client has come.
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
            // A broken sink is no reason to stop the process: what it writes is discarded from here on.
            Ok(n) => sink.write(&buffer[..n], |bytes| open.moved(bytes)).await,
        }
    }
    // In this order: whoever sees that nothing is open any more finds the sink closed.
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
                    // The process has closed its input: the client shall see that.
                    return;
                }
            }
        }
    }
    drop(reader);
    if connection.shutdown().await.is_ok() {
        // Closing at once could overtake bytes on their way; the guest closes when it has read them all.
        let _ = connection.read(&mut buffer[..1]).await;
    }
}

#[cfg(test)]
mod tests;
