//! Requirements files and certificate files, as they are and as they should not be.

use super::amd;
use super::forge::Case;
use crate::{Collateral, CollateralError, Expectations, Revocation, Wanted};
use attestation::{Product, SigningKey};
use proptest::prelude::*;
use std::path::Path;

const REQUIREMENTS: &str = r#"
products = ["milan", "turin"]
signing_keys = ["vcek", "vlek"]
revocation = "stale-allowed"
allow_masked_chip_id = true
measurements = ["3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e3e"]
host_data = ["any"]

[minimum_tcb.milan]
boot_loader = 4
tee = 0
snp = 24
microcode = 219

[minimum_tcb.turin]
fmc = 1
boot_loader = 1
tee = 1
snp = 4
microcode = 80

[guest_policy]
smt = false

[platform_info]
required = ["ecc", "alias-check-complete"]
forbidden = ["smt"]

[mitigations]
launch = 0x3
"#;

#[test]
fn a_requirements_file_is_read() {
    let read: Expectations = toml::from_str(REQUIREMENTS).unwrap();
    assert_eq!(read.products, [Product::Milan, Product::Turin].into());
    assert_eq!(read.signing_keys, [SigningKey::Vcek, SigningKey::Vlek].into());
    assert_eq!(read.revocation, Revocation::StaleAllowed);
    assert!(read.allow_masked_chip_id);
    assert_eq!(read.measurements, Wanted::OneOf([[0x3e; 48]].into()));
    assert_eq!(read.host_data, Wanted::Any);
    assert_eq!(read.report_data, Wanted::Unsaid);
    assert_eq!((read.platform_info.required, read.platform_info.forbidden), (0b10_0100, 1));
    assert_eq!((read.mitigations.launch, read.mitigations.current), (3, 0));
    assert!(!read.guest_policy.smt && !read.guest_policy.debug && !read.guest_policy.migration);
    assert!(read.roots.is_empty());
    assert_eq!(read.minimum_tcb.len(), 2);
    assert_eq!(toml::from_str::<Expectations>("").unwrap(), Expectations::default());
}

#[test]
fn what_a_requirements_file_must_not_have_is_named() {
    for (text, problem) in [
        ("product = [\"genoa\"]", "unknown field `product`"),
        ("products = [\"rome\"]", "unknown product \"rome\""),
        ("signing_keys = [\"none\"]", "unknown signing key \"none\""),
        ("measurements = [\"00\"]", "measurements: wanted 48 bytes in hexadecimal"),
        ("host_data = [\"any\", \"any\"]", "host_data: wanted 32 bytes"),
        ("revocation = \"off\"", "unknown variant `off`"),
        ("[guest_policy]\ndebugging = true", "unknown field `debugging`"),
        ("[platform_info]\nrequired = [\"cold\"]", "unknown platform information \"cold\""),
        (
            "[minimum_tcb.turin]\nsnp = 4",
            "minimum TCB of Turin: wanted fmc, boot_loader, tee, snp, microcode",
        ),
        (
            "[minimum_tcb.venice]\nfmc = 1\ntee = 1\nsnp = 4\nmicrocode = 1",
            "minimum TCB of Venice: wanted fmc, tee, snp",
        ),
        ("[minimum_tcb.genoa]\nsnp = 256", "256"),
        // Whoever writes the file is no root.
        ("[roots]\ngenoa = [\"00\"]", "unknown field `roots`"),
    ] {
        let error = toml::from_str::<Expectations>(text).unwrap_err().to_string();
        assert!(error.contains(problem), "{text}: {error}");
    }
}

#[test]
fn certificates_come_in_der_and_pem_in_any_order() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/milan");
    let [ark, ask] = ["ark.pem", "ask.pem"].map(|name| std::fs::read_to_string(fixtures.join(name)).unwrap());
    let mut collateral = Collateral::default();
    collateral
        .add(format!("AMD's chain\n{ask}\nand its root\n{ark}\n").as_bytes())
        .unwrap();
    assert_eq!(collateral.counts(), (2, 0));
    assert_eq!(amd::collateral("milan").counts(), (3, 0));
    assert_eq!(Case::new(Product::Turin, 5).collateral().counts(), (3, 1));
    // One bad block spoils the file, and nothing of it is kept.
    let broken = format!("{ask}{}", ark.replacen("MII", "!!!", 1));
    assert_eq!(collateral.add(broken.as_bytes()), Err(CollateralError::Pem(2)));
    let cut = &ask[..ask.len() / 2];
    assert_eq!(collateral.add(format!("{ark}{cut}").as_bytes()), Err(CollateralError::Pem(2)));
    assert!(matches!(collateral.add(b""), Err(CollateralError::Kind(_))));
    assert!(matches!(collateral.add(b"\x30\x03\x02\x01\x00"), Err(CollateralError::Kind(_))));
    assert_eq!(
        collateral.add(&vec![0; crate::MAX_COLLATERAL_BYTES + 1]),
        Err(CollateralError::Size)
    );
    assert_eq!(collateral.counts(), (2, 0));
    assert_eq!(collateral.add(ark.repeat(257).as_bytes()), Err(CollateralError::Count));
    // What is there is not added again.
    collateral.add(ark.repeat(256).as_bytes()).unwrap();
    assert_eq!(collateral.counts(), (2, 0));
    let large = Case::new(Product::Turin, 5).leaf_certificate_with(vec![0; 16 << 10]);
    assert_eq!(collateral.add(&large), Err(CollateralError::Document));
    assert_eq!(collateral.counts(), (2, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A damaged certificate is refused, or can be judged.
    #[test]
    fn damaged_certificates_never_panic(at in 0_usize..1360, byte in any::<u8>(), cut in 0_usize..1360) {
        let mut der = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/milan/vcek.der")).unwrap();
        let _ = Collateral::default().add(&der[..cut]);
        der[at] = byte;
        let case = Case::new(Product::Milan, 2);
        let mut collateral = Collateral::default();
        if collateral.add(&der).is_ok() {
            let report = attestation::Report::parse(&case.report()).unwrap();
            let checks = crate::verify(&report, &collateral, crate::Time::from_unix(0), &Expectations::default());
            prop_assert!(!crate::verified(&checks));
        }
    }
}
