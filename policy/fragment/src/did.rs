//! Syntax of `did:x509:0:<algorithm>:<fingerprint>::<condition>[::<condition>…]` (did:x509 method specification, version 0).

use std::collections::BTreeSet;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use thiserror::Error;

use crate::identity::MAX_NAME_BYTES;

/// Maximum number of conditions of one DID, and of attributes of one subject.
const MAX_PARTS: usize = 32;
/// Maximum number of arcs of an object identifier.
const MAX_ARCS: usize = 32;

/// A parsed DID: the certificate authority that must be in the chain, and the conditions that the leaf must meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DidX509 {
    /// Digest algorithm of the fingerprint.
    pub algorithm: FingerprintAlgorithm,
    /// Digest of the DER form of a certificate above the leaf.
    pub fingerprint: Vec<u8>,
    /// At least one; all must be met.
    pub conditions: Vec<Condition>,
}

/// Digest algorithms of fingerprints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FingerprintAlgorithm {
    /// `sha256`
    Sha256,
    /// `sha384`
    Sha384,
    /// `sha512`
    Sha512,
}

impl FingerprintAlgorithm {
    /// Length of its digests in bytes.
    pub fn digest_bytes(self) -> usize {
        match self {
            FingerprintAlgorithm::Sha256 => 32,
            FingerprintAlgorithm::Sha384 => 48,
            FingerprintAlgorithm::Sha512 => 64,
        }
    }
}

/// A condition that the signing certificate must meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Attributes of the subject, each key once.
    Subject(Vec<(SubjectKey, String)>),
    /// A subject alternative name.
    San(SanKind, String),
    /// An extended key usage.
    Eku(Oid),
    /// The issuer extension of Fulcio, without `https://`.
    FulcioIssuer(String),
}

/// An attribute of a subject.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum SubjectKey {
    /// `C`
    Country,
    /// `O`
    Organization,
    /// `OU`
    OrganizationalUnit,
    /// `L`
    Locality,
    /// `S`
    State,
    /// `STREET`
    Street,
    /// `POSTALCODE`
    PostalCode,
    /// `SERIALNUMBER`
    SerialNumber,
    /// `CN`
    CommonName,
    /// Any other, by its identifier.
    Oid(Oid),
}

/// Kinds of subject alternative names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SanKind {
    /// `dns`
    Dns,
    /// `email`
    Email,
    /// `ipaddress`
    IpAddress,
    /// `uri`
    Uri,
}

/// An object identifier as a list of arcs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oid(pub Vec<u64>);

/// Why a text is not a `did:x509`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DidError {
    /// Longer than 8 KiB.
    #[error("DID is longer than {MAX_NAME_BYTES} bytes")]
    TooLong,
    /// Does not begin with `did:x509:0:`.
    #[error("not a did:x509 of version 0")]
    Method,
    /// Unknown digest algorithm.
    #[error("unsupported fingerprint algorithm {0:?}")]
    Algorithm(String),
    /// Not unpadded base64url of the algorithm's length.
    #[error("fingerprint is not an unpadded base64url digest of its algorithm")]
    Fingerprint,
    /// No condition, or too many.
    #[error("a did:x509 has between 1 and {MAX_PARTS} conditions")]
    Conditions,
    /// A condition of unknown kind.
    #[error("unsupported condition {0:?}")]
    Condition(String),
    /// A subject without keys, with a key without value, or an unknown or repeated key.
    #[error("subject condition: {0}")]
    Subject(String),
    /// An unknown kind of alternative name.
    #[error("unsupported kind of subject alternative name {0:?}")]
    San(String),
    /// Not dotted numbers.
    #[error("{0:?} is not an object identifier")]
    Oid(String),
    /// A value with a broken percent sequence, or not UTF-8 when decoded.
    #[error("value {0:?} is not percent-encoded text")]
    Encoding(String),
}

impl FromStr for DidX509 {
    type Err = DidError;

    fn from_str(text: &str) -> Result<Self, DidError> {
        if text.len() > MAX_NAME_BYTES {
            return Err(DidError::TooLong);
        }
        let mut parts = text.split("::");
        let authority = parts
            .next()
            .and_then(|first| first.strip_prefix("did:x509:0:"))
            .ok_or(DidError::Method)?;
        let (algorithm, fingerprint) = authority.split_once(':').ok_or(DidError::Fingerprint)?;
        let algorithm = match algorithm {
            "sha256" => FingerprintAlgorithm::Sha256,
            "sha384" => FingerprintAlgorithm::Sha384,
            "sha512" => FingerprintAlgorithm::Sha512,
            other => return Err(DidError::Algorithm(other.to_owned())),
        };
        let fingerprint = URL_SAFE_NO_PAD.decode(fingerprint).map_err(|_| DidError::Fingerprint)?;
        if fingerprint.len() != algorithm.digest_bytes() {
            return Err(DidError::Fingerprint);
        }
        let conditions = parts.take(MAX_PARTS + 1).map(condition).collect::<Result<Vec<_>, _>>()?;
        if conditions.is_empty() || conditions.len() > MAX_PARTS {
            return Err(DidError::Conditions);
        }
        Ok(Self {
            algorithm,
            fingerprint,
            conditions,
        })
    }
}

fn condition(text: &str) -> Result<Condition, DidError> {
    let (kind, arguments) = text.split_once(':').ok_or_else(|| DidError::Condition(text.to_owned()))?;
    match kind {
        "subject" => subject(arguments),
        "san" => {
            let (kind, value) = arguments.split_once(':').ok_or_else(|| DidError::San(arguments.to_owned()))?;
            let kind = match kind {
                "dns" => SanKind::Dns,
                "email" => SanKind::Email,
                "ipaddress" => SanKind::IpAddress,
                "uri" => SanKind::Uri,
                other => return Err(DidError::San(other.to_owned())),
            };
            Ok(Condition::San(kind, decoded(single(value, text)?)?))
        }
        "eku" => Ok(Condition::Eku(arguments.parse()?)),
        "fulcio-issuer" => Ok(Condition::FulcioIssuer(decoded(single(arguments, text)?)?)),
        other => Err(DidError::Condition(other.to_owned())),
    }
}

/// A value that ends its condition.
fn single<'a>(value: &'a str, condition: &str) -> Result<&'a str, DidError> {
    if value.is_empty() || value.contains(':') {
        Err(DidError::Condition(condition.to_owned()))
    } else {
        Ok(value)
    }
}

fn subject(arguments: &str) -> Result<Condition, DidError> {
    let fields: Vec<&str> = arguments.split(':').take(2 * MAX_PARTS + 1).collect();
    if !fields.len().is_multiple_of(2) || fields.len() > 2 * MAX_PARTS {
        return Err(DidError::Subject("keys and values must come in pairs".to_owned()));
    }
    let mut seen = BTreeSet::new();
    let mut attributes = Vec::with_capacity(fields.len() / 2);
    for pair in fields.chunks_exact(2) {
        let &[key, value] = pair else { continue };
        if !seen.insert(key) {
            return Err(DidError::Subject(format!("key {key:?} is given twice")));
        }
        attributes.push((subject_key(key)?, decoded(value)?));
    }
    Ok(Condition::Subject(attributes))
}

fn subject_key(key: &str) -> Result<SubjectKey, DidError> {
    Ok(match key {
        "C" => SubjectKey::Country,
        "O" => SubjectKey::Organization,
        "OU" => SubjectKey::OrganizationalUnit,
        "L" => SubjectKey::Locality,
        "S" => SubjectKey::State,
        "STREET" => SubjectKey::Street,
        "POSTALCODE" => SubjectKey::PostalCode,
        "SERIALNUMBER" => SubjectKey::SerialNumber,
        "CN" => SubjectKey::CommonName,
        other => SubjectKey::Oid(other.parse().map_err(|_| DidError::Subject(format!("unknown key {other:?}")))?),
    })
}

impl FromStr for Oid {
    type Err = DidError;

    fn from_str(text: &str) -> Result<Self, DidError> {
        let wrong = || DidError::Oid(text.to_owned());
        let arcs = text.split('.').take(MAX_ARCS + 1).map(|arc| {
            let plain = arc.bytes().all(|b| b.is_ascii_digit()) && (arc.len() == 1 || !arc.starts_with('0'));
            plain.then(|| arc.parse().ok()).flatten().ok_or_else(wrong)
        });
        let arcs: Vec<u64> = arcs.collect::<Result<_, _>>()?;
        match arcs.as_slice() {
            [root, second, ..] if *root <= 2 && (*root == 2 || *second < 40) && arcs.len() <= MAX_ARCS => Ok(Self(arcs)),
            _ => Err(wrong()),
        }
    }
}

/// Decodes percent-encoding; a plus sign is a blank, as in hcsshim.
fn decoded(text: &str) -> Result<String, DidError> {
    let wrong = || DidError::Encoding(text.to_owned());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || {
                    rest.next()
                        .and_then(|b| char::from(b).to_digit(16))
                        .and_then(|d| u8::try_from(d).ok())
                };
                let (high, low) = (digit().ok_or_else(wrong)?, digit().ok_or_else(wrong)?);
                high << 4 | low
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests;
