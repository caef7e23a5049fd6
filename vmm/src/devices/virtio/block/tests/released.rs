//! Extents of the layer disk that are given back.

use super::*;

#[test]
fn a_released_extent_is_gone_and_its_place_is_taken_again() {
    let (handle, device) = layers();
    let mut driver = Driver::started(device);
    let file = |seed: u8| (file_of(&[seed; 8192]), 0, 8192);
    handle.append((1..=4).map(file).collect()).unwrap();
    let mut read = |sector| {
        let (status, _, data) = request(&mut driver, IN, sector, &[], 512);
        (status, data[0])
    };
    for wrong in [vec![16, 1], vec![16, 64], vec![16, u64::MAX]] {
        assert_eq!(handle.release(&wrong), Err(ReleaseError::Unknown(wrong[1])));
    }
    assert_eq!(handle.release(&[16, 16]), Err(ReleaseError::Twice(16)));
    assert_eq!(read(16), (0, 2), "all or none");
    // The gaps join, in any order.
    handle.release(&[16]).unwrap();
    handle.release(&[32]).unwrap();
    assert_eq!([0, 16, 47, 48].map(&mut read).map(|(status, _)| status), [0, 1, 1, 0]);
    assert_eq!(handle.release(&[16]), Err(ReleaseError::Unknown(16)));
    let appended = handle
        .append(vec![(file_of(&[5; 12288]), 0, 12288), file(6), (file_of(&[7; 4096]), 0, 4096)])
        .unwrap();
    assert_eq!((appended.first_sectors, appended.capacity), (vec![16, 64, 40], 80));
    assert_eq!(
        [15, 16, 39, 40, 47, 48, 64].map(read),
        [(0, 1), (0, 5), (0, 5), (0, 7), (0, 7), (0, 4), (0, 6)]
    );
}

#[test]
fn a_read_across_a_gap_fails() {
    let (handle, device) = layers();
    let mut driver = Driver::started(device);
    handle.append((0..3).map(|i| (file_of(&[i; 4096]), 0, 4096)).collect()).unwrap();
    handle.release(&[8]).unwrap();
    assert_eq!(request(&mut driver, IN, 7, &[], 1536 + 4096).0, 1);
    assert_eq!(request(&mut driver, IN, 7, &[], 512).0, 0);
}

#[test]
fn released_extents_do_not_count() {
    let mut disk = Layers::new();
    disk.append(vec![(file_of(&[0; 4096]), 0, 4096)]).unwrap();
    assert!(disk.check_count(MAX_EXTENTS).is_err());
    disk.release(&[0]).unwrap();
    assert!(disk.check_count(MAX_EXTENTS).is_ok());
}
