//! The boot page with manifest, load map and command line: what can be read has these bytes only, and its ranges are in order.
#![no_main]

use boot_manifest::{BootPage, Manifest, launch_area::PAGE_BYTES, staged_initrd, staging_end};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::from_bytes(bytes) {
        assert_eq!(manifest.to_bytes(), bytes[..manifest.to_bytes().len()]);
    }
    let mut page = [0; PAGE_BYTES];
    let count = bytes.len().min(PAGE_BYTES);
    page[..count].copy_from_slice(&bytes[..count]);
    let Ok(read) = BootPage::from_bytes(&page) else { return };
    assert_eq!(read.to_bytes(), Ok(page));
    let map = read.load;
    let mut end = 0;
    for segment in map.segments() {
        assert!(segment.bytes <= segment.memory && segment.address >= end);
        end = segment.address.checked_add(segment.memory).unwrap();
    }
    assert!(end <= map.kernel_end() && staged_initrd(&map) <= staging_end(&map));
});
