//! A blob as the converter meets it: tar, gzip or zstd. It is converted or refused, within its limits, and equal blobs give
//! equal images.
#![no_main]

use layer::{BLOCK_BYTES, Limits};
use libfuzzer_sys::fuzz_target;
use std::io::{Cursor, Read};

const MIB: u64 = 1 << 20;

/// Small, so that inputs of a few kilobytes reach them.
const LIMITS: Limits = Limits {
    max_image_bytes: 8 * MIB,
    max_tar_bytes: 4 * MIB,
    max_inodes: 300,
    max_path_bytes: 1024,
    max_zstd_window_bytes: MIB,
    max_directory_xattr_bytes: 4096,
};

fuzz_target!(|blob: &[u8]| {
    let mut image = Cursor::new(Vec::new());
    let Ok(converted) = layer::convert(blob, &mut image, &LIMITS) else { return };
    let mut image = image.into_inner();
    let is_whole = |image: &[u8]| {
        let mut read_at = |buffer: &mut [u8], at: u64| image.get(at as usize..).unwrap_or_default().read_exact(buffer);
        layer::is_whole(&mut read_at, converted.data_blocks, &converted.root_hash).unwrap()
    };
    assert_eq!(image.len() as u64, converted.total_blocks * BLOCK_BYTES as u64);
    assert!(converted.data_blocks * BLOCK_BYTES as u64 <= LIMITS.max_image_bytes);
    assert!(is_whole(&image));
    // A changed byte of the data does not pass.
    image[converted.data_blocks as usize * BLOCK_BYTES / 2] ^= 1;
    assert!(!is_whole(&image));
    assert_eq!(layer::hash(blob, &LIMITS).ok(), Some(converted));
});
