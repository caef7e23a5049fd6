//! Extraction and explanation of a denial in an error text.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    policy::fuzz::deny_message(bytes);
    policy_tools::fuzz::deny_message(bytes);
});
