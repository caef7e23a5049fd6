//! Signing of fragments and trust lists: COSE_Sign1 with the signer's chain.
//!
//! Keys are ECDSA on P-256 or P-384 in PKCS #8. The result is verified before it is returned.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use coset::cbor::Value;
use coset::iana::Algorithm;
use coset::{CoseSign1Builder, HeaderBuilder, TaggedCborSerializable};
use p256::ecdsa::signature::hazmat::PrehashSigner;
use p256::pkcs8::DecodePrivateKey;
use policy_fragment::{Blob, BlobError, Chain, ChainError, FingerprintAlgorithm};
use sha2::{Digest, Sha256, Sha384};
use thiserror::Error;

/// Header parameters: CWT claims (RFC 9597) and certificate chain (RFC 9360).
const CWT_CLAIMS: i64 = 15;
const X5CHAIN: i64 = 33;
/// Content type of fragments.
pub const FRAGMENT_TYPE: &str = "application/cose-x509+rego";

/// Why signing failed.
#[derive(Debug, Error)]
pub enum SignError {
    /// No PKCS #8 key on a supported curve.
    #[error("the key is not an unencrypted PKCS #8 key on P-256 or P-384 (openssl pkcs8 -topk8 -nocrypt converts others)")]
    Key,
    /// No PEM certificates.
    #[error("the chain has no PEM certificates")]
    Pem,
    /// Guests would refuse the chain.
    #[error("the chain is not valid")]
    Chain(#[from] ChainError),
    /// The signature failed.
    #[error("cannot sign: {0}")]
    Signature(String),
    /// Guests would refuse the result.
    #[error("the signed message would be refused by guests")]
    Refused(#[source] BlobError),
}

/// Signer and claims.
#[derive(Debug, Clone, Copy)]
pub struct Signing<'a> {
    /// The leaf's private key, PEM.
    pub key: &'a str,
    /// The chain, PEM, leaf first.
    pub chain: &'a str,
    /// `did:x509:…`; default: [`issuer_of`] the chain.
    pub issuer: Option<&'a str>,
    /// Name of the fragment or trust list.
    pub feed: &'a str,
    /// Security version for the header; a trust list needs one.
    pub svn: Option<i64>,
    /// Content type: [`FRAGMENT_TYPE`] or another media type that guests support.
    pub content_type: &'a str,
}

/// Signs `payload`.
///
/// # Errors
/// Key or chain is not usable, or guests would refuse the result.
pub fn sign(payload: &[u8], signing: &Signing<'_>) -> Result<Vec<u8>, SignError> {
    let chain = certificates(signing.chain)?;
    let issuer = match signing.issuer {
        Some(issuer) => issuer.to_owned(),
        None => issuer_of(signing.chain)?,
    };
    let key = Key::read(signing.key)?;
    let certificates = Value::Array(chain.into_iter().map(Value::Bytes).collect());
    let header = HeaderBuilder::new()
        .algorithm(key.algorithm())
        .content_type(signing.content_type.to_owned())
        .value(X5CHAIN, certificates);
    let (issuer, feed) = (Value::from(issuer), Value::from(signing.feed));
    // The security version is in the claims; older guests read issuer and feed from the two text headers.
    let header = match signing.svn {
        Some(svn) => {
            let claims = vec![
                (Value::from(1), issuer),
                (Value::from(2), feed),
                (Value::from("svn"), Value::from(svn)),
            ];
            header.value(CWT_CLAIMS, Value::Map(claims))
        }
        None => header.text_value("iss".to_owned(), issuer).text_value("feed".to_owned(), feed),
    };
    let message = CoseSign1Builder::new()
        .protected(header.build())
        .payload(payload.to_vec())
        .try_create_signature(&[], |bytes| key.sign(bytes))?
        .build();
    let bytes = message.to_tagged_vec().map_err(|error| SignError::Signature(error.to_string()))?;
    Blob::open(signing.content_type, &bytes).map_err(SignError::Refused)?;
    Ok(bytes)
}

/// The DID of a chain: its last certificate's fingerprint, and the leaf's common name if it has one.
///
/// # Errors
/// The text is not a chain.
pub fn issuer_of(chain: &str) -> Result<String, SignError> {
    let chain = Chain::verify(&certificates(chain)?)?;
    let root = chain.authorities().last().ok_or(SignError::Pem)?;
    let fingerprint = URL_SAFE_NO_PAD.encode(FingerprintAlgorithm::Sha256.digest(root));
    let subject: String = chain
        .common_name()
        .ok_or_else(|| SignError::Signature("the leaf has no common name; give the issuer".to_owned()))?
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect();
    Ok(format!("did:x509:0:sha256:{fingerprint}::subject:CN:{subject}"))
}

/// The certificates of a PEM text in DER form.
fn certificates(pem: &str) -> Result<Vec<Vec<u8>>, SignError> {
    let blocks = pem.split("-----BEGIN CERTIFICATE-----").skip(1);
    let decode = |block: &str| {
        let (body, _) = block.split_once("-----END CERTIFICATE-----").ok_or(SignError::Pem)?;
        let body: String = body.split_whitespace().collect();
        STANDARD.decode(body).map_err(|_| SignError::Pem)
    };
    let certificates = blocks.map(decode).collect::<Result<Vec<_>, _>>()?;
    if certificates.is_empty() {
        Err(SignError::Pem)
    } else {
        Ok(certificates)
    }
}

enum Key {
    P256(p256::ecdsa::SigningKey),
    P384(p384::ecdsa::SigningKey),
}

impl Key {
    fn read(pem: &str) -> Result<Self, SignError> {
        if let Ok(key) = p256::SecretKey::from_pkcs8_pem(pem) {
            return Ok(Self::P256(key.into()));
        }
        let key = p384::SecretKey::from_pkcs8_pem(pem).map_err(|_| SignError::Key)?;
        Ok(Self::P384(key.into()))
    }

    fn algorithm(&self) -> Algorithm {
        match self {
            Key::P256(_) => Algorithm::ES256,
            Key::P384(_) => Algorithm::ES384,
        }
    }

    fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, SignError> {
        let failed = |error: p256::ecdsa::Error| SignError::Signature(error.to_string());
        match self {
            Key::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign_prehash(&Sha256::digest(bytes)).map_err(failed)?;
                Ok(signature.to_bytes().to_vec())
            }
            Key::P384(key) => {
                let signature: p384::ecdsa::Signature = key.sign_prehash(&Sha384::digest(bytes)).map_err(failed)?;
                Ok(signature.to_bytes().to_vec())
            }
        }
    }
}

#[cfg(test)]
mod tests;
