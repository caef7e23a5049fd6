//! The guest's end: AF_VSOCK listeners that serve the host and nobody else.

use std::{io, time::Duration};

use futures_util::stream;
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};

/// After a failed accept (too many open files), before the next.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections of the host on one port.
pub struct HostListener(VsockListener);

/// Listens on `port` for the host (CID 2).
///
/// # Errors
/// The port is taken, or the kernel has no vsock.
pub fn listen(port: u32) -> io::Result<HostListener> {
    VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, port)).map(HostListener)
}

impl HostListener {
    /// The next connection of the host; connections with another CID (loopback, a nested guest) are closed unread.
    ///
    /// # Errors
    /// The listener itself broke; a single failed connection is only skipped by the caller's next call.
    pub async fn accept(&self) -> io::Result<VsockStream> {
        loop {
            let (stream, peer) = self.0.accept().await?;
            if peer.cid() == VMADDR_CID_HOST {
                return Ok(stream);
            }
        }
    }

    /// The connections as ttrpc takes them.
    pub fn into_ttrpc(self) -> ttrpc::r#async::transport::Listener {
        ttrpc::r#async::transport::Listener::new(stream::unfold(self, |listener| async {
            let connection = listener.accept().await;
            if connection.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
            Some((connection, listener))
        }))
    }
}
