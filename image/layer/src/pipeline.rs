//! A pipeline of three threads: one reads and decompresses, one computes the tar's digest, the caller builds the image.
//!
//! ```text
//!        input ──► decompress ──► digest ──► Stream ──► tar entries, ext4, leaves of the tree
//!                      ▲                        │
//!                      └──── empty buffers ─────┘    POOL_BUFFERS of them: a fast stage waits for a slow one
//! ```

use crate::compression::Decompressed;
use oci::Digest;
use sha2::{Digest as _, Sha256};
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// Large enough to make passing a buffer cheap, small enough to stay in the CPU cache.
const BUFFER_BYTES: usize = 256 << 10;
const POOL_BUFFERS: usize = 8;

/// What a stage passes to the next one; `E` is what it adds at the end of the tar.
enum Message<E> {
    /// Tar bytes; never empty.
    Data(Vec<u8>),
    /// The input cannot be read or decompressed any further.
    Failed(io::Error),
    /// The tar has ended.
    End(E),
}

/// The decompressed tar as it arrives.
pub(crate) struct Stream {
    messages: Receiver<Message<Digest>>,
    pool: Sender<Vec<u8>>,
    digest: Option<Digest>,
}

impl Stream {
    /// Returns a buffer for reuse and takes the next one, which has no bytes at the end of the tar.
    pub(crate) fn next(&mut self, used: Vec<u8>) -> io::Result<Vec<u8>> {
        if self.digest.is_some() {
            return Ok(Vec::new());
        }
        // The decompressor no longer receives buffers once the input has ended.
        let _ = self.pool.send(used);
        match self.messages.recv() {
            Ok(Message::Data(data)) => Ok(data),
            Ok(Message::Failed(error)) => Err(error),
            Ok(Message::End(digest)) => {
                self.digest = Some(digest);
                Ok(Vec::new())
            }
            Err(_) => Err(io::Error::other("decompression ended before the input did")),
        }
    }

    /// The digest of the whole tar, once it has been read to its end.
    pub(crate) fn digest(&self) -> Option<Digest> {
        self.digest
    }
}

/// Runs the first two stages while `consume` takes what they produce. zstd may have a window of `max_zstd_window_bytes`.
pub(crate) fn run<R: Read + Send, T>(input: R, max_zstd_window_bytes: u64, consume: impl FnOnce(Stream) -> T) -> io::Result<T> {
    thread::scope(|scope| {
        let (pool, empty) = channel();
        let (raw, to_digest) = channel();
        let (digested, messages) = channel();
        for _ in 0..POOL_BUFFERS {
            let _ = pool.send(Vec::new());
        }
        let spawn = |name: &str| thread::Builder::new().name(format!("layer-{name}"));
        let decompress = spawn("inflate").spawn_scoped(scope, move || {
            let input = Decompressed::new(input, max_zstd_window_bytes);
            if let Err(error) = input.and_then(|input| forward(input, &empty, &raw)) {
                let _ = raw.send(Message::Failed(error));
            }
        })?;
        let digest = spawn("digest").spawn_scoped(scope, move || digest(&to_digest, &digested))?;
        let result = consume(Stream {
            messages,
            pool,
            digest: None,
        });
        // If either thread panicked, `Stream::next` has returned an error; the caller need not panic too.
        let _ = (decompress.join(), digest.join());
        Ok(result)
    })
}

/// Fills buffers until the input ends or the next stage has stopped.
fn forward(mut input: impl Read, empty: &Receiver<Vec<u8>>, out: &Sender<Message<()>>) -> io::Result<()> {
    while let Ok(mut buffer) = empty.recv() {
        buffer.resize(BUFFER_BYTES, 0);
        let mut filled = 0;
        while filled < BUFFER_BYTES {
            match input.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buffer.truncate(filled);
        if filled == 0 {
            let _ = out.send(Message::End(()));
            break;
        }
        if out.send(Message::Data(buffer)).is_err() {
            break;
        }
    }
    Ok(())
}

/// Forwards every message, and adds the digest to the last.
fn digest(input: &Receiver<Message<()>>, out: &Sender<Message<Digest>>) {
    let mut digest = Sha256::new();
    for message in input {
        let message = match message {
            Message::Data(data) => {
                digest.update(&data);
                Message::Data(data)
            }
            Message::End(()) => Message::End(Digest::from_sha256(digest.finalize_reset().into())),
            Message::Failed(error) => Message::Failed(error),
        };
        if out.send(message).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u64 = 1 << 20;

    /// Gives `left` bytes, a few at a time, then does what `end` says.
    struct Input {
        left: usize,
        end: fn() -> io::Result<usize>,
    }

    impl Read for Input {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min(self.left).min(10_007);
            self.left -= count;
            buffer[..count].fill(7);
            if count == 0 { (self.end)() } else { Ok(count) }
        }
    }

    fn collect(mut stream: Stream) -> io::Result<(Vec<u8>, Digest)> {
        let mut all = Vec::new();
        let mut buffer = Vec::new();
        loop {
            buffer = stream.next(buffer)?;
            match stream.digest() {
                Some(digest) => return Ok((all, digest)),
                None => all.extend_from_slice(&buffer),
            }
        }
    }

    #[test]
    fn data_arrives_unchanged_with_its_digest() {
        for left in [0, 1, BUFFER_BYTES, 20 * BUFFER_BYTES + 5] {
            let (all, digest) = run(Input { left, end: || Ok(0) }, WINDOW, collect).unwrap().unwrap();
            assert!(all == vec![7; left]);
            assert_eq!(digest, Digest::of(&all));
        }
    }

    #[test]
    fn a_failure_and_a_panic_of_the_input_are_errors() {
        let failed = run(
            Input {
                left: 1_000_000,
                end: || Err(io::ErrorKind::TimedOut.into()),
            },
            WINDOW,
            collect,
        )
        .unwrap();
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let panicked = run(
            Input {
                left: 1_000_000,
                end: || panic!("a decoder's bug"),
            },
            WINDOW,
            collect,
        )
        .unwrap();
        assert_eq!(panicked.unwrap_err().kind(), io::ErrorKind::Other);
    }

    #[test]
    fn a_consumer_that_stops_ends_an_endless_input() {
        run(
            Input {
                left: usize::MAX,
                end: || Ok(0),
            },
            WINDOW,
            |mut stream| stream.next(Vec::new()).map(drop),
        )
        .unwrap()
        .unwrap();
    }
}
