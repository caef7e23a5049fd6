//! Copies between a process's descriptors and the host's streams, one task for each direction.
//!
//! Output ends when the last writer has closed and every byte has been sent to the host; then the stream is half-closed. When the
//! host ends the input, the process's stdin is closed. Nothing is buffered beyond one read, so a slow side slows
//! the other down.

mod terminal;

use std::{
    io::{self, PipeReader, PipeWriter},
    os::fd::OwnedFd,
    process::Stdio,
    sync::Arc,
};

use nix::unistd::{Gid, Uid, fchown};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::unix::pipe,
};

use crate::{
    reaper::{ExitWatch, ended},
    streams::Stream,
};
pub use terminal::Terminal;

/// Bytes copied at once: a pipe's capacity.
const CHUNK_BYTES: usize = 64 << 10;

/// The host's connections for one process; `None` is /dev/null.
pub struct HostStreams<S> {
    pub stdin: Option<Stream<S>>,
    pub stdout: Option<Stream<S>>,
    pub stderr: Option<Stream<S>>,
}

impl<S> HostStreams<S> {
    /// No connection.
    pub fn none() -> Self {
        Self {
            stdin: None,
            stdout: None,
            stderr: None,
        }
    }
}

/// Descriptors 0, 1 and 2 of the new process.
pub struct ProcessEnds {
    pub stdin: Stdio,
    pub stdout: Stdio,
    pub stderr: Stdio,
}

impl ProcessEnds {
    /// /dev/null for all three; a process with a terminal gets the terminal instead.
    pub fn null() -> Self {
        Self {
            stdin: Stdio::null(),
            stdout: Stdio::null(),
            stderr: Stdio::null(),
        }
    }
}

/// The agent's ends of a process's pipes, paired with the host's connections.
pub struct Pipes<S> {
    stdin: Option<(Stream<S>, PipeWriter)>,
    outputs: Vec<(PipeReader, Stream<S>)>,
}

/// Creates a pipe for each connection, owned by the process's user, who may reopen /dev/stdout.
pub fn pipes<S>(streams: HostStreams<S>, user: Uid, group: Gid) -> io::Result<(ProcessEnds, Pipes<S>)> {
    let mut ends = ProcessEnds::null();
    let mut pipes = Pipes {
        stdin: None,
        outputs: Vec::new(),
    };
    if let Some(stream) = streams.stdin {
        let (reader, writer) = io::pipe()?;
        fchown(&reader, Some(user), Some(group))?;
        ends.stdin = reader.into();
        pipes.stdin = Some((stream, writer));
    }
    for (stream, end) in [(streams.stdout, &mut ends.stdout), (streams.stderr, &mut ends.stderr)] {
        if let Some(stream) = stream {
            let (reader, writer) = io::pipe()?;
            fchown(&writer, Some(user), Some(group))?;
            *end = writer.into();
            pipes.outputs.push((reader, stream));
        }
    }
    Ok((ends, pipes))
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Pipes<S> {
    /// Starts copying; input also stops when the process has exited.
    pub fn start(self, exit: ExitWatch) -> io::Result<()> {
        for (reader, stream) in self.outputs {
            let reader = pipe::Receiver::from_owned_fd(OwnedFd::from(reader))?;
            tokio::spawn(output(reader, Some(stream)));
        }
        if let Some((stream, writer)) = self.stdin {
            let writer = pipe::Sender::from_owned_fd(OwnedFd::from(writer))?;
            tokio::spawn(async move {
                tokio::select! {
                    () = input(stream, writer) => {}
                    _ = ended(exit) => {}
                }
            });
        }
        Ok(())
    }
}

/// Starts copying for a process whose three streams are `terminal`.
pub fn start_terminal<S>(terminal: &Arc<Terminal>, streams: HostStreams<S>, exit: ExitWatch)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(output(terminal::Reader(terminal.clone()), streams.stdout));
    if let Some(stream) = streams.stdin {
        let writer = terminal::Writer(terminal.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = input(stream, writer) => {}
                _ = ended(exit) => {}
            }
        });
    }
}

/// From the process to the host. If the host has disconnected, output is discarded, so that the process does not block.
async fn output<S: AsyncWrite + Unpin>(mut from: impl AsyncRead + Unpin, to: Option<Stream<S>>) {
    let mut to = to;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match from.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                if let Some(stream) = &mut to
                    && stream.io.write_all(&chunk[..count]).await.is_err()
                {
                    to = None;
                }
            }
        }
    }
    if let Some(stream) = &mut to {
        let _ = stream.io.shutdown().await;
    }
}

/// From the host to the process. Dropping the writer at the end gives the process end of file.
async fn input<S: AsyncRead + Unpin>(mut from: Stream<S>, mut to: impl AsyncWrite + Unpin) {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match from.io.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                if to.write_all(&chunk[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
