//! Load of a fragment text: it may add containers and nothing else.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| policy::fuzz::fragment(bytes));
