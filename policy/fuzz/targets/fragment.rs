//! Parsing and verification of a signed fragment, a trust list or a receipt from the host.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| policy_fragment::fuzz(bytes));
