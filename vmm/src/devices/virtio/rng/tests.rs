//! Tests of the entropy device over a real ring.

use super::*;
use crate::devices::virtio::mock::{Driver, readable, writable};
use std::sync::{Arc, Mutex};

fn driver() -> Driver {
    Driver::started(Arc::new(Mutex::new(Rng::new())))
}

#[test]
fn a_request_is_filled_with_different_bytes_each_time() {
    let mut driver = driver();
    let (a, b) = (driver.allocate(64), driver.allocate(64));
    assert_eq!(driver.exchange(0, &[writable(a, 32), writable(a + 32, 32)]), 64);
    assert_eq!(driver.exchange(0, &[writable(b, 64)]), 64);
    assert_ne!(driver.fetch(a, 64), driver.fetch(b, 64));
    assert_ne!(driver.fetch(a + 32, 32), vec![0; 32]);
}

#[test]
fn a_large_request_is_filled_up_to_the_limit() {
    let mut driver = driver();
    let buffer = driver.allocate(MAX_REQUEST_BYTES + 8);
    assert_eq!(
        driver.exchange(0, &[writable(buffer, MAX_REQUEST_BYTES + 8)]),
        MAX_REQUEST_BYTES as u32
    );
    assert_eq!(driver.fetch(buffer + MAX_REQUEST_BYTES as u64, 8), [0; 8]);
}

#[test]
fn a_request_without_writable_bytes_is_returned_empty() {
    let mut driver = driver();
    let buffer = driver.place(&[7; 16]);
    assert_eq!(driver.exchange(0, &[readable(buffer, 16)]), 0);
    assert_eq!(driver.fetch(buffer, 16), [7; 16]);
}
