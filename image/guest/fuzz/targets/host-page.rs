//! The page of the host before kernel and initramfs, none of which is measured: what can be read has these bytes only, and RAM that is
//! taken lies in order and apart.
#![no_main]

use boot_manifest::{HostPage, StagingPage, launch_area::PAGE_BYTES, ram::Ram};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(host) = HostPage::from_bytes(bytes) {
        assert_eq!(HostPage::from_bytes(&host.to_bytes()), Ok(host));
    }
    let mut page = [0; PAGE_BYTES];
    let count = bytes.len().min(PAGE_BYTES);
    page[..count].copy_from_slice(&bytes[..count]);
    let Ok(read) = StagingPage::from_bytes(&page) else { return };
    assert_eq!(read.to_bytes(), page);
    let Some(ram) = Ram::new(read.ram_bytes) else { return };
    assert_eq!(ram.bytes(), read.ram_bytes);
    let mut end = 0;
    for range in ram.to_accept().into_iter().filter(|range| !range.is_empty()) {
        assert!(range.start >= end && range.start < range.end);
        end = range.end;
    }
    let mut end = 0;
    for (range, _) in ram.e820() {
        assert!(range.start >= end && range.start <= range.end);
        end = range.end;
    }
});
