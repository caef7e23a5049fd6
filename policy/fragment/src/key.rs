//! Public keys and verification of signatures: ECDSA on the NIST curves, RSA with PSS or (certificates only) PKCS #1.

use p256::ecdsa::signature::hazmat::PrehashVerifier;
use rsa::pkcs1::{DecodeRsaPublicKey, EncodeRsaPublicKey};
use rsa::traits::PublicKeyParts;
use rsa::{BigUint, Pkcs1v15Sign, Pss, RsaPublicKey};
use sha2::{Digest, Sha256, Sha384, Sha512};
use thiserror::Error;

/// Shortest RSA modulus (RFC 8230, section 6.1).
const MIN_RSA_BITS: usize = 2048;
/// Longest RSA modulus: verification time grows with its cube.
const MAX_RSA_BITS: usize = 4096;

/// Why a key or a signature is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Neither RSA nor ECDSA on P-256, P-384 or P-521.
    #[error("key is of no supported kind ({0})")]
    Kind(String),
    /// The bytes are not a key of their kind.
    #[error("key is malformed")]
    Malformed,
    /// RSA keys have between 2048 and 4096 bits.
    #[error("RSA key of {0} bits, not between {MIN_RSA_BITS} and {MAX_RSA_BITS}")]
    RsaSize(usize),
    /// The algorithm is not for this key; ES256 goes with P-256, ES384 with P-384, ES512 with P-521.
    #[error("signature algorithm does not fit the key")]
    Mismatch,
    /// The signature does not verify.
    #[error("signature does not verify")]
    Signature,
}

/// The digest of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    pub(crate) fn digest(self, message: &[u8]) -> Vec<u8> {
        match self {
            Hash::Sha256 => Sha256::digest(message).to_vec(),
            Hash::Sha384 => Sha384::digest(message).to_vec(),
            Hash::Sha512 => Sha512::digest(message).to_vec(),
        }
    }
}

/// The form of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// ECDSA, DER sequence of two numbers, as in certificates.
    EcdsaDer,
    /// ECDSA, two numbers of the curve's width, as in COSE.
    EcdsaRaw,
    /// RSASSA-PSS with a salt of the length of the digest.
    Pss,
    /// RSASSA-PKCS1-v1_5.
    Pkcs1,
}

/// A public key of a certificate or of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// P-256
    P256(p256::ecdsa::VerifyingKey),
    /// P-384
    P384(p384::ecdsa::VerifyingKey),
    /// P-521, as an uncompressed point.
    P521(Vec<u8>),
    /// RSA
    Rsa(RsaPublicKey),
}

impl PublicKey {
    pub(crate) fn p256(point: &[u8]) -> Result<Self, KeyError> {
        let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(point);
        key.map(Self::P256).map_err(|_| KeyError::Malformed)
    }

    pub(crate) fn p384(point: &[u8]) -> Result<Self, KeyError> {
        let key = p384::ecdsa::VerifyingKey::from_sec1_bytes(point);
        key.map(Self::P384).map_err(|_| KeyError::Malformed)
    }

    pub(crate) fn p521(point: &[u8]) -> Result<Self, KeyError> {
        let key = p521::ecdsa::VerifyingKey::from_sec1_bytes(point).map_err(|_| KeyError::Malformed)?;
        Ok(Self::P521(key.to_encoded_point(false).as_bytes().to_vec()))
    }

    pub(crate) fn rsa_pkcs1(der: &[u8]) -> Result<Self, KeyError> {
        Self::rsa(RsaPublicKey::from_pkcs1_der(der).map_err(|_| KeyError::Malformed)?)
    }

    pub(crate) fn rsa_parts(n: &[u8], e: &[u8]) -> Result<Self, KeyError> {
        if n.len() > MAX_RSA_BITS / 8 + 1 || e.len() > 8 {
            return Err(KeyError::Malformed);
        }
        let key = RsaPublicKey::new(BigUint::from_bytes_be(n), BigUint::from_bytes_be(e));
        Self::rsa(key.map_err(|_| KeyError::Malformed)?)
    }

    fn rsa(key: RsaPublicKey) -> Result<Self, KeyError> {
        match key.n().bits() {
            MIN_RSA_BITS..=MAX_RSA_BITS => Ok(Self::Rsa(key)),
            bits => Err(KeyError::RsaSize(bits)),
        }
    }

    /// The key in this crate's encoding: a byte for its kind, then the uncompressed point or the PKCS #1 key.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let (kind, body) = match self {
            PublicKey::P256(key) => (1, key.to_encoded_point(false).as_bytes().to_vec()),
            PublicKey::P384(key) => (2, key.to_encoded_point(false).as_bytes().to_vec()),
            PublicKey::P521(point) => (3, point.clone()),
            // Encoding a decoded key cannot fail; an empty encoding would not decode.
            PublicKey::Rsa(key) => (4, key.to_pkcs1_der().map(|der| der.as_bytes().to_vec()).unwrap_or_default()),
        };
        [&[kind], body.as_slice()].concat()
    }

    /// The key of [`Self::to_bytes`].
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        match bytes.split_first() {
            Some((1, point)) => Self::p256(point),
            Some((2, point)) => Self::p384(point),
            Some((3, point)) => Self::p521(point),
            Some((4, der)) => Self::rsa_pkcs1(der),
            _ => Err(KeyError::Malformed),
        }
    }

    /// The digest that COSE prescribes for an ECDSA key of this curve (RFC 9053, section 2.1).
    fn cose_hash(&self) -> Option<Hash> {
        match self {
            PublicKey::P256(_) => Some(Hash::Sha256),
            PublicKey::P384(_) => Some(Hash::Sha384),
            PublicKey::P521(_) => Some(Hash::Sha512),
            PublicKey::Rsa(_) => None,
        }
    }

    /// Verifies `signature` over `message`.
    pub(crate) fn verify(&self, scheme: Scheme, hash: Hash, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        let digest = hash.digest(message);
        macro_rules! ecdsa {
            ($curve:ident, $key:expr) => {{
                let signature = match scheme {
                    Scheme::EcdsaDer => $curve::ecdsa::Signature::from_der(signature),
                    Scheme::EcdsaRaw if self.cose_hash() == Some(hash) => $curve::ecdsa::Signature::from_slice(signature),
                    _ => return Err(KeyError::Mismatch),
                };
                let signature = signature.map_err(|_| KeyError::Signature)?;
                $key.verify_prehash(&digest, &signature).map_err(|_| KeyError::Signature)
            }};
        }
        match self {
            PublicKey::P256(key) => ecdsa!(p256, key),
            PublicKey::P384(key) => ecdsa!(p384, key),
            PublicKey::P521(point) => {
                let key = p521::ecdsa::VerifyingKey::from_sec1_bytes(point).map_err(|_| KeyError::Malformed)?;
                ecdsa!(p521, key)
            }
            PublicKey::Rsa(key) => {
                let verified = match (scheme, hash) {
                    (Scheme::Pss, Hash::Sha256) => key.verify(Pss::new::<Sha256>(), &digest, signature),
                    (Scheme::Pss, Hash::Sha384) => key.verify(Pss::new::<Sha384>(), &digest, signature),
                    (Scheme::Pss, Hash::Sha512) => key.verify(Pss::new::<Sha512>(), &digest, signature),
                    (Scheme::Pkcs1, Hash::Sha256) => key.verify(Pkcs1v15Sign::new::<Sha256>(), &digest, signature),
                    (Scheme::Pkcs1, Hash::Sha384) => key.verify(Pkcs1v15Sign::new::<Sha384>(), &digest, signature),
                    (Scheme::Pkcs1, Hash::Sha512) => key.verify(Pkcs1v15Sign::new::<Sha512>(), &digest, signature),
                    (Scheme::EcdsaDer | Scheme::EcdsaRaw, _) => return Err(KeyError::Mismatch),
                };
                verified.map_err(|_| KeyError::Signature)
            }
        }
    }
}
