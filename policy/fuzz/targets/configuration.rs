//! A configuration in either form, up to the policy it gives.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| policy_tools::fuzz::configuration(bytes));
