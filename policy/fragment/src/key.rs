//! Public keys and verification of signatures: ECDSA on the NIST curves, Ed25519, RSA with PSS or (certificates only) PKCS #1.
//!
//! An ECDSA algorithm names a digest and no curve (RFC 9053, section 2.1; RFC 5758, section 3.2): every digest goes with every curve.

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
    /// Neither RSA, nor Ed25519, nor ECDSA on P-256, P-384 or P-521.
    #[error("key is of no supported kind ({0})")]
    Kind(String),
    /// The bytes are not a key of their kind.
    #[error("key is malformed")]
    Malformed,
    /// RSA keys have between 2048 and 4096 bits.
    #[error("RSA key of {0} bits, not between {MIN_RSA_BITS} and {MAX_RSA_BITS}")]
    RsaSize(usize),
    /// The algorithm is for keys of another kind.
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

/// The form of a signature, and its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// ECDSA, DER sequence of two numbers, as in certificates.
    EcdsaDer(Hash),
    /// ECDSA, two numbers of the curve's width, as in COSE.
    EcdsaRaw(Hash),
    /// RSASSA-PSS with a salt of the length of the digest.
    Pss(Hash),
    /// RSASSA-PKCS1-v1_5.
    Pkcs1(Hash),
    /// EdDSA on Ed25519, which digests the message itself.
    Ed25519,
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
    /// Ed25519
    Ed25519(ed25519_dalek::VerifyingKey),
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

    pub(crate) fn ed25519(bytes: &[u8]) -> Result<Self, KeyError> {
        let key = ed25519_dalek::VerifyingKey::try_from(bytes);
        key.map(Self::Ed25519).map_err(|_| KeyError::Malformed)
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

    /// The key in this crate's encoding: a byte for its kind, then the uncompressed point, the PKCS #1 key or the
    /// 32 bytes of an Ed25519 key.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let (kind, body) = match self {
            PublicKey::P256(key) => (1, key.to_encoded_point(false).as_bytes().to_vec()),
            PublicKey::P384(key) => (2, key.to_encoded_point(false).as_bytes().to_vec()),
            PublicKey::P521(point) => (3, point.clone()),
            // Encoding a decoded key cannot fail; an empty encoding would not decode.
            PublicKey::Rsa(key) => (4, key.to_pkcs1_der().map(|der| der.as_bytes().to_vec()).unwrap_or_default()),
            PublicKey::Ed25519(key) => (5, key.to_bytes().to_vec()),
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
            Some((5, bytes)) => Self::ed25519(bytes),
            _ => Err(KeyError::Malformed),
        }
    }

    /// Verifies `signature` over `message`.
    pub(crate) fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        macro_rules! ecdsa {
            ($curve:ident, $key:expr, $bytes:literal) => {{
                let (hash, signature) = match algorithm {
                    Algorithm::EcdsaDer(hash) => (hash, $curve::ecdsa::Signature::from_der(signature)),
                    Algorithm::EcdsaRaw(hash) => (hash, $curve::ecdsa::Signature::from_slice(signature)),
                    _ => return Err(KeyError::Mismatch),
                };
                let signature = signature.map_err(|_| KeyError::Signature)?;
                let digest = widened(hash.digest(message), $bytes);
                $key.verify_prehash(&digest, &signature).map_err(|_| KeyError::Signature)
            }};
        }
        match self {
            PublicKey::P256(key) => ecdsa!(p256, key, 32),
            PublicKey::P384(key) => ecdsa!(p384, key, 48),
            PublicKey::P521(point) => {
                let key = p521::ecdsa::VerifyingKey::from_sec1_bytes(point).map_err(|_| KeyError::Malformed)?;
                ecdsa!(p521, key, 66)
            }
            PublicKey::Rsa(key) => {
                let (Algorithm::Pss(hash) | Algorithm::Pkcs1(hash)) = algorithm else {
                    return Err(KeyError::Mismatch);
                };
                let digest = hash.digest(message);
                let pss = matches!(algorithm, Algorithm::Pss(_));
                let verified = match (pss, hash) {
                    (true, Hash::Sha256) => key.verify(Pss::new::<Sha256>(), &digest, signature),
                    (true, Hash::Sha384) => key.verify(Pss::new::<Sha384>(), &digest, signature),
                    (true, Hash::Sha512) => key.verify(Pss::new::<Sha512>(), &digest, signature),
                    (false, Hash::Sha256) => key.verify(Pkcs1v15Sign::new::<Sha256>(), &digest, signature),
                    (false, Hash::Sha384) => key.verify(Pkcs1v15Sign::new::<Sha384>(), &digest, signature),
                    (false, Hash::Sha512) => key.verify(Pkcs1v15Sign::new::<Sha512>(), &digest, signature),
                };
                verified.map_err(|_| KeyError::Signature)
            }
            PublicKey::Ed25519(key) => {
                if algorithm != Algorithm::Ed25519 {
                    return Err(KeyError::Mismatch);
                }
                let signature = ed25519_dalek::Signature::from_slice(signature).map_err(|_| KeyError::Signature)?;
                // Strict: a key of small order would accept one signature for many messages.
                key.verify_strict(message, &signature).map_err(|_| KeyError::Signature)
            }
        }
    }
}

/// The digest as a number of at least a curve's width: the libraries refuse one of less than half of it, as SHA-256 is for P-521.
/// Of a longer digest the curves take the first bits (SEC 1, section 4.1.4).
fn widened(digest: Vec<u8>, bytes: usize) -> Vec<u8> {
    let zeros = bytes.saturating_sub(digest.len());
    [vec![0; zeros], digest].concat()
}
