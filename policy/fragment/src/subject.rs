//! Attributes of a certificate's subject.

use x509_cert::Certificate;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Tag, Tagged};

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// The subject's attributes, in order.
pub(crate) fn attributes(certificate: &Certificate) -> impl Iterator<Item = &AttributeTypeAndValue> {
    let names = &certificate.tbs_certificate.subject.0;
    names.iter().flat_map(|name| name.0.iter())
}

/// The first common name.
pub(crate) fn common_name(certificate: &Certificate) -> Option<&str> {
    attributes(certificate)
        .find(|attribute| attribute.oid == COMMON_NAME)
        .and_then(text)
}

/// The value of an attribute, if it is a UTF-8, printable or IA5 string.
pub(crate) fn text(attribute: &AttributeTypeAndValue) -> Option<&str> {
    match attribute.value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String => std::str::from_utf8(attribute.value.value()).ok(),
        _ => None,
    }
}
