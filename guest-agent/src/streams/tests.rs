//! Connections and requests are paired in either order; invalid ones are closed.

use super::*;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

type Table = Arc<Streams<DuplexStream>>;

/// Connects as the host does and writes `bytes`.
async fn connect(streams: &Table, bytes: &[u8]) -> DuplexStream {
    let (mut host, guest) = duplex(1024);
    host.write_all(bytes).await.unwrap();
    let streams = streams.clone();
    tokio::spawn(async move { streams.arrive(guest).await });
    tokio::task::yield_now().await;
    host
}

async fn is_closed(mut host: DuplexStream) -> bool {
    matches!(timeout(Duration::from_secs(1), host.read(&mut [0])).await, Ok(Ok(0)))
}

fn token(n: u8) -> StreamToken {
    StreamToken([n; 16])
}

#[tokio::test]
async fn connection_first() {
    let streams = Table::default();
    let mut bytes = token(1).0.to_vec();
    bytes.extend_from_slice(b"after the token");
    let _host = connect(&streams, &bytes).await;
    let mut stream = streams.claim(token(1)).await.unwrap();
    let mut rest = [0; 15];
    stream.io.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"after the token");
    assert_eq!(streams.table().parked, 0);
}

#[tokio::test]
async fn request_first() {
    let streams = Table::default();
    let request = tokio::spawn({
        let streams = streams.clone();
        async move { streams.claim(token(2)).await.map(drop) }
    });
    tokio::task::yield_now().await;
    let host = connect(&streams, &token(2).0).await;
    request.await.unwrap().unwrap();
    assert!(is_closed(host).await, "the request dropped it");
    assert!(streams.table().waiting.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_claim_without_connection_ends() {
    let streams = Table::default();
    assert_eq!(streams.claim(token(3)).await.err(), Some(ClaimError::Absent));
    assert!(streams.table().waiting.is_empty());
}

#[tokio::test]
async fn a_dropped_request_leaves_nothing_behind() {
    let streams = Table::default();
    let request = tokio::spawn({
        let streams = streams.clone();
        async move { streams.claim(token(4)).await.map(drop) }
    });
    tokio::task::yield_now().await;
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    let _host = connect(&streams, &token(4).0).await;
    assert!(streams.claim(token(4)).await.is_ok());
}

#[tokio::test]
async fn one_token_serves_one_connection_and_one_request() {
    let streams = Table::default();
    let _first = connect(&streams, &token(5).0).await;
    let second = connect(&streams, &token(5).0).await;
    assert!(is_closed(second).await);
    let waiting = tokio::spawn({
        let streams = streams.clone();
        async move { streams.claim(token(6)).await.map(drop) }
    });
    tokio::task::yield_now().await;
    assert_eq!(streams.claim(token(6)).await.err(), Some(ClaimError::Twice));
    let _third = connect(&streams, &token(6).0).await;
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_number_of_parked_streams_is_limited() {
    let streams = Table::default();
    let mut hosts = Vec::new();
    for n in 0..PARKED_STREAMS {
        hosts.push(connect(&streams, &token(n as u8).0).await);
    }
    assert!(is_closed(connect(&streams, &token(255).0).await).await);
    streams.claim(token(0)).await.unwrap();
    let _fits_now = connect(&streams, &token(255).0).await;
    assert!(streams.claim(token(255)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn slow_tokens_and_forgotten_streams_are_closed() {
    let streams = Table::default();
    let half = connect(&streams, &[1; 8]).await;
    let parked = connect(&streams, &token(7).0).await;
    sleep(TOKEN_DEADLINE + Duration::from_secs(1)).await;
    assert!(is_closed(half).await);
    assert_eq!(streams.table().parked, 1);
    sleep(PARKED_DEADLINE).await;
    assert!(is_closed(parked).await);
    assert_eq!(streams.open.available_permits(), OPEN_STREAMS);
}
