//! zstd: any number of frames, with windows up to a limit (RFC 8878).

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::io::{self, BufRead, Read};

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Section 3.1.2: `0x184D2A50` to `0x184D2A5F`, little-endian.
const SKIPPABLE: [u8; 3] = [0x2a, 0x4d, 0x18];
/// Largest window of a decoder that is reused. ruzstd refuses larger ones; a new decoder takes any.
const REUSED_WINDOW_BYTES: u64 = 100 << 20;
/// Section 3.1.1.1.1: the flags of the frame header descriptor.
const SINGLE_SEGMENT: u8 = 1 << 5;

/// A frame's window exceeds the limit.
#[derive(Debug, thiserror::Error)]
#[error("a zstd frame has a window of {window} bytes; at most {limit} are decoded ({} MiB)", limit >> 20)]
struct WindowTooLarge {
    window: u64,
    limit: u64,
}

/// Whether `head`, the first four bytes, begins a frame.
pub(super) fn is_frame(head: &[u8]) -> bool {
    head == MAGIC || is_skippable(head)
}

fn is_skippable(head: &[u8]) -> bool {
    head.len() == 4 && head[0] & 0xf0 == 0x50 && head[1..] == SKIPPABLE
}

/// Decompresses frame after frame, ignoring skippable ones, until the input ends between frames.
///
/// The decoder's memory grows with what it decodes, up to twice the window.
pub(crate) struct Frames<R> {
    input: R,
    decoder: FrameDecoder,
    max_window_bytes: u64,
}

impl<R: BufRead> Frames<R> {
    pub(super) fn new(input: R, max_window_bytes: u64) -> Self {
        Frames {
            input,
            decoder: FrameDecoder::new(),
            max_window_bytes,
        }
    }

    /// Prepares the next frame; false at the end of the input.
    fn next_frame(&mut self) -> io::Result<bool> {
        loop {
            let mut magic = Vec::with_capacity(4);
            self.input.by_ref().take(4).read_to_end(&mut magic)?;
            if magic.is_empty() {
                return Ok(false);
            }
            if magic == MAGIC {
                return self.begin().map(|()| true);
            }
            if !is_skippable(&magic) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a zstd frame is followed by other data"));
            }
            let mut length = [0; 4];
            self.input.read_exact(&mut length)?;
            let length = u64::from(u32::from_le_bytes(length));
            if io::copy(&mut self.input.by_ref().take(length), &mut io::sink())? != length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Reads a frame's header after its magic number, and gives it to the decoder if its window is within the limit.
    fn begin(&mut self) -> io::Result<()> {
        let mut descriptor = [0];
        self.input.read_exact(&mut descriptor)?;
        let mut fields = vec![0; field_bytes(descriptor[0])];
        self.input.read_exact(&mut fields)?;
        let window = window(descriptor[0], &fields);
        if window > self.max_window_bytes {
            let error = WindowTooLarge {
                window,
                limit: self.max_window_bytes,
            };
            return Err(invalid(error));
        }
        if window > REUSED_WINDOW_BYTES {
            self.decoder = FrameDecoder::new();
        }
        let header = [MAGIC.as_slice(), &descriptor, &fields].concat();
        self.decoder.reset(header.as_slice()).map_err(invalid)
    }
}

impl<R: BufRead> Read for Frames<R> {
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

/// Bytes of the header's fields after its descriptor: window, dictionary id and content size.
fn field_bytes(descriptor: u8) -> usize {
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    usize::from(descriptor & SINGLE_SEGMENT == 0) + dictionary + content_size_bytes(descriptor)
}

fn content_size_bytes(descriptor: u8) -> usize {
    match descriptor >> 6 {
        0 => usize::from(descriptor & SINGLE_SEGMENT != 0),
        power => 1 << power,
    }
}

/// The window in bytes; a frame of a single segment needs all its content (section 3.1.1.1.2).
fn window(descriptor: u8, fields: &[u8]) -> u64 {
    if descriptor & SINGLE_SEGMENT == 0 {
        let field = fields.first().copied().unwrap_or_default();
        let base = 1u64 << (10 + (field >> 3));
        return base + base / 8 * u64::from(field & 7);
    }
    let bytes = &fields[fields.len() - content_size_bytes(descriptor)..];
    let size = bytes.iter().rev().fold(0, |size, byte| size << 8 | u64::from(*byte));
    // The two-byte form counts from 256.
    if bytes.len() == 2 { size + 256 } else { size }
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The window of a header after its magic number.
    fn stated(header: &[u8]) -> u64 {
        assert_eq!(header.len() - 1, field_bytes(header[0]), "{header:x?}");
        window(header[0], &header[1..])
    }

    #[test]
    fn windows_are_read_from_every_form_of_header() {
        assert_eq!(stated(&[0, 0x00]), 1 << 10);
        assert_eq!(stated(&[0, 0x98]), 512 << 20);
        assert_eq!(stated(&[0, 0x99]), 576 << 20);
        assert_eq!(stated(&[0, 0xff]), (1 << 41) + 7 * (1 << 38));
        // A dictionary of each width, and a content size that does not count beside a window.
        assert_eq!(stated(&[1, 0x88, 9]), 128 << 20);
        assert_eq!(stated(&[2, 0x88, 9, 9]), 128 << 20);
        assert_eq!(stated(&[0x80 | 3, 0x88, 9, 9, 9, 9, 1, 2, 3, 4]), 128 << 20);
        // Single segments.
        assert_eq!(stated(&[0x20, 7]), 7);
        assert_eq!(stated(&[0x60, 1, 0]), 257);
        assert_eq!(stated(&[0xa0, 0, 0, 0, 0x20]), 512 << 20);
        assert_eq!(stated(&[0xe0, 1, 0, 0, 0x20, 0, 0, 0, 0]), (512 << 20) + 1);
        assert_eq!(stated(&[0x20 | 3, 1, 2, 3, 4, 7]), 7);
    }
}
