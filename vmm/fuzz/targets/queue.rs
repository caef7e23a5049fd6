//! Arbitrary rings and descriptors, changed while in use by the entropy device.
#![no_main]

use casemate_vmm::devices::virtio::rng::Rng;
use casemate_vmm_fuzz::{Machine, parts, steps};
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, Mutex};

fuzz_target!(|bytes: &[u8]| {
    let mut machine = Machine::new(Arc::new(Mutex::new(Rng::new())));
    machine.set_up(0);
    steps(bytes, |input| {
        if input.ratio(1, 3)? {
            machine.submit(0, &parts(input, 4)?);
            Ok(())
        } else {
            machine.anything(input)
        }
    });
});
