//! Offsets, versions, reserved bits, and whatever bytes a host may give.

use super::*;
use proptest::prelude::*;

fn bytes(version: u32) -> Vec<u8> {
    let mut b: Vec<u8> = (0..REPORT_BYTES).map(|i| (i % 251) as u8).collect();
    b[..4].copy_from_slice(&version.to_le_bytes());
    b
}

/// A report without a reserved bit.
fn clean(version: u32) -> Vec<u8> {
    let mut b = vec![0; REPORT_BYTES];
    b[..4].copy_from_slice(&version.to_le_bytes());
    b[8..16].copy_from_slice(&(POLICY_ONE | 0x1f).to_le_bytes());
    b
}

#[test]
fn fields_are_at_their_offsets() {
    let raw = bytes(5);
    let report = Report::parse(&raw).unwrap();
    assert_eq!(report.guest_svn().to_le_bytes(), raw[4..8]);
    assert_eq!(report.policy().to_le_bytes(), raw[8..16]);
    assert_eq!(report.family_id(), raw[0x10..0x20]);
    assert_eq!(report.image_id(), raw[0x20..0x30]);
    assert_eq!(report.vmpl().to_le_bytes(), raw[0x30..0x34]);
    assert_eq!(report.signature_algorithm().to_le_bytes(), raw[0x34..0x38]);
    assert_eq!(report.current_tcb().0, raw[0x38..0x40]);
    assert_eq!(report.platform_info().to_le_bytes(), raw[0x40..0x48]);
    assert_eq!(report.report_data(), raw[0x50..0x90]);
    assert_eq!(report.measurement(), raw[0x90..0xc0]);
    assert_eq!(report.host_data(), raw[0xc0..0xe0]);
    assert_eq!(report.id_key_digest(), raw[0xe0..0x110]);
    assert_eq!(report.author_key_digest(), raw[0x110..0x140]);
    assert_eq!(report.report_id(), raw[0x140..0x160]);
    assert_eq!(report.report_id_ma(), raw[0x160..0x180]);
    assert_eq!(report.reported_tcb().0, raw[0x180..0x188]);
    let cpuid = report.cpuid().unwrap();
    assert_eq!([cpuid.family, cpuid.model, cpuid.stepping], raw[0x188..0x18b]);
    assert_eq!(report.chip_id(), raw[0x1a0..0x1e0]);
    assert_eq!(report.committed_tcb().0, raw[0x1e0..0x1e8]);
    let version = report.current_version();
    assert_eq!([version.build, version.minor, version.major], raw[0x1e8..0x1eb]);
    let version = report.committed_version();
    assert_eq!([version.build, version.minor, version.major], raw[0x1ec..0x1ef]);
    assert_eq!(report.launch_tcb().0, raw[0x1f0..0x1f8]);
    assert_eq!(report.launch_mitigations().unwrap().to_le_bytes(), raw[0x1f8..0x200]);
    assert_eq!(report.current_mitigations().unwrap().to_le_bytes(), raw[0x200..0x208]);
    let (r, s) = report.signature();
    assert!(r.iter().rev().eq(&raw[0x2a0..0x2d0]));
    assert!(s.iter().rev().eq(&raw[0x2e8..0x318]));
    assert_eq!(report.signed_bytes().len(), 672);
}

#[test]
fn fields_of_later_versions_are_absent_before() {
    let of = |version| Report::parse(&bytes(version)).unwrap();
    assert_eq!(of(2).cpuid(), None);
    assert_eq!(of(2).product(), None);
    assert!(of(3).cpuid().is_some());
    assert_eq!(of(4).launch_mitigations(), None);
    assert_eq!(of(4).current_mitigations(), None);
}

#[test]
fn the_signing_key_and_its_flags_are_bits_of_one_field() {
    let of = |bits: u8| {
        let mut raw = clean(2);
        raw[0x48] = bits;
        Report::parse(&raw).unwrap()
    };
    assert_eq!(of(0).signing_key(), SigningKey::Vcek);
    assert_eq!(of(1 << 2).signing_key(), SigningKey::Vlek);
    assert_eq!(of(7 << 2).signing_key(), SigningKey::None);
    assert_eq!(of(2 << 2).signing_key(), SigningKey::Reserved(2));
    assert!(of(1).author_key_enabled() && !of(1).chip_key_masked());
    assert!(of(2).chip_key_masked() && !of(2).author_key_enabled());
}

/// Every bit of a report is either part of a field or named by [`Report::reserved`].
#[test]
fn reserved_bits_are_named() {
    // Offsets of fields (start, end), by the ABI specification.
    let fields = |version: u32| {
        let mut fields = vec![
            (0x00, 0x4c),
            (0x50, 0x188),
            (0x1a0, 0x1eb),
            (0x1ec, 0x1ef),
            (0x1f0, 0x1f8),
            (0x2a0, 0x2d0),
            (0x2e8, 0x318),
        ];
        fields.extend((version >= 3).then_some((0x188, 0x18b)));
        fields.extend((version >= 5).then_some((0x1f8, 0x208)));
        fields
    };
    for version in VERSIONS {
        let raw = clean(version);
        assert_eq!(Report::parse(&raw).unwrap().reserved(), Vec::<&str>::new());
        for at in 4..REPORT_BYTES {
            let mut raw = raw.clone();
            raw[at] ^= 0x80;
            let named = !Report::parse(&raw).unwrap().reserved().is_empty();
            let field = fields(version).iter().any(|(start, end)| (*start..*end).contains(&at));
            let bits = (0x0b..0x10).contains(&at) || (0x48..0x4c).contains(&at);
            assert_eq!(named, bits || !field, "version {version} offset {at:#x}");
        }
    }
    let mut raw = clean(5);
    raw[10] = 0;
    assert_eq!(Report::parse(&raw).unwrap().reserved(), ["POLICY"], "bit 17 must be one");
}

#[test]
fn unknown_versions_and_lengths_are_refused() {
    for version in [0, 1, 6, 7, u32::MAX] {
        assert_eq!(Report::parse(&bytes(version)), Err(ReportError::Version(version)));
    }
    assert_eq!(Report::parse(&bytes(2)[1..]), Err(ReportError::Length(1183)));
    assert_eq!(Report::parse(&[bytes(2), vec![0]].concat()), Err(ReportError::Length(1185)));
}

proptest! {
    #[test]
    fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2400)) {
        let _ = Report::parse(&bytes);
    }

    #[test]
    fn every_known_version_can_be_read(version in 2..=5_u32, noise in proptest::collection::vec(any::<u8>(), REPORT_BYTES)) {
        let mut raw = noise;
        raw[..4].copy_from_slice(&version.to_le_bytes());
        let report = Report::parse(&raw).unwrap();
        let _ = (report.reserved(), report.product(), report.signature(), report.signing_key());
    }
}
