//! What an endorsement key's certificate says about chip and TCB, compared with the report byte for byte (57230, table of extensions).

use crate::certificate::Certificate;
use crate::check::Check;
use attestation::{Part, Product, Report, SigningKey};
use x509_cert::der::Decode;
use x509_cert::der::asn1::{Ia5StringRef, ObjectIdentifier};

const PRODUCT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.2");
const HARDWARE_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.4");
/// Levels that no product uses.
const UNUSED: [ObjectIdentifier; 4] = [
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.4"),
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.5"),
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.6"),
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.7"),
];
const PARTS: [(Part, ObjectIdentifier); 5] = [
    (Part::BootLoader, ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.1")),
    (Part::Tee, ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.2")),
    (Part::Snp, ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.3")),
    (Part::Microcode, ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.8")),
    (Part::Fmc, ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.3.9")),
];

/// The product that a certificate names.
pub(crate) fn product(endorsement: &Certificate) -> Option<Product> {
    let value = endorsement.extension(PRODUCT_NAME).ok()??;
    Product::named(Ia5StringRef::from_der(value).ok()?.as_str())
}

/// Whether the key was derived from the TCB that the report names.
pub(crate) fn tcb(report: &Report, endorsement: Option<&Certificate>, product: Option<Product>) -> Check {
    const NAME: &str = "certificate TCB";
    let Some(product) = product else {
        return Check::impossible(NAME, "product unknown", format!("reported TCB {}", report.reported_tcb()));
    };
    let wanted = report.reported_tcb().shown(product);
    let Some(endorsement) = endorsement else {
        return Check::impossible(NAME, "no certificate", wanted);
    };
    let level = |part: Part| report.reported_tcb().parts(product).find(|(known, _)| *known == part);
    let mut problems = Vec::new();
    for (part, oid) in PARTS {
        let seen = endorsement.extension(oid);
        let fits = match (&seen, level(part)) {
            (Ok(Some(value)), Some((_, level))) => *value == integer(level),
            // A part that the product does not have.
            (Ok(value), None) => value.is_none_or(|value| value == integer(0)),
            (Ok(None), Some(_)) | (Err(_), _) => false,
        };
        if !fits {
            let shown = match seen {
                Ok(Some(value)) => shown(value),
                Ok(None) => "missing".to_owned(),
                Err(_) => "there twice".to_owned(),
            };
            problems.push(format!("{} {shown}", part.name()));
        }
    }
    let unused = |oid: &ObjectIdentifier| matches!(endorsement.extension(*oid), Ok(value) if value.is_none_or(|value| value == integer(0)));
    if !UNUSED.iter().all(unused) {
        problems.push("a level that no product uses is set".to_owned());
    }
    let seen = if problems.is_empty() { wanted.clone() } else { problems.join(", ") };
    Check::new(NAME, problems.is_empty(), seen, wanted)
}

/// Whether the key is that of the chip that the report names.
pub(crate) fn chip(report: &Report, endorsement: Option<&Certificate>, product: Option<Product>, allow_masked: bool) -> Check {
    const NAME: &str = "chip id";
    let (Some(product), Some(endorsement)) = (product, endorsement) else {
        return Check::impossible(NAME, "product or certificate unknown", "the certificate's chip");
    };
    let hardware = endorsement.extension(HARDWARE_ID);
    let chip = report.chip_id();
    let masked = chip.iter().all(|byte| *byte == 0);
    if masked && !allow_masked {
        return Check::new(NAME, false, "masked", "not masked (allow_masked_chip_id)");
    }
    if report.signing_key() == SigningKey::Vlek {
        // A loaded key is the provider's, not the chip's.
        let passed = hardware == Ok(None);
        return Check::new(NAME, passed, if passed { "not in a VLEK" } else { "in a VLEK" }, "none in a VLEK");
    }
    if masked {
        return Check::new(NAME, true, "masked", "a chip, or masked");
    }
    let (id, rest) = chip.split_at(product.chip_id_bytes());
    let wanted = match hardware {
        // Either the bytes themselves, as AMD issues them, or an OCTET STRING of them, as 57230 has it.
        Ok(Some(value)) => value
            .strip_prefix([4, product.chip_id_bytes() as u8].as_slice())
            .filter(|bytes| bytes.len() == id.len())
            .unwrap_or(value),
        _ => return Check::impossible(NAME, "not in the certificate, or there twice", hex::encode(id)),
    };
    let passed = wanted == id && rest.iter().all(|byte| *byte == 0);
    let wanted = hex::encode(&wanted[..wanted.len().min(64)]);
    let length = if rest.iter().all(|byte| *byte == 0) { id.len() } else { chip.len() };
    Check::new(NAME, passed, hex::encode(&chip[..length]), wanted)
}

/// The DER of an INTEGER of one byte's value.
fn integer(level: u8) -> Vec<u8> {
    match level {
        0..=0x7f => vec![2, 1, level],
        _ => vec![2, 2, 0, level],
    }
}

/// An extension's value: the level if it is one, else its bytes.
fn shown(value: &[u8]) -> String {
    match value {
        [2, 1, level @ 0..=0x7f] | [2, 2, 0, level @ 0x80..=0xff] => level.to_string(),
        _ => format!("in bytes {}", hex::encode(&value[..value.len().min(16)])),
    }
}
