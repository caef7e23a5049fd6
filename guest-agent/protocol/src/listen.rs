//! The guest's end of connections: AF_VSOCK listeners that accept connections from the host only.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
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
                return Ok(Counted { io, _place: place });
            }
        }
    }
}

/// A connection that counts against the limit while it exists.
struct Counted<S> {
    io: S,
    _place: OwnedSemaphorePermit,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, parts)
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
