//! One certificate of AMD's: parsed once, with the exact bytes that its issuer signed.

use crate::time::Time;
use rsa::pkcs1::{DecodeRsaPublicKey, RsaPssParams};
use rsa::traits::PublicKeyParts;
use rsa::{Pss, RsaPublicKey};
use sha2::{Digest, Sha256, Sha384};
use x509_cert::der::asn1::{ObjectIdentifier, PrintableStringRef, Utf8StringRef};
use x509_cert::der::{Decode, Encode, Reader, SliceReader};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};
use x509_cert::ext::{Extension, Extensions};
use x509_cert::name::Name;
use x509_cert::spki::AlgorithmIdentifierOwned;

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const MGF1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.8");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");

/// Characters of a name that are shown; AMD's have at most 15.
const MAX_SHOWN: usize = 64;
/// The length of the salt in AMD's signatures: that of the digest.
const SALT_BYTES: u8 = 48;
/// AMD's keys have 4096 bits. Shorter ones are for tests; verification time grows with the cube of longer ones.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// Why bytes, or a signature over them, are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not X.509 in DER.
    #[error("not in DER, or no X.509")]
    Malformed,
    /// Not RSASSA-PSS with SHA-384, MGF1 with SHA-384 and a salt of 48 bytes.
    #[error("not signed with RSASSA-PSS, SHA-384 and a salt of {SALT_BYTES} bytes")]
    Algorithm,
    /// The issuer's key cannot sign certificates.
    #[error("the issuer's key is not RSA of 2048 to 4096 bits")]
    IssuerKey,
    /// Another issuer is named.
    #[error("names another issuer")]
    Issuer,
    /// A critical extension that nobody here understands.
    #[error("a critical extension is unknown")]
    Critical,
    /// The signature does not verify.
    #[error("signature does not verify")]
    Signature,
}

/// A certificate, whose claims are untrusted until its chain is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificate {
    parsed: x509_cert::Certificate,
    signed: Vec<u8>,
}

impl Certificate {
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let parsed = x509_cert::Certificate::from_der(der).map_err(|_| CertificateError::Malformed)?;
        let signed = first_member(der).ok_or(CertificateError::Malformed)?;
        Ok(Self { parsed, signed })
    }

    pub fn subject(&self) -> &Name {
        &self.parsed.tbs_certificate.subject
    }

    pub fn issuer(&self) -> &Name {
        &self.parsed.tbs_certificate.issuer
    }

    pub fn serial(&self) -> &[u8] {
        self.parsed.tbs_certificate.serial_number.as_bytes()
    }

    /// Common name of the subject; empty if it has none, several, or one that is no text.
    pub fn common_name(&self) -> String {
        common_name(self.subject())
    }

    /// The start of its common name, safe for a terminal.
    pub fn shown_name(&self) -> String {
        self.common_name().chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect()
    }

    /// SHA-256 of the SubjectPublicKeyInfo.
    pub fn key_digest(&self) -> [u8; 32] {
        let info = self.parsed.tbs_certificate.subject_public_key_info.to_der();
        // What was decoded can be encoded; the digest of nothing is no key's.
        Sha256::digest(info.unwrap_or_default()).into()
    }

    /// Its key, if that is ECDSA on P-384.
    pub fn p384_key(&self) -> Option<p384::ecdsa::VerifyingKey> {
        let info = &self.parsed.tbs_certificate.subject_public_key_info;
        let curve = info.algorithm.parameters.as_ref()?.decode_as::<ObjectIdentifier>().ok()?;
        let point = info.subject_public_key.as_bytes()?;
        let fits = info.algorithm.oid == EC_PUBLIC_KEY && curve == P384;
        fits.then(|| p384::ecdsa::VerifyingKey::from_sec1_bytes(point).ok()).flatten()
    }

    pub fn valid_at(&self, now: Time) -> bool {
        let (from, until) = self.validity();
        (from..=until).contains(&now)
    }

    pub fn validity(&self) -> (Time, Time) {
        let validity = &self.parsed.tbs_certificate.validity;
        (Time::of(validity.not_before), Time::of(validity.not_after))
    }

    /// The value of the one extension of this kind: `Err` if there are several.
    pub fn extension(&self, oid: ObjectIdentifier) -> Result<Option<&[u8]>, CertificateError> {
        let mut found = extensions(&self.parsed.tbs_certificate.extensions).filter(|extension| extension.extn_id == oid);
        match (found.next(), found.next()) {
            (_, Some(_)) => Err(CertificateError::Malformed),
            (extension, None) => Ok(extension.map(|extension| extension.extn_value.as_bytes())),
        }
    }

    /// Whether it has a critical extension that nobody here understands.
    pub fn unknown_critical(&self) -> bool {
        extensions(&self.parsed.tbs_certificate.extensions)
            .any(|extension| extension.critical && ![BASIC_CONSTRAINTS, KEY_USAGE].contains(&extension.extn_id))
    }

    /// Whether it may issue certificates, with `below` authorities between it and the endorsement key.
    pub fn is_authority(&self, below: u8) -> bool {
        let tbs = &self.parsed.tbs_certificate;
        let (Ok(Some((_, constraints))), Ok(usage)) = (tbs.get::<BasicConstraints>(), tbs.get::<KeyUsage>()) else {
            return false;
        };
        let long_enough = constraints.path_len_constraint.is_none_or(|most| below <= most);
        let may_sign = usage.is_none_or(|(_, KeyUsage(usages))| usages.contains(KeyUsages::KeyCertSign));
        constraints.ca && long_enough && may_sign
    }

    /// Whether it says that it is an authority.
    pub fn claims_authority(&self) -> bool {
        !matches!(
            self.parsed.tbs_certificate.get::<BasicConstraints>(),
            Ok(None | Some((_, BasicConstraints { ca: false, .. })))
        )
    }

    /// Verifies that `issuer` signed this certificate.
    pub fn signed_by(&self, issuer: &Certificate) -> Result<(), CertificateError> {
        if self.issuer() != issuer.subject() {
            return Err(CertificateError::Issuer);
        }
        let signature = self.parsed.signature.as_bytes().ok_or(CertificateError::Malformed)?;
        let algorithms = [&self.parsed.signature_algorithm, &self.parsed.tbs_certificate.signature];
        issuer.verify(algorithms, &self.signed, signature)
    }

    /// Verifies a signature that this certificate's key made; the algorithm is named outside and inside of what is signed.
    pub fn verify(&self, algorithms: [&AlgorithmIdentifierOwned; 2], signed: &[u8], signature: &[u8]) -> Result<(), CertificateError> {
        let [outer, inner] = algorithms;
        if outer != inner || !is_amds_pss(outer) {
            return Err(CertificateError::Algorithm);
        }
        let key = self.rsa_key().ok_or(CertificateError::IssuerKey)?;
        let scheme = Pss::new_with_salt::<Sha384>(usize::from(SALT_BYTES));
        key.verify(scheme, &Sha384::digest(signed), signature)
            .map_err(|_| CertificateError::Signature)
    }

    fn rsa_key(&self) -> Option<RsaPublicKey> {
        let info = &self.parsed.tbs_certificate.subject_public_key_info;
        let bytes = info
            .subject_public_key
            .as_bytes()
            .filter(|_| info.algorithm.oid == RSA_ENCRYPTION)?;
        let key = RsaPublicKey::from_pkcs1_der(bytes).ok()?;
        RSA_BITS.contains(&key.n().bits()).then_some(key)
    }
}

/// The first member of a DER sequence, header included: the part of certificates and revocation lists that is signed.
pub(crate) fn first_member(der: &[u8]) -> Option<Vec<u8>> {
    let mut reader = SliceReader::new(der).ok()?;
    let signed = reader.sequence(|members| {
        let first = members.tlv_bytes()?.to_vec();
        while !members.is_finished() {
            members.tlv_bytes()?;
        }
        Ok(first)
    });
    signed.ok()
}

/// Common name of a distinguished name; empty if it has none, several, or one that is no text.
pub(crate) fn common_name(name: &Name) -> String {
    let attributes = name.0.iter().flat_map(|relative| relative.0.iter());
    let mut values = attributes.filter(|attribute| attribute.oid == COMMON_NAME);
    let (Some(attribute), None) = (values.next(), values.next()) else {
        return String::new();
    };
    let utf8 = attribute.value.decode_as::<Utf8StringRef>().map(|text| text.as_str().to_owned());
    let printable = || {
        attribute
            .value
            .decode_as::<PrintableStringRef>()
            .map(|text| text.as_str().to_owned())
    };
    utf8.or_else(|_| printable()).unwrap_or_default()
}

/// The extensions of a certificate, a list or an entry of one.
pub(crate) fn extensions(extensions: &Option<Extensions>) -> impl Iterator<Item = &Extension> {
    extensions.iter().flatten()
}

fn is_amds_pss(algorithm: &AlgorithmIdentifierOwned) -> bool {
    let parameters = algorithm.parameters.as_ref().and_then(|any| any.to_der().ok());
    let Some(Ok(parameters)) = parameters.as_deref().map(RsaPssParams::try_from) else {
        return false;
    };
    let mask_digest = parameters.mask_gen.parameters.map(|digest| digest.oid);
    algorithm.oid == RSA_PSS
        && parameters.hash.oid == SHA384
        && parameters.mask_gen.oid == MGF1
        && mask_digest == Some(SHA384)
        && parameters.salt_len == SALT_BYTES
}
