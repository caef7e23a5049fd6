//! Tests of the registers from a driver's point of view.

use super::*;
use crate::devices::virtio::{
    RingError, VirtioDevice,
    mock::{Descriptor, Driver, EVENT_IDX, INDIRECT, NEEDS_RESET, NEXT, VERSION_1, WRITE, readable, writable},
    read_config_space,
};
use proptest::prelude::*;
use std::sync::Mutex;
use vm_memory::{Bytes, GuestAddress};

/// Writes the number of a chain's readable bytes to its writable part.
#[derive(Default)]
struct Echo {
    active: Option<Activation>,
    activations: usize,
    written: Vec<(u64, Vec<u8>)>,
}

impl VirtioDevice for Echo {
    fn device_type(&self) -> u32 {
        42
    }
    fn queue_sizes(&self) -> &'static [u16] {
        &[8, 16]
    }
    fn features(&self) -> u64 {
        0b101 | 1 << 40
    }
    fn config_generation(&self) -> u32 {
        77
    }
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_space(&[1, 2, 3, 4, 5, 6], offset, data);
    }
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.written.push((offset, data.to_vec()));
    }
    fn activate(&mut self, activation: Activation) {
        self.active = Some(activation);
        self.activations += 1;
    }
    fn reset(&mut self) {
        self.active = None;
    }
    fn process_queue(&mut self, index: usize) -> Result<(), RingError> {
        let Some(Activation {
            memory, rings, interrupt, ..
        }) = &mut self.active
        else {
            return Ok(());
        };
        let ring = &mut rings[index];
        ring.reset_budget();
        loop {
            ring.disable_notification(memory)?;
            while let Some(mut chain) = ring.pop(memory)? {
                let answer = [chain.readable.len() as u8];
                let written = chain.writable.write_all(&answer).map_or(0, |()| 1);
                ring.push_used(memory, chain.head, written)?;
            }
            ring.notify(memory, interrupt)?;
            if !ring.enable_notification(memory)? {
                return Ok(());
            }
        }
    }
}

fn echo() -> (Arc<Mutex<Echo>>, Driver) {
    let device = Arc::new(Mutex::new(Echo::default()));
    (device.clone(), Driver::new(device))
}

#[test]
fn identity_and_features_are_as_specified() {
    let (_, mut driver) = echo();
    assert_eq!([0, 4, 8].map(|o| driver.read(o)), [0x7472_6976, 2, 42]);
    let offered = driver.offered();
    assert_eq!(offered, 0b101 | 1 << 40 | 1 << 28 | EVENT_IDX | VERSION_1);
    driver.write(0x14, 2);
    assert_eq!(driver.read(0x10), 0);
    assert_eq!(driver.read(0xfc), 77);
    assert_eq!(driver.read(0xb0), u32::MAX);
    driver.transport = driver.transport.with_access_platform();
    assert_eq!(driver.offered(), offered | 1 << 33);
}

#[test]
fn an_empty_slot_has_device_id_zero() {
    let read = |offset| {
        let mut data = [0xee; 4];
        EmptySlot.read(offset, &mut data);
        u32::from_le_bytes(data)
    };
    assert_eq!([0, 4, 8, 0x70, 0x100].map(read), [0x7472_6976, 2, 0, 0, 0]);
    EmptySlot.write(0x70, &[1, 0, 0, 0]);
    assert_eq!(read(0x70), 0);
}

#[test]
fn features_that_were_not_offered_or_an_old_driver_are_refused() {
    let (_, mut driver) = echo();
    for (features, accepted) in [
        (VERSION_1 | 0b1, true),
        (VERSION_1 | 0b10, false),
        (0b101, false),
        (VERSION_1, true),
    ] {
        driver.negotiate(features);
        assert_eq!(driver.status(), if accepted { 11 } else { 3 }, "{features:#x}");
        // Too late to change features.
        driver.accept(VERSION_1 | 0b100);
        assert_eq!(
            driver.transport.driver_features,
            if accepted { features } else { VERSION_1 | 0b100 }
        );
    }
}

#[test]
fn status_bits_are_set_in_order_and_never_cleared() {
    let (device, mut driver) = echo();
    for (written, wanted) in [(2, 0), (4, 0), (8, 0), (1, 1), (5, 1), (9, 1), (3, 3), (7, 3), (1, 3), (0, 0)] {
        driver.write(0x70, written);
        assert_eq!(driver.status(), wanted, "after {written}");
    }
    assert_eq!(lock(&device).activations, 0);
    driver.negotiate(VERSION_1);
    driver.write(0x70, 0x8b);
    driver.write(0x70, 0x8f);
    assert_eq!(driver.status(), 0x8b, "a failed driver gets no further");
}

#[test]
fn queues_are_set_up_between_features_ok_and_driver_ok_only() {
    let (_, mut driver) = echo();
    let ready = |driver: &mut Driver| {
        driver.write(0x80, 0x1000);
        driver.write(0x90, 0x4000);
        driver.write(0xa0, 0x8000);
        driver.write(0x44, 1);
        driver.read(0x44)
    };
    assert_eq!(ready(&mut driver), 0);
    driver.negotiate(VERSION_1);
    assert_eq!(ready(&mut driver), 1);
    // Ready: neither moved nor resized.
    driver.write(0x80, 0x2000);
    driver.write(0x38, 4);
    assert_eq!(
        (driver.transport.queues[0].descriptors, driver.transport.queues[0].size),
        (0x1000, 8)
    );
    driver.write(0x44, 0);
    driver.write(0x80, 0x2000);
    assert_eq!(driver.transport.queues[0].descriptors, 0x2000);
    driver.write(0x70, 15);
    assert_eq!(ready(&mut driver), 0, "live: unchanged");
    driver.write(0x30, 2);
    assert_eq!((driver.read(0x34), driver.read(0x44)), (0, 0), "a queue that does not exist");
}

#[test]
fn invalid_queues_do_not_become_ready() {
    let (_, mut driver) = echo();
    for (register, value) in [
        (0x38, 0),
        (0x38, 3),
        (0x38, 16),
        (0x38, 0x1_0008),
        (0x80, 0x1008),
        (0x90, 0x4001),
        (0xa0, 0x8002),
        (0x80, 0x3f_fff0),
        (0x84, 1),
        (0x94, 0xffff_ffff),
        (0xa4, 0x8000_0000),
        (0xa0, 0x9f_fffc),
    ] {
        driver.negotiate(VERSION_1);
        driver.set_up_queues();
        driver.write(0x30, 0);
        driver.write(0x44, 0);
        driver.write(register, value);
        driver.write(0x44, 1);
        assert_eq!(driver.read(0x44), 0, "{register:#x} = {value:#x}");
    }
}

#[test]
fn registers_are_32_bits_wide_and_configuration_takes_any_width() {
    let (device, mut driver) = echo();
    for len in [1, 2, 8] {
        let mut data = vec![0xee; len];
        driver.transport.read(0, &mut data);
        assert_eq!(data, vec![0; len]);
        driver.transport.write(0x70, &vec![1; len]);
        assert_eq!(driver.status(), 0);
    }
    assert_eq!(driver.read(2), 0);
    let mut data = [0xee; 8];
    driver.transport.read(0x104, &mut data);
    assert_eq!(data, [5, 6, 0, 0, 0, 0, 0, 0]);
    driver.transport.read(u64::MAX, &mut data);
    assert_eq!(data, [0; 8]);
    driver.transport.write(0x102, &[9]);
    driver.write(0x70, 1);
    driver.write(0x70, 3);
    driver.transport.write(0x103, &[8, 7]);
    assert_eq!(lock(&device).written, [(3, vec![8, 7])], "only once there is a driver");
}

#[test]
fn chains_are_returned_with_and_without_event_idx() {
    for features in [VERSION_1, VERSION_1 | EVENT_IDX] {
        let (_, mut driver) = echo();
        driver.start(features);
        // More rounds than the ring has entries.
        for round in 0..40u8 {
            let (message, answer) = (driver.place(&[0; 9]), driver.allocate(1));
            assert_eq!(driver.exchange(1, &[readable(message, 9), writable(answer, 1)]), 1);
            assert_eq!(driver.fetch(answer, 1), [9], "round {round}");
            assert_eq!(driver.interrupted(), 1);
            assert_eq!(driver.interrupted(), 0, "acknowledged");
        }
    }
}

#[test]
fn the_driver_is_interrupted_only_at_its_used_event() {
    let (_, mut driver) = echo();
    driver.start(VERSION_1 | EVENT_IDX);
    let answer = driver.allocate(1);
    driver.completed(0);
    // An interrupt for the third chain from now: used_event = 2.
    let used_event = driver.queues[0].available + 4 + 16;
    driver.memory.write_obj(2u16, GuestAddress(used_event)).unwrap();
    for expected in [0, 0, 1, 0] {
        driver.offer(0, &[writable(answer, 1)]);
        driver.kick(0);
        assert_eq!(driver.interrupted(), expected);
    }
}

#[test]
fn a_device_can_be_started_again_after_a_reset() {
    let (device, mut driver) = echo();
    for round in 1..=3 {
        driver.start(VERSION_1);
        assert_eq!(lock(&device).activations, round);
        let buffer = driver.allocate(1);
        driver.exchange(0, &[writable(buffer, 1)]);
        driver.write(0x70, 0);
        assert_eq!((driver.status(), driver.read(0x44), driver.read(0x60)), (0, 0, 0));
        assert!(lock(&device).active.is_none());
        driver.interrupts.read().ok();
        driver.kick(0);
        assert_eq!(driver.completed(0), []);
    }
}

#[test]
fn indirect_chains_are_one_level_deep() {
    let (_, mut driver) = echo();
    driver.start(VERSION_1);
    let (message, answer) = (driver.place(&[0; 5]), driver.allocate(1));
    let table: Vec<u8> = [
        Descriptor {
            address: message,
            len: 5,
            flags: NEXT,
            next: 1,
        },
        Descriptor {
            address: answer,
            len: 1,
            flags: WRITE,
            next: 0,
        },
    ]
    .iter()
    .flat_map(Descriptor::bytes)
    .collect();
    let table = driver.place(&table);
    driver.write_descriptors(
        0,
        &[Descriptor {
            address: table,
            len: 32,
            flags: INDIRECT,
            next: 0,
        }],
    );
    driver.offer_head(0, 0);
    driver.kick(0);
    assert_eq!(driver.completed(0), [(0, 1)]);
    assert_eq!(driver.fetch(answer, 1), [5]);
    // A nested table, and tables of invalid length.
    let nested = driver.place(
        &Descriptor {
            address: table,
            len: 32,
            flags: INDIRECT,
            next: 0,
        }
        .bytes(),
    );
    for (address, len) in [(nested, 16), (table, 31), (table, 0), (0x7f_fff0, 16)] {
        driver.write_descriptors(
            0,
            &[Descriptor {
                address,
                len,
                flags: INDIRECT,
                next: 0,
            }],
        );
        driver.offer_head(0, 0);
        driver.kick(0);
        assert_eq!(driver.completed(0), [(0, 0)], "{address:#x} {len}");
    }
}

#[test]
fn malformed_chains_are_returned_unused_and_the_next_one_is_served() {
    let (_, mut driver) = echo();
    driver.start(VERSION_1);
    let ok = driver.allocate(16);
    let d = |address, len, flags, next| Descriptor { address, len, flags, next };
    let cases: Vec<(&str, Vec<Descriptor>)> = vec![
        ("loop", vec![d(ok, 1, NEXT, 1), d(ok, 1, NEXT, 0)]),
        ("next outside the table", vec![d(ok, 1, NEXT, 8)]),
        ("hole in memory", vec![d(0x40_0000, 1, WRITE, 0)]),
        ("wraps", vec![d(u64::MAX, 2, WRITE, 0)]),
        ("runs off the end", vec![d(0x9f_ffff, 2, WRITE, 0)]),
        ("readable after writable", vec![d(ok, 1, WRITE | NEXT, 1), d(ok, 1, 0, 0)]),
        ("4 GiB in all", vec![d(ok, u32::MAX, NEXT, 1), d(ok, 2, 0, 0)]),
    ];
    for (what, descriptors) in cases {
        driver.write_descriptors(0, &descriptors);
        driver.offer_head(0, 0);
        driver.write_descriptors(0, &descriptors);
        driver.kick(0);
        assert_eq!(driver.completed(0), [(0, 0)], "{what}");
        driver.write_descriptors(0, &[d(ok, 3, NEXT, 1), d(ok + 8, 0, NEXT, 2), d(ok + 8, 1, WRITE, 0)]);
        driver.offer_head(0, 0);
        driver.kick(0);
        assert_eq!(driver.completed(0), [(0, 1)], "after {what}");
        assert_eq!(driver.fetch(ok + 8, 1), [3]);
        assert_eq!(driver.status(), 15);
    }
}

#[test]
fn an_invalid_ring_needs_a_reset_and_works_after_it() {
    let (_, mut driver) = echo();
    driver.start(VERSION_1);
    driver.offer_head(0, 8);
    driver.kick(0);
    assert_eq!(driver.status(), 15 | NEEDS_RESET);
    assert_eq!(driver.interrupted(), 2);
    driver.kick(0);
    assert_eq!(driver.interrupted(), 0, "notified once");
    driver.start(VERSION_1);
    let buffer = driver.allocate(1);
    assert_eq!(driver.exchange(0, &[writable(buffer, 1)]), 1);
    // More chains than the queue has entries.
    driver
        .memory
        .write_obj(100u16, GuestAddress(driver.queues[0].available + 2))
        .unwrap();
    driver.kick(0);
    assert_eq!(driver.status(), 15 | NEEDS_RESET);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// No sequence of accesses panics, and status bits are always in order.
    #[test]
    fn random_accesses_do_not_panic(
        accesses in proptest::collection::vec((0u64..0x140, any::<bool>(), 0usize..9, any::<u64>()), 1..300),
    ) {
        let (_, mut driver) = echo();
        for (offset, write, len, value) in accesses {
            // Mostly valid registers with small values, so that the state changes.
            let (offset, len) = if value % 4 == 0 { (offset, len) } else { (offset & !3, 4) };
            let value = if value % 8 < 6 { value >> 56 & 31 } else { value };
            if write {
                driver.transport.write(offset, &value.to_le_bytes()[..len]);
            } else {
                driver.transport.read(offset, &mut [0; 8][..len]);
            }
            let status = driver.status() & 15;
            prop_assert!([0, 1, 3, 11, 15].contains(&status), "{status}");
        }
        driver.serve_events();
    }
}

#[test]
fn useless_notifications_suspend_the_queue_s_handler() {
    let mut driver = Driver::started(Arc::new(Mutex::new(Echo::default())));
    for _ in 0..USELESS_NOTIFICATIONS_MAX {
        driver.write(0x50, 0);
        driver.serve_ready_events();
    }
    assert_eq!(driver.watchdog.stats().silenced, 1);
    // The other queue is served meanwhile, and this one afterwards.
    let buffer = driver.allocate(1);
    assert_eq!(driver.exchange(1, &[writable(buffer, 1)]), 1);
    driver.offer(0, &[writable(buffer, 1)]);
    driver.write(0x50, 0);
    while driver.completed(0).is_empty() {
        driver.serve_ready_events();
    }
}

#[test]
fn a_queue_with_some_useless_notifications_is_not_suspended() {
    let mut driver = Driver::started(Arc::new(Mutex::new(Echo::default())));
    let buffer = driver.allocate(1);
    for _ in 0..USELESS_NOTIFICATIONS_MAX {
        assert_eq!(driver.exchange(0, &[writable(buffer, 1)]), 1);
        for _ in 0..3 {
            driver.write(0x50, 0);
            driver.serve_ready_events();
        }
    }
    assert_eq!(driver.watchdog.stats().silenced, 0);
}
