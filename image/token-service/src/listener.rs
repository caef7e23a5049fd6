//! The listener: connections within limits of number and time, with or without TLS, and an end without cut answers.

mod tls;

pub use tls::TlsError;
pub(crate) use tls::TlsIdentity;

use crate::journal;
use crate::peer::Peer;
use crate::service::{Service, Shared};
use axum::Router;
use axum::body::Body;
use axum::response::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

/// How long a client may take for its TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client may take for a request's head, and a connection may be idle.
const HEAD: Duration = Duration::from_secs(30);
/// Most bytes that wait on a connection: a head has to fit.
const BUFFER_BYTES: usize = 64 << 10;
/// How long the last requests may take after the service was told to stop.
const FAREWELL: Duration = Duration::from_secs(30);
/// The pause after an accept that failed: descriptors may be used up.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until `stop` is ready, then waits until those that are busy have answered.
pub(crate) async fn run(
    listener: TcpListener,
    identity: Option<Arc<TlsIdentity>>,
    router: Router,
    service: Shared,
    stop: impl Future<Output = ()> + Send,
) {
    let acceptor = identity.map(tls::acceptor);
    let places = Arc::new(Semaphore::new(service.settings.connections));
    let (told, ends) = watch::channel(false);
    let mut stop = std::pin::pin!(stop);
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            _ = &mut stop => break,
            next = next => next,
        };
        match accepted {
            Ok((stream, address)) => {
                let connection = Connection {
                    router: router.clone(),
                    service: service.clone(),
                    address: address.ip(),
                    ends: ends.clone(),
                    _place: place,
                };
                tokio::spawn(connection.accept(stream, acceptor.clone()));
            }
            Err(error) => {
                journal::warn(&format!("cannot accept a connection: {error}"));
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    drop(ends);
    // Nobody listens any more when every connection has ended.
    let _ = told.send(true);
    if tokio::time::timeout(FAREWELL, told.closed()).await.is_err() {
        journal::warn("some requests were cut off");
    }
}

/// One connection.
struct Connection {
    router: Router,
    service: Shared,
    address: IpAddr,
    ends: watch::Receiver<bool>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Connection {
    async fn accept(self, stream: TcpStream, acceptor: Option<TlsAcceptor>) {
        // Answers are small and whole: nothing is gained by waiting for more.
        let _ = stream.set_nodelay(true);
        match acceptor {
            None => self.serve(stream).await,
            Some(acceptor) => {
                if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                    self.serve(stream).await;
                }
            }
        }
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send) {
        let Self {
            router,
            service,
            address,
            mut ends,
            ..
        } = self;
        let handler = hyper::service::service_fn(move |request| respond(router.clone(), service.clone(), address, request));
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(BUFFER_BYTES);
        let connection = builder.serve_connection(TokioIo::new(stream), handler);
        let mut connection = std::pin::pin!(connection);
        // A client that breaks off or speaks no HTTP has its answer, or none: nothing is left to do.
        tokio::select! {
            _ = &mut connection => return,
            _ = ends.wait_for(|told| *told) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

async fn respond(router: Router, service: Arc<Service>, address: IpAddr, request: Request<Incoming>) -> Result<Response, Infallible> {
    let began = Instant::now();
    let mut request = request.map(Body::new);
    let peer = Peer::new(address, &service.settings.proxies, request.headers());
    request.extensions_mut().insert(peer);
    let logged = service
        .settings
        .log_requests
        .then(|| format!("{} {} {}", peer, request.method(), request.uri().path()));
    let answer = router.oneshot(request).await?;
    service.metrics.answered(answer.status().as_u16(), began.elapsed());
    if let Some(line) = logged {
        journal::note(&format!("{line} {} {} us", answer.status().as_u16(), began.elapsed().as_micros()));
    }
    Ok(answer)
}
