//! An index or a manifest, in place of every document on the way to an image.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| registry_client::fuzz::manifest(bytes));
