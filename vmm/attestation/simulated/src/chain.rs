//! Certificates from a root to the chip's key, and a revocation list without entries, as AMD's key server gives them.

use crate::{CHIP_ID, EndorsementKey, LEVEL, PRODUCT, random::Random, table};
use attestation::Part;
use p384::ecdsa::SigningKey;
use rsa::{
    Pss, RsaPrivateKey,
    pkcs1::{EncodeRsaPublicKey, RsaPssParams},
    rand_core::CryptoRngCore,
};
use sha2::{Digest, Sha384};
use std::{str::FromStr, time::Duration};
use x509_cert::{
    Certificate, TbsCertificate, Version,
    crl::{CertificateList, TbsCertList},
    der::{
        Decode, Encode, EncodePem,
        asn1::{Any, BitString, Ia5StringRef, Null, ObjectIdentifier, OctetString, UtcTime},
        flagset::FlagSet,
        pem::LineEnding,
    },
    ext::{
        Extension,
        pkix::{BasicConstraints, KeyUsage, KeyUsages},
    },
    name::Name,
    serial_number::SerialNumber,
    spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned},
    time::{Time, Validity},
};

/// Bits of the root's and the authority's keys. AMD's have 4096, which take many seconds to make.
const RSA_BITS: usize = 2048;
/// Bytes of the salt of signatures: the digest's.
const SALT_BYTES: u8 = 48;
/// How long certificates are valid: a host makes new ones by removing the old.
const VALID: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Clocks of host and verifier may differ by this.
const SKEW: Duration = Duration::from_secs(3600);

const RSA_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const EC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
/// Extensions of endorsement keys (VCEK specification, table 8).
const PRODUCT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.2");
const HARDWARE_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.4");

/// Why no chain can be made. The libraries' errors are no [`std::error::Error`] without their `std` features, so they are quoted.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// No random numbers, or a message that does not fit.
    #[error("cannot make or use an RSA key: {0}")]
    Rsa(rsa::Error),
    /// A time outside 1970 to 2049, say.
    #[error("cannot encode a certificate: {0}")]
    Encode(x509_cert::der::Error),
}

impl From<rsa::Error> for ChainError {
    fn from(error: rsa::Error) -> Self {
        Self::Rsa(error)
    }
}

impl From<x509_cert::der::Error> for ChainError {
    fn from(error: x509_cert::der::Error) -> Self {
        Self::Encode(error)
    }
}

/// A new chain. The keys of root and authority are gone once it is made: nobody can sign anything else with them.
#[derive(Debug)]
pub struct Chain {
    /// The root's certificate, in PEM.
    pub ark: String,
    /// The authority's certificate, in PEM.
    pub ask: String,
    /// The endorsement key's certificate, in DER.
    pub vcek: Vec<u8>,
    /// The root's revocation list, in DER.
    pub crl: Vec<u8>,
    /// The three certificates as a host hands them to its guests.
    pub table: Vec<u8>,
    /// The endorsement key.
    pub key: EndorsementKey,
}

impl Chain {
    /// Makes a chain that is valid for ten years from `now`, the time since 1970. Whoever knows `seed` has all of its keys.
    pub fn new(seed: [u8; 32], now: Duration) -> Result<Self, ChainError> {
        let rng = &mut Random::new(seed);
        let key = SigningKey::random(rng);
        let root = Issuer::new(format!("ARK-{PRODUCT}"), rng)?;
        let authority = Issuer::new(format!("SEV-{PRODUCT}"), rng)?;
        let times = (now.saturating_sub(SKEW), now + VALID);
        let ark = root.sign(rng, &root.name, root.info()?, issuer_extensions()?, times, 1)?;
        let ask = root.sign(rng, &authority.name, authority.info()?, issuer_extensions()?, times, 2)?;
        let vcek = authority.sign(rng, "SEV-VCEK", endorsement_info(&key)?, endorsement_extensions()?, times, 0)?;
        let (ark_der, ask_der, vcek) = (ark.to_der()?, ask.to_der()?, vcek.to_der()?);
        Ok(Self {
            ark: ark.to_pem(LineEnding::LF)?,
            ask: ask.to_pem(LineEnding::LF)?,
            table: table::of(&[(table::VCEK, &vcek), (table::ASK, &ask_der), (table::ARK, &ark_der)]),
            vcek,
            crl: root.list(rng, times)?,
            key: key.into(),
        })
    }
}

/// Who signs certificates.
struct Issuer {
    name: String,
    key: RsaPrivateKey,
}

impl Issuer {
    fn new(name: String, rng: &mut impl CryptoRngCore) -> Result<Self, ChainError> {
        let key = RsaPrivateKey::new(rng, RSA_BITS)?;
        Ok(Self { name, key })
    }

    fn info(&self) -> Result<SubjectPublicKeyInfoOwned, ChainError> {
        let key = self.key.to_public_key().to_pkcs1_der().map_err(|_| rsa::Error::Internal)?;
        Ok(SubjectPublicKeyInfoOwned {
            algorithm: AlgorithmIdentifierOwned {
                oid: RSA_KEY,
                parameters: Some(Any::from(Null)),
            },
            subject_public_key: BitString::from_bytes(key.as_bytes())?,
        })
    }

    fn signature(&self, rng: &mut impl CryptoRngCore, message: &[u8]) -> Result<BitString, ChainError> {
        let scheme = Pss::new_with_salt::<Sha384>(SALT_BYTES.into());
        let signature = self.key.sign_with_rng(rng, scheme, &Sha384::digest(message))?;
        Ok(BitString::from_bytes(&signature)?)
    }

    fn sign(
        &self,
        rng: &mut impl CryptoRngCore,
        subject: &str,
        subject_public_key_info: SubjectPublicKeyInfoOwned,
        extensions: Vec<Extension>,
        (from, until): (Duration, Duration),
        serial: u8,
    ) -> Result<Certificate, ChainError> {
        let tbs_certificate = TbsCertificate {
            version: Version::V3,
            serial_number: SerialNumber::new(&[serial])?,
            signature: pss()?,
            issuer: common_name(&self.name)?,
            validity: Validity {
                not_before: time(from)?,
                not_after: time(until)?,
            },
            subject: common_name(subject)?,
            subject_public_key_info,
            issuer_unique_id: None,
            subject_unique_id: None,
            extensions: Some(extensions),
        };
        let signature = self.signature(rng, &tbs_certificate.to_der()?)?;
        Ok(Certificate {
            tbs_certificate,
            signature_algorithm: pss()?,
            signature,
        })
    }

    fn list(&self, rng: &mut impl CryptoRngCore, (from, until): (Duration, Duration)) -> Result<Vec<u8>, ChainError> {
        let tbs_cert_list = TbsCertList {
            version: Version::V2,
            signature: pss()?,
            issuer: common_name(&self.name)?,
            this_update: time(from)?,
            next_update: Some(time(until)?),
            revoked_certificates: None,
            crl_extensions: None,
        };
        let signature = self.signature(rng, &tbs_cert_list.to_der()?)?;
        let list = CertificateList {
            tbs_cert_list,
            signature_algorithm: pss()?,
            signature,
        };
        Ok(list.to_der()?)
    }
}

fn pss() -> Result<AlgorithmIdentifierOwned, ChainError> {
    let parameters = RsaPssParams::new::<Sha384>(SALT_BYTES).to_der()?;
    Ok(AlgorithmIdentifierOwned {
        oid: RSA_PSS,
        parameters: Some(Any::from_der(&parameters)?),
    })
}

fn endorsement_info(key: &SigningKey) -> Result<SubjectPublicKeyInfoOwned, ChainError> {
    let point = key.verifying_key().to_encoded_point(false);
    Ok(SubjectPublicKeyInfoOwned {
        algorithm: AlgorithmIdentifierOwned {
            oid: EC_KEY,
            parameters: Some(Any::from(&P384)),
        },
        subject_public_key: BitString::from_bytes(point.as_bytes())?,
    })
}

fn extension(extn_id: ObjectIdentifier, critical: bool, value: Vec<u8>) -> Result<Extension, ChainError> {
    Ok(Extension {
        extn_id,
        critical,
        extn_value: OctetString::new(value)?,
    })
}

fn issuer_extensions() -> Result<Vec<Extension>, ChainError> {
    let constraints = BasicConstraints {
        ca: true,
        path_len_constraint: None,
    };
    let usage = KeyUsage(FlagSet::from(KeyUsages::KeyCertSign) | KeyUsages::CRLSign);
    Ok(vec![
        extension(BASIC_CONSTRAINTS, true, constraints.to_der()?)?,
        extension(KEY_USAGE, true, usage.to_der()?)?,
    ])
}

fn endorsement_extensions() -> Result<Vec<Extension>, ChainError> {
    let name = Ia5StringRef::new(PRODUCT.name())?.to_der()?;
    let mut extensions = vec![
        extension(PRODUCT_NAME, false, name)?,
        extension(HARDWARE_ID, false, CHIP_ID.to_vec())?,
    ];
    for (part, _) in PRODUCT.tcb_parts() {
        let number = match part {
            Part::BootLoader => 1,
            Part::Tee => 2,
            Part::Snp => 3,
            Part::Microcode => 8,
            Part::Fmc => 9,
        };
        let oid = ObjectIdentifier::new(&format!("1.3.6.1.4.1.3704.1.3.{number}")).map_err(x509_cert::der::Error::from)?;
        extensions.push(extension(oid, false, LEVEL.to_der()?)?);
    }
    Ok(extensions)
}

fn time(since_1970: Duration) -> Result<Time, ChainError> {
    Ok(Time::UtcTime(UtcTime::from_unix_duration(since_1970)?))
}

fn common_name(name: &str) -> Result<Name, ChainError> {
    Ok(Name::from_str(&format!("CN={name}"))?)
}
