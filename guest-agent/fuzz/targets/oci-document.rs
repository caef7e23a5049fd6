//! The OCI specification of a container, as the host sends it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = container_document::check(bytes);
});
