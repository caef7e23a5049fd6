//! Streams of exec, attach and forwarded ports by SPDY/3.1, which is what `kubectl exec`, `attach`, `cp` and `port-forward` become between
//! the kubelet and containerd.
//!
//! WebSockets, which the same server takes, have no end of input without the end of the connection. The frames are those of the
//! SPDY 3.1 draft, the streams those of Kubernetes' `v4.channel.k8s.io`. Containerd's server sends no pings and has no windows.

use anyhow::{Context, Result, bail, ensure};
use flate2::{Compress, Compression, FlushCompress};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// Longest silence of the server: a stream may wait for a program that works.
const SILENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);
/// Most bytes of input in one frame, as Go's `io.Copy` sends them.
const PIECE: usize = 32 * 1024;
/// Most bytes of a compressed block of a stream's few headers.
const HEADERS: usize = 256;

const ERROR: u32 = 1;
const STDIN: u32 = 3;
const STDOUT: u32 = 5;
const STDERR: u32 = 7;
const RESIZE: u32 = 9;

const CONTROL: u8 = 0x80;
const VERSION: u8 = 3;
const SYN_STREAM: u8 = 1;
const RST_STREAM: u8 = 3;
const FIN: u8 = 1;

/// What the caller asks for besides standard output.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Standard input.
    pub input: bool,
    /// A terminal, in which both outputs are one.
    pub terminal: bool,
}

impl Wanted {
    /// `-i`
    pub const INPUT: Self = Self {
        input: true,
        terminal: false,
    };
    /// `-it`
    pub const TERMINAL: Self = Self {
        input: true,
        terminal: true,
    };
}

/// An exec or attach that runs.
pub struct Session {
    socket: TcpStream,
    compress: Compress,
    received: Arc<Mutex<Received>>,
}

/// What has arrived.
#[derive(Default)]
struct Received {
    bytes: BTreeMap<u32, Vec<u8>>,
    ended: Vec<u32>,
    /// Why nothing more arrives.
    closed: Option<String>,
}

/// The end of a session.
#[derive(Debug)]
pub struct Streamed {
    /// The exit code; that of an attach is 0.
    pub code: i32,
    /// Standard output, or the terminal's.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Streamed {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

impl Session {
    /// Connects to the URL that CRI gave for an exec or attach, and opens the streams.
    ///
    /// # Errors
    /// When the server does not answer or refuses the protocol.
    pub fn open(url: &str, wanted: Wanted) -> Result<Self> {
        let mut session = Self::connect(url, "v4.channel.k8s.io")?;
        // The server refuses an id below one that it has seen.
        session.stream(ERROR, &[("streamtype", "error")])?;
        if wanted.input {
            session.stream(STDIN, &[("streamtype", "stdin")])?;
        }
        session.stream(STDOUT, &[("streamtype", "stdout")])?;
        if wanted.terminal {
            session.stream(RESIZE, &[("streamtype", "resize")])?;
        } else {
            session.stream(STDERR, &[("streamtype", "stderr")])?;
        }
        Ok(session)
    }

    /// What the pod's `port` answers to `request` and then ends, by the URL that CRI gave for its ports, as `kubectl port-forward` asks.
    ///
    /// # Errors
    /// When the server does not answer, or reports an error of the connection.
    pub fn ask(url: &str, port: u16, request: &[u8], limit: Duration) -> Result<Vec<u8>> {
        let mut session = Self::connect(url, "portforward.k8s.io")?;
        let port = port.to_string();
        let headers = |kind: &'static str| [("streamtype", kind), ("port", port.as_str()), ("requestid", "0")];
        session.stream(ERROR, &headers("error"))?;
        session.data(ERROR, FIN, &[])?;
        session.stream(STDOUT, &headers("data"))?;
        session.data(STDOUT, 0, request)?;
        session.look(limit, |received| {
            let error = String::from_utf8_lossy(received.of(ERROR)).into_owned();
            ensure!(error.is_empty(), "port {port}: {error}");
            Ok(received.is_over(&[STDOUT, ERROR]).then(|| received.of(STDOUT).to_vec()))
        })
    }

    fn connect(url: &str, protocol: &str) -> Result<Self> {
        let rest = url.strip_prefix("http://").with_context(|| format!("{url} is not an HTTP URL"))?;
        let (address, path) = rest.split_once('/').with_context(|| format!("{url} has no path"))?;
        let mut socket = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        socket.set_read_timeout(Some(SILENCE)).context("cannot set a time limit")?;
        write!(
            socket,
            "POST /{path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
             X-Stream-Protocol-Version: {protocol}\r\n\r\n"
        )
        .context("cannot send the request")?;
        let mut reader = BufReader::new(socket.try_clone().context("cannot share the socket")?);
        let mut answer = String::new();
        while !answer.ends_with("\r\n\r\n") {
            ensure!(
                reader.read_line(&mut answer).context("cannot read the answer")? > 0,
                "it ended after {answer:?}"
            );
        }
        ensure!(answer.starts_with("HTTP/1.1 101 "), "no upgrade: {answer}");
        let received = Arc::new(Mutex::new(Received::default()));
        let shared = Arc::clone(&received);
        std::thread::spawn(move || {
            let why = match receive(&mut reader, &shared) {
                Ok(()) => "the server closed the connection".to_owned(),
                Err(error) => format!("{error:#}"),
            };
            if let Ok(mut received) = shared.lock() {
                received.closed = Some(why);
            }
        });
        Ok(Self {
            socket,
            compress: Compress::new(Compression::fast(), true),
            received,
        })
    }

    /// Opens a stream. Its headers are compressed in one run for the whole connection; Go takes them without SPDY's dictionary.
    fn stream(&mut self, id: u32, headers: &[(&str, &str)]) -> Result<()> {
        let mut plain = (headers.len() as u32).to_be_bytes().to_vec();
        for text in headers.iter().flat_map(|&(name, value)| [name, value]) {
            plain.extend((text.len() as u32).to_be_bytes());
            plain.extend(text.as_bytes());
        }
        let mut block = Vec::with_capacity(HEADERS);
        self.compress
            .compress_vec(&plain, &mut block, FlushCompress::Sync)
            .context("cannot compress headers")?;
        let mut frame = vec![CONTROL, VERSION, 0, SYN_STREAM, 0];
        frame.extend(length(10 + block.len()));
        frame.extend(id.to_be_bytes());
        // No stream that it belongs to, and no priority.
        frame.extend([0; 6]);
        frame.extend(block);
        self.socket.write_all(&frame).with_context(|| format!("cannot open stream {id}"))
    }

    fn data(&mut self, id: u32, flags: u8, bytes: &[u8]) -> Result<()> {
        let mut frame = id.to_be_bytes().to_vec();
        frame.push(flags);
        frame.extend(length(bytes.len()));
        frame.extend(bytes);
        self.socket
            .write_all(&frame)
            .with_context(|| format!("cannot write to stream {id}"))
    }

    /// Writes to standard input.
    ///
    /// # Errors
    /// When the server has closed the connection.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        bytes.chunks(PIECE).try_for_each(|piece| self.data(STDIN, 0, piece))
    }

    /// Ends standard input.
    ///
    /// # Errors
    /// When the server has closed the connection.
    pub fn end_input(&mut self) -> Result<()> {
        self.data(STDIN, FIN, &[])
    }

    /// Sets the size of the terminal.
    ///
    /// # Errors
    /// When the server has closed the connection.
    pub fn resize(&mut self, width: u16, height: u16) -> Result<()> {
        let size = format!("{{\"Width\":{width},\"Height\":{height}}}\n");
        self.data(RESIZE, 0, size.as_bytes())
    }

    /// Waits until standard output contains `text`.
    ///
    /// # Errors
    /// When it does not within `limit`, or the streams end before.
    pub fn until(&self, text: &str, limit: Duration) -> Result<()> {
        self.look(limit, |received| {
            let shown = String::from_utf8_lossy(received.of(STDOUT)).into_owned();
            if shown.contains(text) {
                return Ok(Some(()));
            }
            ensure!(!received.is_over(&[STDOUT]), "the output ended before {text:?}: {shown:?}");
            Ok(None)
        })
        .with_context(|| format!("waiting for {text:?}"))
    }

    /// Waits for the end of every stream.
    ///
    /// # Errors
    /// When they do not end within `limit`, or the server reports no exit code.
    pub fn end(self, wanted: Wanted, limit: Duration) -> Result<Streamed> {
        let outputs: &[u32] = if wanted.terminal {
            &[ERROR, STDOUT]
        } else {
            &[ERROR, STDOUT, STDERR]
        };
        let streamed = self.look(limit, |received| {
            if !received.is_over(outputs) {
                return Ok(None);
            }
            let code = code(received.of(ERROR)).with_context(|| format!("{:?}", received.closed))?;
            Ok(Some(Streamed {
                code,
                stdout: received.of(STDOUT).to_vec(),
                stderr: received.of(STDERR).to_vec(),
            }))
        });
        streamed.context("waiting for the end of the streams")
    }

    fn look<T>(&self, limit: Duration, mut look: impl FnMut(&Received) -> Result<Option<T>>) -> Result<T> {
        let end = Instant::now() + limit;
        loop {
            if let Ok(received) = self.received.lock() {
                if let Some(found) = look(&received)? {
                    return Ok(found);
                }
                if Instant::now() > end {
                    let shown = String::from_utf8_lossy(received.of(STDOUT)).into_owned();
                    let shown: String = shown.chars().take(500).collect();
                    bail!("not within {limit:?}; ended: {:?}, output: {shown:?}", received.ended);
                }
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Ends the thread that reads.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl Received {
    fn of(&self, id: u32) -> &[u8] {
        self.bytes.get(&id).map_or(&[], Vec::as_slice)
    }

    fn is_over(&self, ids: &[u32]) -> bool {
        self.closed.is_some() || ids.iter().all(|id| self.ended.contains(id))
    }
}

/// A frame's length in its 24 bits.
fn length(bytes: usize) -> [u8; 3] {
    let [_, a, b, c] = (bytes as u32).to_be_bytes();
    [a, b, c]
}

/// Reads frames until the connection ends.
fn receive(from: &mut impl Read, into: &Mutex<Received>) -> Result<()> {
    let mut head = [0; 8];
    loop {
        match from.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error).context("cannot read a frame"),
        }
        let mut content = vec![0; u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize];
        from.read_exact(&mut content).context("a frame is cut")?;
        let Ok(mut received) = into.lock() else { return Ok(()) };
        if head[0] & CONTROL == 0 {
            let id = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
            received.bytes.entry(id).or_default().extend(content);
            if head[4] & FIN != 0 {
                received.ended.push(id);
            }
        } else if let (RST_STREAM, Some(Ok(id))) = (head[3], content.get(..4).map(TryInto::try_into)) {
            received.ended.push(u32::from_be_bytes(id));
        }
        // Everything else, such as SYN_REPLY, says nothing of the streams' content.
    }
}

/// The exit code in Kubernetes' `Status`, which ends the error stream.
fn code(status: &[u8]) -> Result<i32> {
    let text = String::from_utf8_lossy(status).into_owned();
    let status: serde_json::Value = serde_json::from_slice(status).with_context(|| format!("{text:?} is not a status"))?;
    if status["status"] == "Success" {
        return Ok(0);
    }
    let causes = status["details"]["causes"].as_array();
    let code = causes.and_then(|causes| causes.iter().find(|cause| cause["reason"] == "ExitCode"));
    let code = code
        .and_then(|cause| cause["message"].as_str())
        .with_context(|| format!("no exit code in {text}"))?;
    code.parse().with_context(|| format!("{code} is no exit code"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_read_of_a_status() {
        assert_eq!(code(br#"{"metadata":{},"status":"Success"}"#).unwrap(), 0);
        let failed = br#"{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}"#;
        assert_eq!(code(failed).unwrap(), 7);
        assert!(
            code(br#"{"status":"Failure","message":"gone"}"#)
                .unwrap_err()
                .to_string()
                .contains("gone")
        );
        assert!(code(b"").is_err());
    }

    #[test]
    fn frames_are_sorted_by_stream() {
        let mut bytes = vec![CONTROL, VERSION, 0, 2, 0, 0, 0, 4, 0, 0, 0, 5];
        bytes.extend([0, 0, 0, 5, 0, 0, 0, 2, b'o', b'u']);
        bytes.extend([0, 0, 0, 7, FIN, 0, 0, 1, b'e']);
        bytes.extend([0, 0, 0, 5, FIN, 0, 0, 1, b't']);
        bytes.extend([CONTROL, VERSION, 0, RST_STREAM, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 5]);
        let received = Mutex::new(Received::default());
        receive(&mut &bytes[..], &received).unwrap();
        let received = received.into_inner().unwrap();
        assert_eq!((received.of(STDOUT), received.of(STDERR)), (&b"out"[..], &b"e"[..]));
        assert!(received.is_over(&[ERROR, STDOUT, STDERR]) && !received.is_over(&[STDIN]));
        assert!(receive(&mut &bytes[..bytes.len() - 1], &Mutex::default()).is_err());
    }
}
