//! The host's end of a connection: from the VMM's vsock socket into the guest.

use std::{io, path::Path, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::{sleep, timeout},
};
use ttrpc::r#async::{Client, transport::Socket};

use crate::{
    AgentClient, CONTROL_PORT, STREAM_PORT, StreamToken,
    limits::{CONNECT_ANSWER_BYTES, CONNECT_DEADLINE},
};

/// How often a refused stream is tried, and the pause between two attempts.
const REFUSALS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(100);

/// Why a connection into the guest failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The VMM's socket is gone or refuses connections: the VM is not running.
    #[error("cannot reach the VM's vsock socket")]
    Socket(#[source] io::Error),
    /// The VMM closed the connection without `OK`: nothing listens on the port (yet).
    #[error("nothing in the guest listens on port {0}")]
    Refused(u32),
    /// The VMM answered something other than `OK <port>`.
    #[error("the VMM answered a connect to port {0} with an unknown line")]
    Answer(u32),
    /// No answer within [`CONNECT_DEADLINE`].
    #[error("no answer to a connect to port {0} within {CONNECT_DEADLINE:?}")]
    Deadline(u32),
}

/// Connects to `port` in the guest through the VMM's Unix socket: sends `CONNECT port\n`, receives `OK hostport\n`.
///
/// # Errors
/// See [`ConnectError`]; [`ConnectError::Refused`] is worth a retry while the guest boots.
pub async fn connect(vsock_socket: &Path, port: u32) -> Result<UnixStream, ConnectError> {
    timeout(CONNECT_DEADLINE, handshake(vsock_socket, port))
        .await
        .map_err(|_| ConnectError::Deadline(port))?
}

async fn handshake(vsock_socket: &Path, port: u32) -> Result<UnixStream, ConnectError> {
    let mut stream = UnixStream::connect(vsock_socket).await.map_err(ConnectError::Socket)?;
    // A VMM that refuses may close before it has read the line, which is the same as closing after it.
    let refused = |e: io::Error| match e.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ConnectError::Refused(port),
        _ => ConnectError::Socket(e),
    };
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await.map_err(refused)?;
    // Byte by byte: what follows the line belongs to the stream.
    let mut line = Vec::with_capacity(CONNECT_ANSWER_BYTES);
    loop {
        let mut byte = [0];
        if stream.read(&mut byte).await.map_err(refused)? == 0 {
            return Err(ConnectError::Refused(port));
        }
        match byte[0] {
            b'\n' => break,
            _ if line.len() == CONNECT_ANSWER_BYTES => return Err(ConnectError::Answer(port)),
            other => line.push(other),
        }
    }
    let host_port = line
        .strip_prefix(b"OK ")
        .and_then(|n| str::from_utf8(n).ok())
        .and_then(|n| n.parse::<u32>().ok());
    host_port.map(|_| stream).ok_or(ConnectError::Answer(port))
}

/// A client of the agent behind `vsock_socket`; its calls end with an error when the VM does.
///
/// # Errors
/// As [`connect`].
pub async fn agent_client(vsock_socket: &Path) -> Result<AgentClient, ConnectError> {
    let stream = connect(vsock_socket, CONTROL_PORT).await?;
    Ok(AgentClient::new(Client::new(Socket::new(stream))))
}

/// A stdio stream that a request can name by `token`; half-close ends one direction. A refused connection is retried a few times:
/// the guest's kernel refuses connections while its accept queue is full.
///
/// # Errors
/// As [`connect`].
pub async fn open_stream(vsock_socket: &Path, token: StreamToken) -> Result<UnixStream, ConnectError> {
    let mut refusals = 0;
    let mut stream = loop {
        match connect(vsock_socket, STREAM_PORT).await {
            Err(ConnectError::Refused(_)) if refusals < REFUSALS => refusals += 1,
            outcome => break outcome?,
        }
        sleep(PAUSE).await;
    };
    stream.write_all(&token.0).await.map_err(ConnectError::Socket)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    /// Acts as a VMM that answers `answer` and then sends "after"; returns the result of `connect`.
    async fn against(answer: &'static [u8]) -> (Result<UnixStream, ConnectError>, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vsock.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let vmm = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; "CONNECT 1025\n".len()];
            stream.read_exact(&mut request).await.unwrap();
            let _ = stream.write_all(answer).await;
            request
        });
        let result = connect(&path, 1025).await;
        (result, vmm.await.unwrap())
    }

    #[tokio::test]
    async fn bytes_after_the_answer_belong_to_the_stream() {
        let (stream, request) = against(b"OK 1073741824\nafter").await;
        assert_eq!(request, b"CONNECT 1025\n");
        let mut rest = String::new();
        stream.unwrap().read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "after");
    }

    #[tokio::test]
    async fn other_answers_are_errors() {
        assert!(matches!(against(b"").await.0, Err(ConnectError::Refused(1025))));
        assert!(matches!(against(b"OK 1").await.0, Err(ConnectError::Refused(1025))));
        assert!(matches!(against(b"NO 1\n").await.0, Err(ConnectError::Answer(1025))));
        assert!(matches!(against(b"OK x\n").await.0, Err(ConnectError::Answer(1025))));
        assert!(matches!(against(&[b'O'; 200]).await.0, Err(ConnectError::Answer(1025))));
    }

    #[tokio::test]
    async fn no_vm_is_a_socket_error() {
        assert!(matches!(
            connect(Path::new("/nonexistent/vsock.sock"), 1).await,
            Err(ConnectError::Socket(_))
        ));
    }
}
