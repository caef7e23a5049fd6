//! Stdio connections from the host, parked under their tokens until a request names them, or vice versa.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use agent_protocol::{
    StreamToken,
    limits::{OPEN_STREAMS, PARKED_DEADLINE, PARKED_STREAMS, STREAM_DEADLINE, TOKEN_DEADLINE},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{sleep, timeout},
};

/// Pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a stream that a request names is not available.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// Nothing with this token connected in time.
    #[error("a stream that the request names was not connected within {STREAM_DEADLINE:?}")]
    Absent,
    /// Two requests, or one request twice, named the same token.
    #[error("a stream is named twice")]
    Twice,
}

/// A connection that counts against the limit while it exists.
pub struct Stream<S> {
    /// The connection.
    pub io: S,
    _open: OwnedSemaphorePermit,
}

/// The side that arrived first.
enum Waiting<S> {
    Parked { stream: Stream<S>, generation: u64 },
    Claimed(oneshot::Sender<Stream<S>>),
}

struct Table<S> {
    waiting: HashMap<StreamToken, Waiting<S>>,
    parked: usize,
    generation: u64,
}

/// Pairs connections with requests.
pub struct Streams<S> {
    table: Mutex<Table<S>>,
    open: Arc<Semaphore>,
}

impl<S> Default for Streams<S> {
    fn default() -> Self {
        let table = Table {
            waiting: HashMap::new(),
            parked: 0,
            generation: 0,
        };
        Self {
            table: Mutex::new(table),
            open: Arc::new(Semaphore::new(OPEN_STREAMS)),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Streams<S> {
    /// Reads the token of a new connection and parks it, or passes it to the request that waits for it.
    ///
    /// A connection beyond a limit, without a whole token in time, or with a token in use, is closed.
    pub async fn arrive(self: &Arc<Self>, mut io: S) {
        let Ok(open) = self.open.clone().try_acquire_owned() else { return };
        let mut token = [0; StreamToken::BYTES];
        match timeout(TOKEN_DEADLINE, io.read_exact(&mut token)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
        let token = StreamToken(token);
        if let Some(generation) = self.park(token, Stream { io, _open: open }) {
            let streams = self.clone();
            tokio::spawn(async move {
                sleep(PARKED_DEADLINE).await;
                streams.expire(token, generation);
            });
        }
    }

    /// Its number, if the stream was parked.
    fn park(&self, token: StreamToken, stream: Stream<S>) -> Option<u64> {
        let mut table = self.table();
        let table = &mut *table;
        table.generation += 1;
        match table.waiting.entry(token) {
            Entry::Occupied(taken) => {
                if let Waiting::Claimed(_) = taken.get()
                    && let Waiting::Claimed(request) = taken.remove()
                {
                    let _ = request.send(stream);
                }
                None
            }
            Entry::Vacant(_) if table.parked == PARKED_STREAMS => None,
            Entry::Vacant(free) => {
                free.insert(Waiting::Parked {
                    stream,
                    generation: table.generation,
                });
                table.parked += 1;
                Some(table.generation)
            }
        }
    }

    fn expire(&self, token: StreamToken, parked: u64) {
        let mut table = self.table();
        if matches!(table.waiting.get(&token), Some(Waiting::Parked { generation, .. }) if *generation == parked) {
            table.waiting.remove(&token);
            table.parked -= 1;
        }
    }

    /// The stream with `token`; waits for it if it has not arrived yet.
    pub async fn claim(&self, token: StreamToken) -> Result<Stream<S>, ClaimError> {
        self.claim_within(token, STREAM_DEADLINE).await
    }

    async fn claim_within(&self, token: StreamToken, deadline: Duration) -> Result<Stream<S>, ClaimError> {
        let arrival = {
            let mut table = self.table();
            match table.waiting.remove(&token) {
                Some(Waiting::Parked { stream, .. }) => {
                    table.parked -= 1;
                    return Ok(stream);
                }
                Some(Waiting::Claimed(other)) if !other.is_closed() => {
                    table.waiting.insert(token, Waiting::Claimed(other));
                    return Err(ClaimError::Twice);
                }
                // The request that waited for it has given up.
                Some(Waiting::Claimed(_)) | None => {
                    let (sender, arrival) = oneshot::channel();
                    table.waiting.insert(token, Waiting::Claimed(sender));
                    arrival
                }
            }
        };
        let _forgotten = Forget { streams: self, token };
        match timeout(deadline, arrival).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(_)) | Err(_) => Err(ClaimError::Absent),
        }
    }

    fn forget_claim(&self, token: StreamToken) {
        let mut table = self.table();
        if matches!(table.waiting.get(&token), Some(Waiting::Claimed(request)) if request.is_closed()) {
            table.waiting.remove(&token);
        }
    }
}

impl<S> Streams<S> {
    fn table(&self) -> MutexGuard<'_, Table<S>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a claim from the table however the wait ends, including a dropped request.
struct Forget<'a, S: AsyncRead + AsyncWrite + Unpin + Send + 'static> {
    streams: &'a Streams<S>,
    token: StreamToken,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Drop for Forget<'_, S> {
    fn drop(&mut self) {
        self.streams.forget_claim(self.token);
    }
}

/// Accepts the host's stream connections until the guest powers off.
pub async fn serve(streams: Arc<Streams<tokio_vsock::VsockStream>>, listener: agent_protocol::HostListener) {
    loop {
        match listener.accept().await {
            Ok(connection) => {
                let streams = streams.clone();
                tokio::spawn(async move { streams.arrive(connection).await });
            }
            // For example, out of descriptors, which is temporary.
            Err(_) => sleep(PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests;
