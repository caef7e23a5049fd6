//! The challenge of a registry, and the token service that it names.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| registry_client::fuzz::challenge(bytes));
