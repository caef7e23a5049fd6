//! Decompression, chosen by the layer's first bytes: none, gzip with any number of members, zstd with any number of frames.

mod zstd;

use flate2::bufread::MultiGzDecoder;
use std::io::{self, BufReader, Chain, Cursor, Read};
use zstd::Frames;

/// Bytes read from the input at a time.
const INPUT_BUFFER_BYTES: usize = 128 << 10;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

type Buffered<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

/// The decompressed bytes of a layer.
pub(crate) enum Decompressed<R: Read> {
    Plain(Buffered<R>),
    Gzip(Box<MultiGzDecoder<Buffered<R>>>),
    Zstd(Box<Frames<Buffered<R>>>),
}

/// The content of a stream that is plain, gzip or zstd, as [`crate::convert`] decompresses layers.
///
/// # Errors
/// The first bytes cannot be read.
pub fn decompress<R: Read>(input: R, limits: &crate::Limits) -> io::Result<impl Read + use<R>> {
    Decompressed::new(input, limits.max_zstd_window_bytes)
}

impl<R: Read> Decompressed<R> {
    /// Reads the first four bytes and chooses the decompressor; zstd's window may have `max_window_bytes`.
    pub(crate) fn new(mut input: R, max_window_bytes: u64) -> io::Result<Self> {
        let mut head = Vec::with_capacity(4);
        input.by_ref().take(4).read_to_end(&mut head)?;
        let gzip = head.starts_with(&GZIP_MAGIC);
        let zstd = zstd::is_frame(&head);
        let input = BufReader::with_capacity(INPUT_BUFFER_BYTES, Cursor::new(head).chain(input));
        Ok(match (gzip, zstd) {
            (true, _) => Decompressed::Gzip(Box::new(MultiGzDecoder::new(input))),
            (_, true) => Decompressed::Zstd(Box::new(Frames::new(input, max_window_bytes))),
            _ => Decompressed::Plain(input),
        })
    }
}

impl<R: Read> Read for Decompressed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Decompressed::Plain(input) => input.read(buffer),
            Decompressed::Gzip(input) => input.read(buffer),
            Decompressed::Zstd(input) => input.read(buffer),
        }
    }
}
