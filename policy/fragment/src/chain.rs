//! A certificate chain: each certificate is signed by the next, and a DID names the fingerprint of one above the leaf.
//!
//! As in hcsshim, the current time is not used: every certificate must be valid when the leaf expires. Any extended key usage is
//! accepted. Stricter than hcsshim, the chain must be in order, must have two certificates, and must not have name constraints,
//! which are not implemented.

use rsa::pkcs1::RsaPssParams;
use thiserror::Error;
use x509_cert::Certificate;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};
use x509_cert::spki::AlgorithmIdentifierOwned;

use crate::key::{Algorithm, Hash, KeyError, PublicKey};
use crate::subject;

/// Maximum number of certificates of a chain.
pub const MAX_CERTIFICATES: usize = 100;
/// Largest certificate in bytes.
pub const MAX_CERTIFICATE_BYTES: usize = 64 << 10;

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// Key and signature alike (RFC 8410).
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
const NAME_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.30");

/// Digest identifiers (RFC 5754).
const HASHES: [(ObjectIdentifier, Hash); 3] = [
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1"), Hash::Sha256),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2"), Hash::Sha384),
    (ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3"), Hash::Sha512),
];

/// Signature algorithms of certificates, except RSASSA-PSS, which has its digest in its parameters. SHA-1 and MD5 are not supported.
const SIGNATURES: [(ObjectIdentifier, Algorithm); 7] = [
    (
        ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2"),
        Algorithm::EcdsaDer(Hash::Sha256),
    ),
    (
        ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3"),
        Algorithm::EcdsaDer(Hash::Sha384),
    ),
    (
        ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.4"),
        Algorithm::EcdsaDer(Hash::Sha512),
    ),
    (
        ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11"),
        Algorithm::Pkcs1(Hash::Sha256),
    ),
    (
        ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.12"),
        Algorithm::Pkcs1(Hash::Sha384),
    ),
    (
        ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.13"),
        Algorithm::Pkcs1(Hash::Sha512),
    ),
    (ED25519, Algorithm::Ed25519),
];

/// Extensions that may be critical: implemented here, or irrelevant outside TLS.
const UNDERSTOOD: [ObjectIdentifier; 4] = [
    ObjectIdentifier::new_unwrap("2.5.29.15"), // key usage
    ObjectIdentifier::new_unwrap("2.5.29.17"), // subject alternative name
    ObjectIdentifier::new_unwrap("2.5.29.19"), // basic constraints
    ObjectIdentifier::new_unwrap("2.5.29.37"), // extended key usage
];

/// Why certificates are not a valid chain. Certificates are counted from the leaf, which is 0.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChainError {
    /// Fewer than 2 certificates, or more than [`MAX_CERTIFICATES`].
    #[error("a chain has between 2 and {MAX_CERTIFICATES} certificates, not {0}")]
    Length(usize),
    /// Too large, or not X.509 in DER.
    #[error("certificate {0} is malformed")]
    Malformed(usize),
    /// The public key is not usable.
    #[error("certificate {0}")]
    Key(usize, #[source] KeyError),
    /// The signature algorithm is unknown or outdated.
    #[error("certificate {0} is signed with an unsupported algorithm")]
    Algorithm(usize),
    /// Not signed by the next certificate.
    #[error("certificate {0} is not signed by certificate {next}", next = .0 + 1)]
    Signature(usize, #[source] KeyError),
    /// Issued by another authority.
    #[error("certificate {0} does not name certificate {next} as its issuer", next = .0 + 1)]
    Issuer(usize),
    /// Not valid at the time the leaf expires.
    #[error("certificate {0} is not valid when the leaf expires")]
    Validity(usize),
    /// An issuer that must not issue certificates.
    #[error("certificate {0} is not a certificate authority for a chain of this length")]
    Authority(usize),
    /// A critical extension that is not implemented.
    #[error("certificate {0} has critical extension {1}, which is not supported")]
    Critical(usize, String),
    /// The key usage of the leaf excludes signatures.
    #[error("the leaf's key usage has neither digitalSignature nor keyAgreement")]
    LeafUsage,
}

/// A verified chain, leaf first.
#[derive(Debug, Clone)]
pub struct Chain {
    certificates: Vec<Certificate>,
    der: Vec<Vec<u8>>,
    leaf_key: PublicKey,
}

impl Chain {
    /// Verifies certificates in DER form, leaf first.
    ///
    /// # Errors
    /// One is not signed by the next, or does not meet the requirements.
    pub fn verify(der: &[Vec<u8>]) -> Result<Self, ChainError> {
        if !(2..=MAX_CERTIFICATES).contains(&der.len()) {
            return Err(ChainError::Length(der.len()));
        }
        let parse = |(index, bytes): (usize, &Vec<u8>)| {
            let sized = bytes.len() <= MAX_CERTIFICATE_BYTES;
            let parsed = sized.then(|| Certificate::from_der(bytes).ok()).flatten();
            parsed.ok_or(ChainError::Malformed(index))
        };
        let certificates: Vec<Certificate> = der.iter().enumerate().map(parse).collect::<Result<_, _>>()?;
        let keys: Vec<PublicKey> = certificates
            .iter()
            .enumerate()
            .map(|(index, certificate)| public_key(certificate).map_err(|cause| ChainError::Key(index, cause)))
            .collect::<Result<_, _>>()?;
        let leaf = certificates.first().ok_or(ChainError::Length(0))?;
        let expiry = leaf.tbs_certificate.validity.not_after.to_unix_duration();
        for (index, certificate) in certificates.iter().enumerate() {
            let validity = &certificate.tbs_certificate.validity;
            if !(validity.not_before.to_unix_duration()..=validity.not_after.to_unix_duration()).contains(&expiry) {
                return Err(ChainError::Validity(index));
            }
            extensions(certificate, index)?;
            if index == 0 {
                leaf_usage(certificate)?;
            } else {
                authority(certificate, index)?;
            }
            if let (Some(issuer), Some(key)) = (certificates.get(index + 1), keys.get(index + 1)) {
                signed_by(certificate, index, issuer, key)?;
            }
        }
        let leaf_key = keys.into_iter().next().ok_or(ChainError::Length(0))?;
        Ok(Self {
            certificates,
            der: der.to_vec(),
            leaf_key,
        })
    }

    /// The signer's certificate.
    pub fn leaf(&self) -> &Certificate {
        // A chain has at least two certificates; indexing cannot fail.
        &self.certificates[0]
    }

    /// Common name of the leaf, if it has one that is text.
    pub fn common_name(&self) -> Option<&str> {
        subject::common_name(self.leaf())
    }

    /// The signer's key.
    pub(crate) fn leaf_key(&self) -> &PublicKey {
        &self.leaf_key
    }

    /// The certificates above the leaf in DER form, anchor last.
    pub fn authorities(&self) -> impl Iterator<Item = &[u8]> {
        self.der.iter().skip(1).map(Vec::as_slice)
    }
}

fn signed_by(certificate: &Certificate, index: usize, issuer: &Certificate, key: &PublicKey) -> Result<(), ChainError> {
    if certificate.tbs_certificate.issuer != issuer.tbs_certificate.subject {
        return Err(ChainError::Issuer(index));
    }
    let algorithm = &certificate.signature_algorithm;
    let verified_with = algorithm_of(algorithm).ok_or(ChainError::Algorithm(index))?;
    if certificate.tbs_certificate.signature != *algorithm {
        return Err(ChainError::Algorithm(index));
    }
    let signed = certificate.tbs_certificate.to_der().map_err(|_| ChainError::Malformed(index))?;
    let signature = certificate.signature.as_bytes().ok_or(ChainError::Malformed(index))?;
    key.verify(verified_with, &signed, signature)
        .map_err(|cause| ChainError::Signature(index, cause))
}

fn algorithm_of(algorithm: &AlgorithmIdentifierOwned) -> Option<Algorithm> {
    if algorithm.oid != RSA_PSS {
        let known = SIGNATURES.iter().find(|(oid, _)| *oid == algorithm.oid);
        return known.map(|(_, known)| *known);
    }
    // Salt length and mask digest must correspond to the digest, else the signature does not verify.
    let der = algorithm.parameters.as_ref()?.to_der().ok()?;
    let parameters = RsaPssParams::try_from(der.as_slice()).ok()?;
    let known = HASHES.iter().find(|(oid, _)| *oid == parameters.hash.oid);
    known.map(|(_, hash)| Algorithm::Pss(*hash))
}

fn public_key(certificate: &Certificate) -> Result<PublicKey, KeyError> {
    let info = &certificate.tbs_certificate.subject_public_key_info;
    let bits = info.subject_public_key.as_bytes().ok_or(KeyError::Malformed)?;
    match info.algorithm.oid {
        RSA_ENCRYPTION => PublicKey::rsa_pkcs1(bits),
        ED25519 => PublicKey::ed25519(bits),
        EC_PUBLIC_KEY => match info.algorithm.parameters.as_ref().map(|any| any.decode_as::<ObjectIdentifier>()) {
            Some(Ok(P256)) => PublicKey::p256(bits),
            Some(Ok(P384)) => PublicKey::p384(bits),
            Some(Ok(P521)) => PublicKey::p521(bits),
            Some(Ok(other)) => Err(KeyError::Kind(format!("curve {other}"))),
            _ => Err(KeyError::Malformed),
        },
        other => Err(KeyError::Kind(format!("algorithm {other}"))),
    }
}

fn extensions(certificate: &Certificate, index: usize) -> Result<(), ChainError> {
    for extension in certificate.tbs_certificate.extensions.iter().flatten() {
        let known = UNDERSTOOD.contains(&extension.extn_id);
        if (extension.critical && !known) || extension.extn_id == NAME_CONSTRAINTS {
            return Err(ChainError::Critical(index, extension.extn_id.to_string()));
        }
    }
    Ok(())
}

fn leaf_usage(leaf: &Certificate) -> Result<(), ChainError> {
    match leaf.tbs_certificate.get::<KeyUsage>() {
        Ok(None) => Ok(()),
        Ok(Some((_, KeyUsage(usages)))) if usages.contains(KeyUsages::DigitalSignature) || usages.contains(KeyUsages::KeyAgreement) => {
            Ok(())
        }
        Ok(Some(_)) => Err(ChainError::LeafUsage),
        Err(_) => Err(ChainError::Malformed(0)),
    }
}

fn authority(certificate: &Certificate, index: usize) -> Result<(), ChainError> {
    let malformed = |_| ChainError::Malformed(index);
    let tbs = &certificate.tbs_certificate;
    let (_, constraints) = tbs
        .get::<BasicConstraints>()
        .map_err(malformed)?
        .ok_or(ChainError::Authority(index))?;
    let usage = tbs.get::<KeyUsage>().map_err(malformed)?;
    let below = index - 1;
    let long_enough = constraints.path_len_constraint.is_none_or(|most| below <= usize::from(most));
    let may_sign = usage.is_none_or(|(_, KeyUsage(usages))| usages.contains(KeyUsages::KeyCertSign));
    if constraints.ca && long_enough && may_sign {
        Ok(())
    } else {
        Err(ChainError::Authority(index))
    }
}
