//! Generation of a policy from a configuration in TOML or JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| policy_tools::fuzz::configuration(bytes));
