//! The text of a fragment whose issuer is proven: it may give itself containers and nothing else.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| policy::fuzz::fragment(bytes));
