//! Requests to both disks: valid headers with wrong lengths, invalid headers, ranges, and rings that change in use.
#![no_main]

use casemate_vmm::devices::virtio::{
    SharedVirtioDevice,
    block::{Block, Layers, LayersHandle, Scratch},
};
use casemate_vmm_fuzz::{Machine, Part, parts, steps};
use libfuzzer_sys::fuzz_target;
use std::{
    fs::File,
    sync::{Arc, LazyLock, Mutex},
};

/// One file for all inputs; its contents do not matter.
static FILE: LazyLock<File> = LazyLock::new(|| {
    let file = tempfile::tempfile().expect("a file");
    file.set_len(64 << 10).expect("its length");
    file
});

fn file() -> File {
    FILE.try_clone().expect("a descriptor")
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let mut layers = None;
    let disk: SharedVirtioDevice = if kind & 1 == 0 {
        let device = Arc::new(Mutex::new(Block::new(Layers::new())));
        layers = Some(LayersHandle::new(device.clone()));
        device
    } else {
        Arc::new(Mutex::new(Block::new(Scratch::new(file()).expect("a scratch disk"))))
    };
    let mut machine = Machine::new(disk);
    machine.set_up(0);
    steps(bytes, |input| {
        match input.int_in_range(0..=4u8)? {
            0 => machine.anything(input)?,
            1 => {
                if let Some(layers) = &layers {
                    let (offset, length) = (input.int_in_range(0..=20u64)? * 2048, input.int_in_range(0..=20u64)? * 2048);
                    let _ = layers.append(vec![(file(), offset, length)]);
                }
            }
            _ => {
                let mut chain = parts(input, 4)?;
                let (kind, sector) = (input.int_in_range(0..=14u32)?, input.int_in_range(0..=200u64)?);
                let sector = if input.ratio(1, 8)? { input.arbitrary()? } else { sector };
                chain.insert(0, Part::Out([&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()));
                chain.push(Part::In(1));
                machine.submit(0, &chain);
            }
        }
        Ok(())
    });
});
