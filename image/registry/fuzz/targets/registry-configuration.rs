//! A configuration of registries, as a text or as the disk that the guest gets.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| registry_client::fuzz::configuration(bytes));
