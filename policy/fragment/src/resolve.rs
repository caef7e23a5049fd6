//! Resolution of a DID: an authority of the chain has its fingerprint, and the leaf meets every condition.

use std::net::{Ipv4Addr, Ipv6Addr};

use sha2::{Digest, Sha256, Sha384, Sha512};
use thiserror::Error;
use x509_cert::Certificate;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{ExtendedKeyUsage, SubjectAltName};

use crate::chain::Chain;
use crate::did::{Condition, DidX509, FingerprintAlgorithm, Oid, SanKind, SubjectKey};
use crate::subject;

/// Extension with the identity provider of Fulcio, as plain text.
const FULCIO_ISSUER: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.1");

/// Why a chain does not match a DID.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ResolveError {
    /// No certificate above the leaf has the fingerprint.
    #[error("no certificate authority of the chain has the DID's fingerprint")]
    Fingerprint,
    /// The leaf does not meet a condition.
    #[error("the leaf does not have {0} of the DID")]
    Condition(&'static str),
}

impl DidX509 {
    /// Verifies that the chain matches this DID.
    ///
    /// # Errors
    /// No authority has the fingerprint, or the leaf does not meet a condition.
    pub fn prove(&self, chain: &Chain) -> Result<(), ResolveError> {
        if !chain.authorities().any(|der| self.algorithm.digest(der) == self.fingerprint) {
            return Err(ResolveError::Fingerprint);
        }
        self.conditions.iter().try_for_each(|condition| {
            let (shown, what) = match condition {
                Condition::Subject(attributes) => (
                    attributes.iter().all(|(key, value)| has_attribute(chain.leaf(), key, value)),
                    "the subject",
                ),
                Condition::San(kind, value) => (has_name(chain.leaf(), *kind, value), "the subject alternative name"),
                Condition::Eku(oid) => (has_usage(chain.leaf(), oid), "the extended key usage"),
                Condition::FulcioIssuer(host) => (is_from(chain.leaf(), host), "the Fulcio issuer"),
            };
            shown.then_some(()).ok_or(ResolveError::Condition(what))
        })
    }
}

impl FingerprintAlgorithm {
    /// The fingerprint of a certificate in DER form.
    pub fn digest(self, der: &[u8]) -> Vec<u8> {
        match self {
            FingerprintAlgorithm::Sha256 => Sha256::digest(der).to_vec(),
            FingerprintAlgorithm::Sha384 => Sha384::digest(der).to_vec(),
            FingerprintAlgorithm::Sha512 => Sha512::digest(der).to_vec(),
        }
    }
}

fn same_oid(oid: &ObjectIdentifier, text: &Oid) -> bool {
    oid.arcs().map(u64::from).eq(text.0.iter().copied())
}

fn has_attribute(leaf: &Certificate, key: &SubjectKey, value: &str) -> bool {
    let wanted = |oid: &ObjectIdentifier| match key {
        SubjectKey::CommonName => oid.to_string() == "2.5.4.3",
        SubjectKey::SerialNumber => oid.to_string() == "2.5.4.5",
        SubjectKey::Country => oid.to_string() == "2.5.4.6",
        SubjectKey::Locality => oid.to_string() == "2.5.4.7",
        SubjectKey::State => oid.to_string() == "2.5.4.8",
        SubjectKey::Street => oid.to_string() == "2.5.4.9",
        SubjectKey::Organization => oid.to_string() == "2.5.4.10",
        SubjectKey::OrganizationalUnit => oid.to_string() == "2.5.4.11",
        SubjectKey::PostalCode => oid.to_string() == "2.5.4.17",
        SubjectKey::Oid(wanted) => same_oid(oid, wanted),
    };
    subject::attributes(leaf).any(|attribute| wanted(&attribute.oid) && subject::text(attribute) == Some(value))
}

fn has_name(leaf: &Certificate, kind: SanKind, value: &str) -> bool {
    let Ok(Some((_, SubjectAltName(names)))) = leaf.tbs_certificate.get::<SubjectAltName>() else {
        return false;
    };
    names.iter().any(|name| match (kind, name) {
        (SanKind::Dns, GeneralName::DnsName(name)) => name.as_str() == value,
        (SanKind::Email, GeneralName::Rfc822Name(name)) => name.as_str() == value,
        (SanKind::Uri, GeneralName::UniformResourceIdentifier(name)) => name.as_str() == value,
        (SanKind::IpAddress, GeneralName::IpAddress(address)) => address_text(address.as_bytes()).is_some_and(|text| text == value),
        _ => false,
    })
}

fn address_text(bytes: &[u8]) -> Option<String> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|octets| Ipv4Addr::from(octets).to_string()),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).to_string()),
        _ => None,
    }
}

/// Every usage of the certificate counts; hcsshim sees only those that its X.509 library has no name for.
fn has_usage(leaf: &Certificate, oid: &Oid) -> bool {
    match leaf.tbs_certificate.get::<ExtendedKeyUsage>() {
        Ok(Some((_, ExtendedKeyUsage(usages)))) => usages.iter().any(|usage| same_oid(usage, oid)),
        _ => false,
    }
}

fn is_from(leaf: &Certificate, host: &str) -> bool {
    let mut extensions = leaf.tbs_certificate.extensions.iter().flatten();
    extensions
        .any(|extension| extension.extn_id == FULCIO_ISSUER && extension.extn_value.as_bytes() == format!("https://{host}").as_bytes())
}
