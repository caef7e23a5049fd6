//! A policy text: loaded and queried, checked, and parsed as the legacy form.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    policy::fuzz::policy_text(bytes);
    policy_tools::fuzz::policy_text(bytes);
});
