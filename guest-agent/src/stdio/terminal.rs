//! The master side of a process's terminal.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd};

use crate::{decode::TerminalSize, sys};

/// A terminal's master; it lives as long as a copy task or its process's table entry.
pub struct Terminal {
    master: AsyncFd<OwnedFd>,
}

impl Terminal {
    /// From the descriptor that the launcher sent.
    pub fn new(master: OwnedFd) -> io::Result<Self> {
        let flags = OFlag::from_bits_truncate(fcntl(&master, FcntlArg::F_GETFL)?);
        fcntl(&master, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self {
            master: sys::register(master)?,
        })
    }

    /// Sets the size, unless the caller does not know it.
    pub fn resize(&self, size: TerminalSize) -> io::Result<()> {
        if size == TerminalSize::default() {
            return Ok(());
        }
        sys::resize_terminal(self.master.get_ref().as_fd(), size.columns, size.rows)
    }
}

/// Reads what the processes write to the terminal.
pub struct Reader(pub Arc<Terminal>);

impl AsyncRead for Reader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.master.poll_read_ready(cx))?;
            match ready.try_io(|fd| Ok(unistd::read(fd.get_ref(), buf.initialize_unfilled())?)) {
                Ok(Ok(count)) => {
                    buf.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // The last process has closed the terminal: EIO means end of file here.
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::EIO as i32) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

/// Writes input to the terminal.
pub struct Writer(pub Arc<Terminal>);

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.master.poll_write_ready(cx))?;
            match ready.try_io(|fd| Ok(unistd::write(fd.get_ref(), bytes)?)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
