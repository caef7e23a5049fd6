//! A fragment as the host hands it over: a signed envelope with its certificates, a trust list or a receipt.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| policy_fragment::fuzz(bytes));
