//! Volume slots as a driver sees them.

use super::*;

fn volume() -> (VolumesHandle, Arc<Mutex<Block<Volume>>>) {
    let device = Arc::new(Mutex::new(Block::new(Volume::new(3).unwrap())));
    (VolumesHandle::new(vec![device.clone()], 1 << 20), device)
}

fn attach(handle: &VolumesHandle, file: &File) {
    handle.attach(0, file.try_clone().unwrap(), false).unwrap().unwrap();
}

fn bytes_of(file: &File, at: u64) -> [u8; 512] {
    let mut bytes = [0; 512];
    file.read_exact_at(&mut bytes, at).unwrap();
    bytes
}

#[test]
fn an_empty_slot_is_a_disk_without_capacity_that_serves_nothing() {
    let (_, device) = volume();
    let mut driver = Driver::started(device);
    assert_eq!((driver.read(8), capacity(&mut driver)), (2, 0));
    assert_eq!(driver.offered() & 0xffff, 1 << 2 | 1 << 9, "segments and flushes, not read-only");
    assert_eq!(request(&mut driver, IN, 0, &[], 512).0, 1);
    assert_eq!(request(&mut driver, OUT, 0, &[1; 512], 0).0, 1);
    assert_eq!(request(&mut driver, IN, 0, &[], 0).0, 1, "not even nothing");
    assert_eq!(request(&mut driver, FLUSH, 0, &[], 0).0, 0);
    assert_eq!(request(&mut driver, GET_ID, 0, &[], 20).2, b"casemate-volume-3\0\0\0");
    for kind in [DISCARD, WRITE_ZEROES] {
        assert_eq!(request(&mut driver, kind, 0, &range(0, 1, 0), 0).0, 2, "{kind}");
    }
    assert!(Volume::new(4).is_none());
}

#[test]
fn a_disk_comes_and_goes_and_the_guest_is_notified() {
    let (handle, device) = volume();
    let mut driver = Driver::started(device);
    for sectors in [2, 8] {
        let file = file_of(&pattern(sectors * 512, 9));
        let generation = driver.read(0xfc);
        driver.interrupted();
        attach(&handle, &file);
        assert_eq!((driver.interrupted(), capacity(&mut driver)), (2, sectors as u64));
        assert_ne!(driver.read(0xfc), generation);
        assert_eq!(request(&mut driver, IN, 1, &[], 512).2, pattern(sectors * 512, 9)[512..1024]);
        assert_eq!(request(&mut driver, OUT, 1, &[5; 512], 0).0, 0);
        assert_eq!(request(&mut driver, FLUSH, 0, &[], 0).0, 0);
        assert_eq!(request(&mut driver, IN, sectors as u64, &[], 512).0, 1);
        assert_eq!(bytes_of(&file, 512), [5; 512]);
        driver.interrupted();
        assert_eq!(handle.detach(0), Some(Ok(Detached::Done)));
        assert_eq!((driver.interrupted(), capacity(&mut driver)), (2, 0));
        assert_eq!(request(&mut driver, OUT, 1, &[6; 512], 0).0, 1);
        assert_eq!(bytes_of(&file, 512), [5; 512]);
    }
    assert_eq!(handle.detach(0), Some(Err(NothingAttached)));
}

#[test]
fn a_read_only_disk_refuses_each_write() {
    let (handle, device) = volume();
    let mut driver = Driver::started(device);
    let file = file_of(&[5; 1024]);
    let opened = File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file))).unwrap();
    handle.attach(0, opened, true).unwrap().unwrap();
    assert_eq!(request(&mut driver, IN, 1, &[], 512).2, [5; 512]);
    assert_eq!(request(&mut driver, OUT, 1, &[6; 512], 0).0, 1);
    assert_eq!(request(&mut driver, FLUSH, 0, &[], 0).0, 0);
    assert_eq!(bytes_of(&file, 512), [5; 512]);
}

/// What a request was begun with stays until it is done, and nothing else of the guest reaches the file meanwhile.
#[test]
fn a_disk_is_detached_when_the_request_in_work_is_done() {
    let (handle, device) = volume();
    let mut driver = Driver::started(device.clone());
    let file = file_of(&[5; 1024]);
    attach(&handle, &file);
    let (head, data) = (driver.place(&header(IN, 0)), driver.allocate(513));
    driver.offer(0, &[readable(head, 16), writable(data, 513)]);
    lock(&device).process_queue(0).unwrap();
    let memory = driver.memory.clone();
    let work = lock(&device).begin(0, &memory).unwrap().unwrap();
    assert_eq!(handle.detach(0), Some(Ok(Detached::Draining)));
    assert_eq!(capacity(&mut driver), 0);
    assert_eq!(handle.detach(0), Some(Ok(Detached::Draining)));
    assert!(matches!(
        handle.attach(0, file_of(&[0; 512]), false),
        Some(Err(AttachError::Draining))
    ));
    let done = work();
    lock(&device).end(0, done).unwrap();
    assert_eq!(driver.completed(0).len(), 1);
    assert_eq!(driver.fetch(data, 513), [&[5; 512][..], &[0]].concat());
    assert_eq!(request(&mut driver, IN, 0, &[], 512).0, 1);
    assert_eq!(handle.detach(0), Some(Ok(Detached::Done)));
    assert_eq!(handle.detach(0), Some(Err(NothingAttached)));
    attach(&handle, &file);
    assert_eq!(request(&mut driver, IN, 0, &[], 512).0, 0);
}

#[test]
fn a_layer_that_is_released_while_it_is_read_is_read_to_its_end() {
    let (handle, device) = layers();
    let mut driver = Driver::started(device.clone());
    handle.append(vec![(file_of(&[5; 4096]), 0, 4096)]).unwrap();
    let (head, data) = (driver.place(&header(IN, 0)), driver.allocate(513));
    driver.offer(0, &[readable(head, 16), writable(data, 513)]);
    lock(&device).process_queue(0).unwrap();
    let memory = driver.memory.clone();
    let work = lock(&device).begin(0, &memory).unwrap().unwrap();
    handle.release(&[0]).unwrap();
    handle.append(vec![(file_of(&[6; 4096]), 0, 4096)]).unwrap();
    let done = work();
    lock(&device).end(0, done).unwrap();
    assert_eq!(driver.completed(0).len(), 1);
    assert_eq!(driver.fetch(data, 513), [&[5; 512][..], &[0]].concat());
    assert_eq!(request(&mut driver, IN, 0, &[], 512).2, [6; 512]);
}
