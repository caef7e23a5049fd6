//! An HTTP server that answers as a test tells it, with or without TLS.

use super::authority::Identity;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// By names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// An answer.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Body,
}

/// What follows the head of an answer.
pub enum Body {
    Whole(Vec<u8>),
    /// Bytes, and a length that is not theirs.
    Cut(Vec<u8>, u64),
    /// Bytes in chunks, properly ended.
    Chunked(Vec<u8>),
    /// The same without the end.
    Unended(Vec<u8>),
    /// No answer at all: the connection is closed.
    Nothing,
    /// Letters, of which there are so many.
    Letters(u64),
    /// Letters in chunks without an end.
    Endless,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self::of(status, Body::Whole(body.into()))
    }

    pub fn of(status: u16, body: Body) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body,
        }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

type Handler = dyn Fn(&Request) -> Answer + Send + Sync;

/// A running server. It ends with the test's process.
#[derive(Clone)]
pub struct Server {
    pub port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn start(tls: Option<&Identity>, handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            requests: Arc::default(),
        };
        let config = tls.map(|identity| Arc::new(config(identity)));
        let handler: Arc<Handler> = Arc::new(handler);
        let this = server.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let (this, config, handler) = (this.clone(), config.clone(), handler.clone());
                // A client that has gone is no failure of the server.
                std::thread::spawn(move || connection.and_then(|connection| this.accept(connection, config, &*handler)));
            }
        });
        server
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    fn accept(&self, connection: TcpStream, config: Option<Arc<ServerConfig>>, handler: &Handler) -> io::Result<()> {
        const HANDSHAKE: u8 = 0x16;
        let mut first = [0];
        connection.peek(&mut first)?;
        match config {
            Some(config) => {
                let tls = ServerConnection::new(config).map_err(io::Error::other)?;
                self.serve(StreamOwned::new(tls, connection), handler)
            }
            // As servers answer that do not speak TLS.
            None if first[0] == HANDSHAKE => (&connection).write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n"),
            None => self.serve(connection, handler),
        }
    }

    fn serve(&self, mut connection: impl Read + Write, handler: &Handler) -> io::Result<()> {
        let request = read(&mut connection)?;
        let answer = handler(&request);
        self.requests.lock().unwrap().push(request);
        if matches!(answer.body, Body::Nothing) {
            return Ok(());
        }
        let mut head = format!("HTTP/1.1 {} Status\r\nConnection: close\r\n", answer.status);
        for (name, value) in &answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &match &answer.body {
            Body::Whole(bytes) => format!("Content-Length: {}\r\n\r\n", bytes.len()),
            Body::Cut(_, length) | Body::Letters(length) => format!("Content-Length: {length}\r\n\r\n"),
            Body::Chunked(_) | Body::Unended(_) | Body::Nothing | Body::Endless => "Transfer-Encoding: chunked\r\n\r\n".to_owned(),
        };
        connection.write_all(head.as_bytes())?;
        const LETTERS: [u8; 4096] = [b'a'; 4096];
        match answer.body {
            Body::Whole(bytes) | Body::Cut(bytes, _) => connection.write_all(&bytes)?,
            Body::Chunked(bytes) => {
                chunk(&mut connection, &bytes)?;
                connection.write_all(b"0\r\n\r\n")?;
            }
            Body::Unended(bytes) => chunk(&mut connection, &bytes)?,
            Body::Nothing => {}
            Body::Letters(count) => {
                for _ in 0..count.div_ceil(LETTERS.len() as u64) {
                    connection.write_all(&LETTERS)?;
                }
            }
            Body::Endless => loop {
                chunk(&mut connection, &LETTERS)?;
            },
        }
        connection.flush()
    }
}

fn chunk(connection: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    write!(connection, "{:x}\r\n", bytes.len())?;
    connection.write_all(bytes)?;
    connection.write_all(b"\r\n")
}

fn config(identity: &Identity) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    builder.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap()
}

fn read(connection: &mut impl Read) -> io::Result<Request> {
    let mut reader = BufReader::new(connection);
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        Ok::<_, io::Error>(line.trim_end().to_owned())
    };
    let first = line()?;
    let mut headers = BTreeMap::new();
    loop {
        let line = line()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut words = first.split(' ').map(str::to_owned);
    Ok(Request {
        method: words.next().unwrap_or_default(),
        target: words.next().unwrap_or_default(),
        headers,
        body: String::from_utf8(body).unwrap(),
    })
}
