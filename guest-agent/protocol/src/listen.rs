//! The guest's end of connections: AF_VSOCK listeners that accept connections from the host only.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};

use crate::limits::CONTROL_CONNECTIONS;

/// Pause after a failed accept (too many open files).
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections from the host on one port.
pub struct HostListener(VsockListener);

/// Listens on `port` for the host (CID 2).
///
/// # Errors
/// The port is in use, or the kernel has no vsock.
pub fn listen(port: u32) -> io::Result<HostListener> {
    VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port)).map(HostListener)
}

impl HostListener {
    /// The next connection from the host; connections from another CID (loopback, a nested guest) are closed unread.
    ///
    /// # Errors
    /// accept failed. The caller may call again: a single failed connection does not affect the next.
    pub async fn accept(&self) -> io::Result<VsockStream> {
        loop {
            let (stream, peer) = self.0.accept().await?;
            if peer.cid() == VMADDR_CID_HOST {
                return Ok(stream);
            }
        }
    }

    /// The connections as ttrpc takes them, at most [`CONTROL_CONNECTIONS`] at once: more are closed unread.
    pub fn into_ttrpc(self) -> ttrpc::r#async::transport::Listener {
        let room = Arc::new(Semaphore::new(CONTROL_CONNECTIONS));
        ttrpc::r#async::transport::Listener::new(stream::unfold((self, room), |(listener, room)| async {
            let connection = listener.accept_into(&room).await;
            if connection.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
            Some((connection, (listener, room)))
        }))
    }

    async fn accept_into(&self, room: &Arc<Semaphore>) -> io::Result<Counted<VsockStream>> {
        loop {
            let io = self.accept().await?;
            if let Ok(place) = room.clone().try_acquire_owned() {
                return Ok(Counted::new(io, place));
            }
        }
    }
}

/// A connection that counts against the limit while it exists.
///
/// Nothing is read while an answer waits to be written: a host that sends requests and never reads the answers would fill the guest's
/// memory with them.
struct Counted<S> {
    io: S,
    _place: OwnedSemaphorePermit,
    /// An answer waits to be written.
    is_writing: bool,
    /// The task that waits meanwhile to read.
    reader: Option<Waker>,
}

impl<S> Counted<S> {
    fn new(io: S, place: OwnedSemaphorePermit) -> Self {
        Self {
            io,
            _place: place,
            is_writing: false,
            reader: None,
        }
    }

    /// Takes note of the result of a write.
    fn written<T>(&mut self, result: Poll<T>) -> Poll<T> {
        self.is_writing = result.is_pending();
        if !self.is_writing
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_writing {
            self.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(context, bytes);
        self.written(result)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(context, parts);
        self.written(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};

    #[tokio::test]
    async fn a_host_that_reads_no_answers_is_not_read() {
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let (mut host, guest) = duplex(64);
        let (mut requests, mut answers) = split(Counted::new(guest, place));
        let answering = tokio::spawn(async move { answers.write_all(&[7; 128]).await });
        tokio::task::yield_now().await;
        host.write_all(&[1; 32]).await.unwrap();
        let reading = tokio::spawn(async move { requests.read_exact(&mut [0; 32]).await.map(drop) });
        tokio::task::yield_now().await;
        assert!(!reading.is_finished(), "half of the answer is not written yet");
        host.read_exact(&mut [0; 128]).await.unwrap();
        answering.await.unwrap().unwrap();
        reading.await.unwrap().unwrap();
    }
}
