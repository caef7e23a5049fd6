//! Clients that ask for tokens over kept connections, as fast as they are answered or at a given rate.

use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Threads, and the connections of each: the requests of one thread are on their way at the same time.
const THREADS: usize = 2;
const CONNECTIONS: usize = 64;
/// Longest answer in bytes.
const ANSWER_MAX: usize = 1 << 16;
const PATIENCE: Duration = Duration::from_secs(30);

/// How fast the clients ask.
#[derive(Clone, Copy)]
pub enum Pace {
    /// The next request of a connection follows the answer.
    Most,
    /// This many a second in all, whether earlier ones are answered or not: waiting for a connection counts as waiting.
    Rate(f64),
}

/// A service, and requests for it, each a whole HTTP request.
pub struct Load<'a> {
    /// Its address.
    pub address: &'a str,
    /// The requests, asked in turn by all connections.
    pub requests: &'a [Vec<u8>],
}

/// What clients saw.
pub struct Seen {
    /// Answers a second.
    pub rate: f64,
    /// The median of the times to an answer, in seconds.
    pub median: f64,
    /// Their 99th percentile.
    pub p99: f64,
}

impl Load<'_> {
    /// Asks for `time`. Every answer must be a token.
    pub fn run(&self, pace: Pace, time: Duration) -> Result<Seen> {
        let (began, results) = (
            Instant::now(),
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..THREADS)
                    .map(|thread| scope.spawn(move || self.thread(thread, pace, time)))
                    .collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap_or_else(|_| bail!("a client has panicked")))
                    .collect::<Result<Vec<_>>>()
            })?,
        );
        let mut times: Vec<f64> = results.into_iter().flatten().collect();
        let took = began.elapsed().as_secs_f64();
        times.sort_by(f64::total_cmp);
        let at = |part: f64| {
            times
                .get(((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1)))
                .copied()
        };
        Ok(Seen {
            rate: times.len() as f64 / took,
            median: at(0.5).context("nothing was answered")?,
            p99: at(0.99).context("nothing was answered")?,
        })
    }

    /// One client with its connections; the times of its answers.
    fn thread(&self, thread: usize, pace: Pace, time: Duration) -> Result<Vec<f64>> {
        let mut connections = (0..CONNECTIONS)
            .map(|_| Connection::open(self.address))
            .collect::<Result<Vec<_>>>()?;
        let began = Instant::now();
        let each = match pace {
            Pace::Most => Duration::ZERO,
            Pace::Rate(rate) => Duration::from_secs_f64(THREADS as f64 / rate),
        };
        let (mut times, mut asked) = (Vec::new(), 0_u32);
        while began.elapsed() < time {
            // At a rate, as many as are due by now, at least one; without one, all connections at once.
            let now = began.elapsed();
            let due = match pace {
                Pace::Most => CONNECTIONS,
                Pace::Rate(_) => {
                    let next = each * asked;
                    if next > now {
                        std::thread::sleep(next - now);
                    }
                    let behind = began.elapsed().as_secs_f64() / each.as_secs_f64() - f64::from(asked);
                    (behind as usize).clamp(1, CONNECTIONS)
                }
            };
            let mut since = Vec::with_capacity(due);
            for connection in &mut connections[..due] {
                since.push(match pace {
                    Pace::Most => Instant::now(),
                    Pace::Rate(_) => began + each * asked,
                });
                connection.ask(&self.requests[(thread + asked as usize * THREADS) % self.requests.len()])?;
                asked += 1;
            }
            for (connection, since) in connections[..due].iter_mut().zip(since) {
                connection.answer()?;
                times.push(since.elapsed().as_secs_f64());
            }
        }
        Ok(times)
    }
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).context("cannot connect to the token service")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            buffer: vec![0; ANSWER_MAX],
        })
    }

    fn ask(&mut self, request: &[u8]) -> Result<()> {
        self.stream.write_all(request).context("the token service has closed a connection")
    }

    /// Reads one answer with a length, which must be a token.
    fn answer(&mut self) -> Result<()> {
        let mut length = 0;
        loop {
            let read = self
                .stream
                .read(&mut self.buffer[length..])
                .context("no answer of the token service")?;
            length += read;
            let text = &self.buffer[..length];
            match whole(text) {
                Some(true) => return Ok(()),
                None if read > 0 && length < ANSWER_MAX => {}
                _ => bail!("not a token: {}", String::from_utf8_lossy(&text[..length.min(600)]).escape_debug()),
            }
        }
    }
}

/// Whether an answer is whole, and if so whether it is a token.
fn whole(text: &[u8]) -> Option<bool> {
    let end = text.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&text[..end]).ok()?;
    let length: usize = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    })?;
    let body = &text[end + 4..];
    (body.len() >= length).then(|| head.starts_with("HTTP/1.1 200") && body.starts_with(b"{"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_by_its_length() {
        assert_eq!(whole(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{"), None);
        assert_eq!(whole(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"), Some(true));
        assert_eq!(whole(b"HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\n{}"), Some(false));
        assert_eq!(whole(b"HTTP/1.1 200 OK\r\n"), None);
    }
}
