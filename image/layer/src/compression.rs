//! Decompression, chosen by the layer's first bytes: none, gzip with any number of members, zstd with any number of frames.

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};

/// Bytes read from the input at a time.
const INPUT_BUFFER_BYTES: usize = 128 << 10;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// RFC 8878 section 3.1.2: `0x184D2A50` to `0x184D2A5F`, little-endian.
const ZSTD_SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];

type Buffered<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

/// The decompressed bytes of a layer.
pub(crate) enum Decompressed<R: Read> {
    Plain(Buffered<R>),
    Gzip(Box<MultiGzDecoder<Buffered<R>>>),
    Zstd(Box<ZstdFrames<Buffered<R>>>),
}

impl<R: Read> Decompressed<R> {
    /// Reads the first four bytes and chooses the decompressor.
    pub(crate) fn new(mut input: R) -> io::Result<Self> {
        let mut head = Vec::with_capacity(4);
        input.by_ref().take(4).read_to_end(&mut head)?;
        let gzip = head.starts_with(&GZIP_MAGIC);
        let zstd = head == ZSTD_MAGIC || is_skippable(&head);
        let input = BufReader::with_capacity(INPUT_BUFFER_BYTES, Cursor::new(head).chain(input));
        Ok(match (gzip, zstd) {
            (true, _) => Decompressed::Gzip(Box::new(MultiGzDecoder::new(input))),
            (_, true) => Decompressed::Zstd(Box::new(ZstdFrames::new(input)?)),
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

fn is_skippable(head: &[u8]) -> bool {
    head.len() == 4 && head[0] & 0xf0 == 0x50 && head[1..] == ZSTD_SKIPPABLE
}

/// Decompresses frame after frame, ignoring skippable ones, until the input ends between frames.
pub(crate) struct ZstdFrames<R> {
    input: R,
    decoder: FrameDecoder,
}

impl<R: BufRead> ZstdFrames<R> {
    fn new(input: R) -> io::Result<Self> {
        let mut decoder = FrameDecoder::new();
        // ruzstd enforces its window limit of 100 MiB only in a decoder that is reused,
        // so the decoder first reads the header of an empty frame (single segment, content size 0).
        let empty = [ZSTD_MAGIC.as_slice(), &[0x20, 0]].concat();
        decoder.reset(empty.as_slice()).map_err(invalid)?;
        decoder
            .decode_blocks([1, 0, 0].as_slice(), BlockDecodingStrategy::All)
            .map_err(invalid)?;
        Ok(ZstdFrames { input, decoder })
    }

    /// Prepares the next frame; false at the end of the input.
    fn next_frame(&mut self) -> io::Result<bool> {
        loop {
            let mut magic = Vec::with_capacity(4);
            self.input.by_ref().take(4).read_to_end(&mut magic)?;
            if magic.is_empty() {
                return Ok(false);
            }
            if !is_skippable(&magic) {
                self.decoder.reset(magic.as_slice().chain(&mut self.input)).map_err(invalid)?;
                return Ok(true);
            }
            let mut length = [0; 4];
            self.input.read_exact(&mut length)?;
            let length = u64::from(u32::from_le_bytes(length));
            if io::copy(&mut self.input.by_ref().take(length), &mut io::sink())? != length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while self.decoder.can_collect() == 0 {
            if !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.input, BlockDecodingStrategy::UptoBytes(buffer.len()))
                    .map_err(invalid)?;
            } else if !self.next_frame()? {
                return Ok(0);
            }
        }
        self.decoder.read(buffer)
    }
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
