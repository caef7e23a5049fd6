//! The way of a blob from the connection to its conversion, which reads and blocks: a bounded channel.

use registry_client::Chunk;
use std::io::{self, Read};
use tokio::sync::mpsc;

/// Most parts of a blob on their way; hyper gives at most 400 KiB in each.
const CHUNKS: usize = 16;

/// The reading end. It ends where the blob does, or where its connection broke: the writing end knows which.
pub struct Feed {
    chunks: mpsc::Receiver<Chunk>,
    rest: Chunk,
}

/// Both ends.
pub fn feed() -> (mpsc::Sender<Chunk>, Feed) {
    let (sender, chunks) = mpsc::channel(CHUNKS);
    let rest = Chunk::new();
    (sender, Feed { chunks, rest })
}

impl Read for Feed {
    /// Must not be called on a thread of the runtime.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.rest = chunk,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.rest.len());
        buffer[..count].copy_from_slice(&self.rest.split_to(count));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_arrive_in_their_order(chunks: Vec<Vec<u8>>) {
            let (sender, mut feed) = feed();
            let sent = chunks.clone();
            let writer = std::thread::spawn(move || {
                for chunk in sent {
                    sender.blocking_send(chunk.into()).unwrap();
                }
            });
            let mut read = Vec::new();
            feed.read_to_end(&mut read).unwrap();
            writer.join().unwrap();
            prop_assert_eq!(read, chunks.concat());
        }
    }

    #[test]
    fn a_reader_that_stops_is_noticed() {
        let (sender, feed) = feed();
        drop(feed);
        assert!(sender.blocking_send(Chunk::from_static(b"x")).is_err());
    }
}
