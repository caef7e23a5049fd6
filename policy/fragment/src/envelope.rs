//! COSE_Sign1 messages (RFC 9052): verification of chain and signature, and the claims of the protected header.

use coset::cbor::Value;
use coset::{ContentType, CoseSign1, Header, Label, RegisteredLabelWithPrivate, TaggedCborSerializable, iana};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::chain::{Chain, ChainError};
use crate::identity::{Feed, IdentityError, Issuer};
use crate::key::{Algorithm, Hash, KeyError, PublicKey};

/// Largest message in bytes.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// Maximum number of receipts of one message.
pub(crate) const MAX_RECEIPTS: usize = 64;

/// CWT claims in a header (RFC 9597).
pub(crate) const CWT_CLAIMS: i64 = 15;
/// Certificate chain (RFC 9360).
const X5CHAIN: i64 = 33;
/// Transparency receipts.
const RECEIPTS: i64 = 394;

/// Why a message is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EnvelopeError {
    /// Longer than 4 MiB.
    #[error("message of {0} bytes is longer than {MAX_MESSAGE_BYTES}")]
    TooLong(usize),
    /// Not a tagged COSE_Sign1.
    #[error("not a COSE_Sign1 message: {0}")]
    Syntax(String),
    /// A required header is missing or has the wrong type.
    #[error("protected header: {0}")]
    Header(&'static str),
    /// The payload is detached.
    #[error("the message has no payload")]
    NoPayload,
    /// The signature algorithm is not one of ES256, ES384, ES512, PS256, PS384, PS512, EdDSA.
    #[error("unsupported signature algorithm {0}")]
    Algorithm(String),
    /// The certificates are not a valid chain.
    #[error("certificate chain")]
    Chain(#[from] ChainError),
    /// The signature does not verify with the leaf's key.
    #[error("signature of the message")]
    Signature(#[source] KeyError),
    /// Issuer or feed is missing or too long.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A receipt is not a byte string, or there are too many.
    #[error("receipts are not a list of at most {MAX_RECEIPTS} byte strings")]
    Receipts,
}

/// A verified message. [`crate::DidX509::prove`] verifies its issuer.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// The verified chain.
    pub chain: Chain,
    /// Content type of the protected header.
    pub content_type: Option<String>,
    /// The signed payload.
    pub payload: Vec<u8>,
    /// Digest of the message without its unprotected header, as in receipts.
    pub digest: [u8; 32],
    /// Receipts, not parsed.
    pub(crate) receipts: Vec<Vec<u8>>,
    protected: Header,
}

/// The claims of a message about its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The issuer.
    pub issuer: Issuer,
    /// The feed.
    pub feed: Feed,
    /// Security version in the header.
    pub svn: Option<i64>,
}

impl Envelope {
    /// Parses a message, and verifies its chain and its signature.
    ///
    /// # Errors
    /// It is malformed, or not signed by its leaf.
    pub fn open(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(EnvelopeError::TooLong(bytes.len()));
        }
        let message = CoseSign1::from_tagged_slice(bytes).map_err(|error| EnvelopeError::Syntax(error.to_string()))?;
        let payload = message.payload.clone().ok_or(EnvelopeError::NoPayload)?;
        let protected = &message.protected.header;
        understood(protected)?;
        let chain = Chain::verify(&certificates(protected)?)?;
        verify(&message, &payload, chain.leaf_key())?;
        Ok(Self {
            content_type: match &protected.content_type {
                Some(ContentType::Text(text)) => Some(text.clone()),
                _ => None,
            },
            digest: digest(&message, &payload),
            receipts: receipts(&message.unprotected)?,
            protected: message.protected.header,
            chain,
            payload,
        })
    }

    /// Issuer, feed and security version of the protected header.
    ///
    /// # Errors
    /// Issuer or feed is missing.
    pub fn claims(&self) -> Result<Claims, EnvelopeError> {
        let (issuer, feed, svn) = match named(&self.protected, CWT_CLAIMS) {
            Some(Value::Map(claims)) => {
                unique(claims)?;
                (
                    claim(claims, &Value::from(1)),
                    claim(claims, &Value::from(2)),
                    claim(claims, &Value::from("svn")),
                )
            }
            Some(_) => return Err(EnvelopeError::Header("CWT claims are not a map")),
            None => (text_label(&self.protected, "iss"), text_label(&self.protected, "feed"), None),
        };
        let text = |value: Option<&Value>| value.and_then(Value::as_text).unwrap_or_default().to_owned();
        let svn = match svn {
            None => None,
            Some(Value::Integer(number)) => Some(i64::try_from(*number).map_err(|_| EnvelopeError::Header("svn is not a 64-bit number"))?),
            Some(_) => return Err(EnvelopeError::Header("svn is not a 64-bit number")),
        };
        Ok(Claims {
            issuer: Issuer::new(text(issuer))?,
            feed: Feed::new(text(feed))?,
            svn,
        })
    }
}

/// Refuses critical headers that are not implemented.
fn understood(protected: &Header) -> Result<(), EnvelopeError> {
    use coset::RegisteredLabel::{Assigned, Text};
    use iana::HeaderParameter::{Alg, ContentType, CwtClaims, Kid, X5Chain};
    let known = |label: &coset::RegisteredLabel<iana::HeaderParameter>| match label {
        Assigned(Alg | ContentType | Kid | CwtClaims | X5Chain) => true,
        Text(name) => matches!(name.as_str(), "iss" | "feed"),
        Assigned(_) => false,
    };
    let all_known = protected.crit.iter().all(|label| match label {
        RegisteredLabelWithPrivate::Assigned(label) => known(&Assigned(*label)),
        RegisteredLabelWithPrivate::Text(name) => known(&Text(name.clone())),
        RegisteredLabelWithPrivate::PrivateUse(_) => false,
    });
    all_known
        .then_some(())
        .ok_or(EnvelopeError::Header("a critical header is not supported"))
}

/// The header parameter `label`, among those that `coset` does not know.
pub(crate) fn named(header: &Header, label: i64) -> Option<&Value> {
    let wanted = Label::Int(label);
    header.rest.iter().find(|(label, _)| *label == wanted).map(|(_, value)| value)
}

fn text_label<'a>(header: &'a Header, label: &str) -> Option<&'a Value> {
    let is = |candidate: &Label| matches!(candidate, Label::Text(text) if text == label);
    header.rest.iter().find(|(label, _)| is(label)).map(|(_, value)| value)
}

/// The value of a map's key.
pub(crate) fn claim<'a>(map: &'a [(Value, Value)], key: &Value) -> Option<&'a Value> {
    map.iter().find(|(candidate, _)| candidate == key).map(|(_, value)| value)
}

/// Refuses duplicate keys, which parsers resolve differently.
fn unique(map: &[(Value, Value)]) -> Result<(), EnvelopeError> {
    let repeated = |(index, (key, _)): (usize, &(Value, Value))| map.iter().take(index).any(|(earlier, _)| earlier == key);
    if map.len() > 64 || map.iter().enumerate().any(repeated) {
        return Err(EnvelopeError::Header("CWT claims are too many or repeated"));
    }
    Ok(())
}

fn certificates(protected: &Header) -> Result<Vec<Vec<u8>>, EnvelopeError> {
    let wrong = EnvelopeError::Header("x5chain is not one or more certificates");
    match named(protected, X5CHAIN) {
        None => Err(EnvelopeError::Header("x5chain is missing")),
        Some(Value::Bytes(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(list)) => {
            let bytes = list
                .iter()
                .take(crate::chain::MAX_CERTIFICATES + 1)
                .map(|item| item.as_bytes().cloned());
            bytes.collect::<Option<_>>().ok_or(wrong)
        }
        Some(_) => Err(wrong),
    }
}

fn receipts(unprotected: &Header) -> Result<Vec<Vec<u8>>, EnvelopeError> {
    match named(unprotected, RECEIPTS) {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) if list.len() <= MAX_RECEIPTS => list
            .iter()
            .map(|item| item.as_bytes().cloned())
            .collect::<Option<_>>()
            .ok_or(EnvelopeError::Receipts),
        Some(_) => Err(EnvelopeError::Receipts),
    }
}

/// Verifies the signature of `message` over `payload`, which may be detached.
pub(crate) fn verify(message: &CoseSign1, payload: &[u8], key: &PublicKey) -> Result<(), EnvelopeError> {
    use RegisteredLabelWithPrivate::Assigned;
    let algorithm = match message.protected.header.alg.as_ref() {
        Some(Assigned(iana::Algorithm::ES256)) => Algorithm::EcdsaRaw(Hash::Sha256),
        Some(Assigned(iana::Algorithm::ES384)) => Algorithm::EcdsaRaw(Hash::Sha384),
        Some(Assigned(iana::Algorithm::ES512)) => Algorithm::EcdsaRaw(Hash::Sha512),
        Some(Assigned(iana::Algorithm::PS256)) => Algorithm::Pss(Hash::Sha256),
        Some(Assigned(iana::Algorithm::PS384)) => Algorithm::Pss(Hash::Sha384),
        Some(Assigned(iana::Algorithm::PS512)) => Algorithm::Pss(Hash::Sha512),
        Some(Assigned(iana::Algorithm::EdDSA)) => Algorithm::Ed25519,
        Some(other) => return Err(EnvelopeError::Algorithm(format!("{other:?}"))),
        None => return Err(EnvelopeError::Header("alg is missing")),
    };
    let signed = coset::sig_structure_data(coset::SignatureContext::CoseSign1, message.protected.clone(), None, &[], payload);
    key.verify(algorithm, &signed, &message.signature).map_err(EnvelopeError::Signature)
}

/// SHA-256 of the message with an empty unprotected header, that is, without receipts.
fn digest(message: &CoseSign1, payload: &[u8]) -> [u8; 32] {
    let mut bytes = vec![0xd2, 0x84];
    let protected = message.protected.original_data.clone().unwrap_or_default();
    byte_string(&mut bytes, &protected);
    bytes.push(0xa0);
    byte_string(&mut bytes, payload);
    byte_string(&mut bytes, &message.signature);
    Sha256::digest(&bytes).into()
}

/// A byte string with the shortest head (RFC 8949, section 4.2.1).
pub(crate) fn byte_string(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = bytes.len() as u64;
    match length {
        0..=23 => out.push(0x40 | length as u8),
        24..=0xff => out.extend([0x58, length as u8]),
        0x100..=0xffff => {
            out.push(0x59);
            out.extend((length as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0x5a);
            out.extend((length as u32).to_be_bytes());
        }
        _ => {
            out.push(0x5b);
            out.extend(length.to_be_bytes());
        }
    }
    out.extend(bytes);
}
