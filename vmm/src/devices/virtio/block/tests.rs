//! Tests of the block device over real rings.

use super::*;
use crate::devices::virtio::{
    SharedVirtioDevice,
    mock::{Descriptor, Driver, INDIRECT, NEXT, Part, VERSION_1, WRITE, readable, writable},
    rng::Rng,
    vsock::Vsock,
};
use proptest::prelude::*;
use std::{
    io::Write,
    os::unix::{fs::FileExt, net::UnixListener},
};
use vm_memory::{Bytes, GuestAddress};

mod released;
mod volumes;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

fn header(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
}

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn pattern(len: usize, seed: u64) -> Vec<u8> {
    (0..len as u64)
        .map(|i| (i * 31 + i / 251).wrapping_add(seed.wrapping_mul(97)) as u8)
        .collect()
}

fn layers() -> (LayersHandle, Arc<Mutex<Block<Layers>>>) {
    let device = Arc::new(Mutex::new(Block::new(Layers::new())));
    (LayersHandle::new(device.clone()), device)
}

fn scratch(len: usize) -> (File, Driver) {
    let file = file_of(&pattern(len, 1));
    let disk = Scratch::new(file.try_clone().unwrap()).unwrap();
    (file, Driver::started(Arc::new(Mutex::new(Block::new(disk)))))
}

/// A request with one data part: status byte, reported length, data.
fn request(driver: &mut Driver, kind: u32, sector: u64, data: &[u8], room: usize) -> (u8, u32, Vec<u8>) {
    let head = driver.place(&header(kind, sector));
    let (out, back, status) = (driver.place(data), driver.allocate(room), driver.place(&[0xee]));
    let mut parts = vec![readable(head, 16)];
    if !data.is_empty() {
        parts.push(readable(out, data.len()));
    }
    if room > 0 {
        parts.push(writable(back, room));
    }
    parts.push(writable(status, 1));
    let len = driver.exchange(0, &parts);
    let result = (driver.fetch(status, 1)[0], len, driver.fetch(back, room));
    driver.free_all();
    result
}

fn capacity(driver: &mut Driver) -> u64 {
    u64::from(driver.read(0x100)) | u64::from(driver.read(0x104)) << 32
}

#[test]
fn the_layer_disk_grows_and_notifies_the_guest() {
    let (handle, device) = layers();
    let mut driver = Driver::started(device);
    assert_eq!((driver.read(8), capacity(&mut driver), driver.read(0x10c)), (2, 0, 254));
    assert_eq!(driver.offered() & 0xffff, 1 << 2 | 1 << 5);
    assert_eq!(driver.interrupted(), 0);
    let generation = driver.read(0xfc);
    let bytes = pattern(5 * 4096, 3);
    let appended = handle
        .append(vec![(file_of(&bytes), 4096, 8192), (file_of(&bytes), 0, 4096)])
        .unwrap();
    assert_eq!(
        appended,
        Appended {
            first_sectors: vec![0, 16],
            capacity: 24
        }
    );
    assert_eq!((driver.interrupted(), capacity(&mut driver)), (2, 24));
    assert_ne!(driver.read(0xfc), generation);
    let (status, len, data) = request(&mut driver, IN, 15, &[], 1024);
    assert_eq!((status, len), (0, 1025));
    assert_eq!(data, [&bytes[4096 + 15 * 512..4096 + 16 * 512], &bytes[..512]].concat());
    assert_eq!(request(&mut driver, IN, 23, &[], 1024).0, 1);
    assert_eq!(
        handle.append(vec![(file_of(&bytes), 0, 4096)]).unwrap(),
        Appended {
            first_sectors: vec![24],
            capacity: 32
        }
    );
    assert_eq!(request(&mut driver, IN, 23, &[], 1024).0, 0);
}

#[test]
fn growth_before_activation_is_notified_at_activation() {
    let (handle, device) = layers();
    let mut driver = Driver::new(device);
    handle.append(vec![(file_of(&[0; 4096]), 0, 4096)]).unwrap();
    assert_eq!(driver.interrupted(), 0, "no interrupt before DRIVER_OK");
    driver.start(VERSION_1);
    assert_eq!(driver.interrupted(), 2);
    driver.start(VERSION_1);
    assert_eq!(driver.interrupted(), 0);
}

#[test]
fn invalid_extents_are_refused_and_nothing_is_appended() {
    let (handle, device) = layers();
    let mut driver = Driver::started(device);
    let good = || (file_of(&[0; 8192]), 0, 4096);
    for (offset, length) in [
        (0, 0),
        (1, 4096),
        (0, 4095),
        (512, 4096),
        (4096, 8192),
        (8192, 4096),
        (u64::MAX - 4095, 4096),
        (0, 1 << 63),
    ] {
        let error = handle.append(vec![good(), (file_of(&[0; 8192]), offset, length)]).unwrap_err();
        assert!(
            matches!(
                error,
                AppendError::Unaligned { index: 1, .. } | AppendError::OutsideFile { index: 1, .. }
            ),
            "{error}"
        );
    }
    assert!(matches!(
        handle.append(vec![(File::open("/dev/zero").unwrap(), 0, 4096)]),
        Err(AppendError::NotAFile(0))
    ));
    let sparse = tempfile::tempfile().unwrap();
    sparse.set_len(1 << 42).unwrap();
    let huge = |n: usize| (0..n).map(|_| (sparse.try_clone().unwrap(), 0, 1 << 42)).collect::<Vec<_>>();
    assert!(matches!(handle.append(huge(17)), Err(AppendError::TooLarge)));
    assert_eq!(capacity(&mut driver), 0);
    assert_eq!(handle.append(huge(16)).unwrap().capacity, 1 << 37);
    assert!(matches!(handle.append(vec![good()]), Err(AppendError::TooLarge)));
}

#[test]
fn the_number_of_extents_is_limited() {
    let mut disk = Layers::new();
    let file = file_of(&[0; 4096]);
    for _ in 0..16 {
        disk.append((0..8).map(|_| (file.try_clone().unwrap(), 0, 4096)).collect()).unwrap();
    }
    let rest = MAX_EXTENTS - 128;
    assert_eq!(disk.capacity(), 128 * 4096);
    assert!(matches!(disk.check_count(rest + 1), Err(AppendError::TooMany(n)) if n == MAX_EXTENTS + 1));
    assert!(disk.check_count(rest).is_ok());
}

#[test]
fn a_file_that_shrank_is_an_io_error() {
    let (handle, device) = layers();
    let mut driver = Driver::started(device);
    let file = file_of(&[5; 8192]);
    handle.append(vec![(file.try_clone().unwrap(), 0, 8192)]).unwrap();
    file.set_len(4096).unwrap();
    assert_eq!(request(&mut driver, IN, 0, &[], 4096).0, 0);
    assert_eq!(request(&mut driver, IN, 7, &[], 1024).0, 1);
}

#[test]
fn the_layer_disk_is_read_only_whatever_was_negotiated() {
    for features in [VERSION_1, VERSION_1 | 1 << 5] {
        let (handle, device) = layers();
        let mut driver = Driver::new(device);
        let file = file_of(&[5; 4096]);
        handle.append(vec![(file.try_clone().unwrap(), 0, 4096)]).unwrap();
        driver.start(features);
        assert_eq!(request(&mut driver, OUT, 0, &[1; 512], 0).0, 1);
        for kind in [FLUSH, DISCARD, WRITE_ZEROES, 2, 99] {
            assert_eq!(request(&mut driver, kind, 0, &[0; 16], 0).0, 2, "{kind}");
        }
        let mut byte = [0];
        file.read_exact_at(&mut byte, 0).unwrap();
        assert_eq!(byte, [5]);
    }
}

#[test]
fn disks_have_ids() {
    let (_, device) = layers();
    let mut driver = Driver::started(device);
    assert_eq!(
        request(&mut driver, GET_ID, 0, &[], 20),
        (0, 21, b"casemate-layers\0\0\0\0\0".to_vec())
    );
    assert_eq!(request(&mut driver, GET_ID, 0, &[], 8).2, b"casemate");
    let (_, mut driver) = scratch(4096);
    assert_eq!(request(&mut driver, GET_ID, 0, &[], 20).2, b"casemate-scratch\0\0\0\0");
}

#[test]
fn the_configuration_of_registries_is_read_and_never_written() {
    for length in [0, 1, 511, 513] {
        let error = Registries::new(file_of(&vec![0; length])).err();
        assert!(matches!(error, Some(RegistriesError::Length(n)) if n == length as u64));
    }
    assert!(matches!(
        Registries::new(File::open("/dev/zero").unwrap()),
        Err(RegistriesError::Length(_))
    ));
    let file = file_of(&[[5; 512], [6; 512]].concat());
    let disk = Registries::new(file.try_clone().unwrap()).unwrap();
    let mut driver = Driver::started(Arc::new(Mutex::new(Block::new(disk))));
    assert_eq!(request(&mut driver, GET_ID, 0, &[], 20).2, b"imagepuller\0\0\0\0\0\0\0\0\0");
    assert_eq!(request(&mut driver, IN, 1, &[], 512), (0, 513, vec![6; 512]));
    assert_eq!(request(&mut driver, OUT, 0, &[1; 512], 0).0, 1);
    assert_eq!(request(&mut driver, IN, 2, &[], 512).0, 1);
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0).unwrap();
    assert_eq!(byte, [5]);
}

#[test]
fn a_scratch_file_must_have_whole_blocks() {
    for len in [0, 1, 4095, 4097] {
        let file = tempfile::tempfile().unwrap();
        file.set_len(len).unwrap();
        assert!(matches!(Scratch::new(file), Err(ScratchError::Length(l)) if l == len));
    }
}

#[test]
fn headers_and_data_may_be_split_anywhere() {
    let (_, mut driver) = scratch(8192);
    let head = driver.place(&header(IN, 3));
    let (data, status) = (driver.allocate(1024), driver.allocate(1));
    let parts = [
        readable(head, 1),
        readable(head + 1, 10),
        readable(head + 11, 0),
        readable(head + 11, 5),
        writable(data, 511),
        writable(data + 511, 0),
        writable(data + 511, 513),
        writable(status, 1),
    ];
    assert_eq!(driver.exchange(0, &parts), 1025);
    assert_eq!(driver.fetch(data, 1024), pattern(8192, 1)[1536..2560]);
    // Data and status share a descriptor.
    let whole = driver.place(&[0xee; 513]);
    assert_eq!(driver.exchange(0, &[readable(head, 16), writable(whole, 513)]), 513);
    assert_eq!(driver.fetch(whole, 513), [&pattern(8192, 1)[1536..2048], &[0]].concat());
}

#[test]
fn requests_without_a_status_or_a_whole_header_fail() {
    let (_, mut driver) = scratch(4096);
    let head = driver.place(&header(OUT, 0));
    assert_eq!(driver.exchange(0, &[readable(head, 16)]), 0);
    assert_eq!(driver.exchange(0, &[readable(head, 0)]), 0);
    for parts in [vec![], vec![readable(head, 15)]] {
        let status = driver.place(&[0xee; 8]);
        let parts: Vec<Part> = parts.into_iter().chain([writable(status, 8)]).collect();
        assert_eq!(driver.exchange(0, &parts), 8);
        assert_eq!(
            driver.fetch(status, 8),
            [[0xee; 7].to_vec(), vec![1]].concat(),
            "only the status byte"
        );
    }
}

#[test]
fn odd_lengths_and_sectors_out_of_range_are_io_errors() {
    let (_, mut driver) = scratch(4096);
    for (sector, len) in [(8, 512), (7, 1024), (u64::MAX, 512), (1 << 55, 512), (0, 100), (0, 513)] {
        assert_eq!(request(&mut driver, IN, sector, &[], len).0, 1, "read {sector} {len}");
        assert_eq!(request(&mut driver, OUT, sector, &vec![7; len], 0).0, 1, "write {sector} {len}");
    }
    assert_eq!(request(&mut driver, OUT, 0, &[], 0).0, 0, "a write of no bytes succeeds");
}

#[test]
fn writes_need_no_flush_feature_and_flush_is_unsupported_without_it() {
    let file = file_of(&[0; 4096]);
    let disk = Scratch::new(file.try_clone().unwrap()).unwrap();
    let mut driver = Driver::new(Arc::new(Mutex::new(Block::new(disk))));
    driver.start(VERSION_1);
    assert_eq!(request(&mut driver, OUT, 1, &[9; 512], 0), (0, 1, vec![]));
    assert_eq!(request(&mut driver, FLUSH, 0, &[], 0).0, 2);
    let features = driver.offered();
    driver.start(features);
    assert_eq!(request(&mut driver, FLUSH, 0, &[], 0).0, 0);
    let mut bytes = [0; 1024];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes[511..513], [0, 9]);
}

#[test]
fn many_requests_are_served_by_one_notification() {
    let (_, mut driver) = scratch(1 << 20);
    let mut wanted = Vec::new();
    for i in 0..64u64 {
        let head = driver.place(&header(IN, i));
        let data = driver.allocate(513);
        wanted.push((driver.offer(0, &[readable(head, 16), writable(data, 513)]), 513));
    }
    driver.kick(0);
    assert_eq!(driver.completed(0), wanted);
}

#[test]
fn a_long_queue_of_large_reads_is_served_in_several_iterations() {
    let (handle, device) = layers();
    let mut driver = Driver::new(device);
    driver.start(VERSION_1);
    handle.append(vec![(file_of(&vec![3; 1 << 20]), 0, 1 << 20)]).unwrap();
    let head = driver.place(&header(IN, 0));
    let data = driver.allocate((1 << 20) + 1);
    for _ in 0..10 {
        driver.offer(0, &[readable(head, 16), writable(data, (1 << 20) + 1)]);
    }
    driver.write(0x50, 0);
    let mut per_turn = Vec::new();
    for _ in 0..4 {
        driver.serve_ready_events();
        per_turn.push(driver.completed(0).len());
    }
    assert_eq!(per_turn, [4, 4, 2, 0]);
}

fn range(sector: u64, count: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &count.to_le_bytes(), &flags.to_le_bytes()].concat()
}

/// Splits a buffer into descriptors.
fn cut(address: u64, len: usize, pieces: usize, write: bool) -> Vec<Part> {
    let step = len.div_ceil(pieces).max(1);
    (0..len)
        .step_by(step)
        .map(|at| Part {
            address: address + at as u64,
            len: step.min(len - at) as u32,
            writable: write,
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn reads_across_extents_equal_their_concatenation(
        extents in proptest::collection::vec((1usize..5, 0usize..3, 0usize..3), 1..7),
        reads in proptest::collection::vec((0u64..200, 1usize..60, 1usize..9), 1..12),
    ) {
        let (handle, device) = layers();
        let mut driver = Driver::started(device);
        let mut reference = Vec::new();
        for (i, (blocks, before, after)) in extents.iter().enumerate() {
            let bytes = pattern((before + blocks + after) * 4096, i as u64);
            reference.extend_from_slice(&bytes[before * 4096..(before + blocks) * 4096]);
            handle.append(vec![(file_of(&bytes), *before as u64 * 4096, *blocks as u64 * 4096)]).unwrap();
        }
        for (sector, sectors, pieces) in reads {
            let len = sectors * 512;
            let head = driver.place(&header(IN, sector));
            let (data, status) = (driver.allocate(len), driver.allocate(1));
            let mut parts = vec![readable(head, 16)];
            parts.extend(cut(data, len, pieces, true));
            parts.push(writable(status, 1));
            driver.exchange(0, &parts);
            let (from, to) = (sector as usize * 512, sector as usize * 512 + len);
            if to <= reference.len() {
                prop_assert_eq!(driver.fetch(status, 1), vec![0]);
                prop_assert_eq!(driver.fetch(data, len), &reference[from..to]);
            } else {
                prop_assert_eq!(driver.fetch(status, 1), vec![1]);
            }
            driver.free_all();
        }
    }

    #[test]
    fn scratch_behaves_like_an_array_of_bytes(
        steps in proptest::collection::vec((0usize..4, 0u64..70, 1usize..20, 1usize..6, any::<u64>()), 1..40),
    ) {
        const LEN: usize = 32 * 1024;
        let (file, mut driver) = scratch(LEN);
        let mut model = pattern(LEN, 1);
        for (what, sector, sectors, pieces, seed) in steps {
            let (at, len) = (sector as usize * 512, sectors * 512);
            let fits = at + len <= LEN;
            let (status, head) = (driver.allocate(1), driver.place(&header([IN, OUT, WRITE_ZEROES, DISCARD][what], sector)));
            let mut parts = vec![readable(head, 16)];
            let data = match what {
                0 => driver.allocate(len),
                1 => driver.place(&pattern(len, seed)),
                2 => driver.place(&range(sector, sectors as u32, (seed & 1) as u32)),
                _ => driver.place(&range(sector, sectors as u32, 0)),
            };
            parts.extend(cut(data, if what < 2 { len } else { 16 }, pieces, what == 0));
            parts.push(writable(status, 1));
            driver.exchange(0, &parts);
            let status = driver.fetch(status, 1)[0];
            if !fits {
                prop_assert_eq!(status, 1);
            } else if what == 0 {
                prop_assert_eq!(driver.fetch(data, len), &model[at..at + len]);
            } else if what == 1 {
                model[at..at + len].copy_from_slice(&pattern(len, seed));
            } else if status == 0 {
                model[at..at + len].fill(0);
            }
            prop_assert!(!fits || status == 0 || (status == 2 && what == 2), "status {}", status);
            driver.free_all();
        }
        let mut bytes = vec![0; LEN];
        file.read_exact_at(&mut bytes, 0).unwrap();
        prop_assert!(bytes == model);
    }

    /// With random descriptors and buffers, no device panics, hangs, or writes to a byte that was not offered as writable.
    #[test]
    fn random_descriptors_change_writable_buffers_only(
        which in 0usize..4,
        table in proptest::collection::vec((0u64..24, 0u32..600, 0u16..8, 0u16..12), 10),
        words in proptest::collection::vec(any::<u32>(), 64),
        heads in proptest::collection::vec(0u16..10, 1..6),
    ) {
        let (handle, layer_disk) = layers();
        handle.append(vec![(file_of(&pattern(4096, 1)), 0, 4096)]).unwrap();
        let scratch = Scratch::new(file_of(&pattern(4096, 1))).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let device: SharedVirtioDevice = match which {
            0 => layer_disk,
            1 => Arc::new(Mutex::new(Block::new(scratch))),
            2 => Arc::new(Mutex::new(Rng::new())),
            _ => Arc::new(Mutex::new(Vsock::new(UnixListener::bind(folder.path().join("v")).unwrap(), None).unwrap())),
        };
        let mut driver = Driver::started(device);
        let queue = if which == 3 { 1 } else { 0 };
        // Small numbers at the start, so that some buffers are valid requests.
        let base = 0x5_0000u64;
        for (i, word) in words.iter().enumerate() {
            let word = if i % 3 == 0 { word % 16 } else { *word };
            driver.memory.write_obj(word, GuestAddress(base + 4 * i as u64)).unwrap();
        }
        let descriptors: Vec<Descriptor> = table.iter().map(|(place, len, flags, next)| {
            let address = match place { 22 => 0x3f_ff00, 23 => u64::MAX - 64, p => base + 16 * p };
            let len = if flags & INDIRECT != 0 { len / 16 * 16 } else { *len };
            Descriptor { address, len, flags: flags & (NEXT | WRITE | INDIRECT), next: *next }
        }).collect();
        driver.write_descriptors(queue, &descriptors);
        // Writable are the buffers of direct descriptors and those of indirect tables within the buffers.
        let mut may_change = vec![false; 0x1_0000];
        let mut allow = |address: u64, len: u32| {
            let place = |a: u64| a.saturating_sub(base).min(0x1_0000) as usize;
            may_change[place(address)..place(address.saturating_add(len.into()))].fill(true);
        };
        for d in &descriptors {
            if d.flags & WRITE != 0 { allow(d.address, d.len) }
            if d.flags & INDIRECT != 0 && d.address < base + 0x1000 {
                let bytes = driver.fetch(d.address, d.len as usize);
                for entry in bytes.chunks_exact(16) {
                    allow(u64::from_le_bytes(entry[..8].try_into().unwrap()), u32::from_le_bytes(entry[8..12].try_into().unwrap()));
                }
            }
        }
        let before = driver.fetch(base, 0x1_0000);
        let untouched = driver.fetch(0x80_0000, 0x1000);
        for head in heads {
            driver.offer_head(queue, head);
        }
        driver.kick(queue);
        let after = driver.fetch(base, 0x1_0000);
        let changed = (0..before.len()).find(|i| before[*i] != after[*i] && !may_change[*i]);
        prop_assert_eq!(changed, None);
        prop_assert_eq!(driver.fetch(0x80_0000, 0x1000), untouched);
    }
}
