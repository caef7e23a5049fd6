//! Transparency: ledger keys from a signed trust list, and receipts that prove that a ledger contains a fragment.

use std::collections::BTreeMap;

use coset::cbor::Value;
use coset::{AsCborValue, CborSerializable, CoseKey, CoseSign1, KeyType, Label, TaggedCborSerializable, iana};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::envelope::{self, CWT_CLAIMS, EnvelopeError, claim, named};
use crate::key::{KeyError, PublicKey};

/// Maximum number of ledgers of a trust list, and of keys of a ledger.
const MAX_ENTRIES: usize = 1024;
/// Maximum number of inclusion proofs of one receipt.
const MAX_PROOFS: usize = 16;
/// Longest path of an inclusion proof; no real tree has this height.
const MAX_PATH: usize = 128;
/// Longest commit evidence of a leaf in bytes.
const MAX_EVIDENCE_BYTES: usize = 1024;

/// Verifiable data structure and its proofs (draft-ietf-cose-merkle-tree-proofs).
const VDS: i64 = 395;
const VDP: i64 = 396;
/// The structure of CCF ledgers, with SHA-256.
const CCF_SHA256: i64 = 2;
/// Label of inclusion proofs.
const INCLUSION: i64 = -1;

/// Why a payload is not a trust list.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TrustListError {
    /// Not a CBOR map from ledgers to key sets.
    #[error("trust list is not a map from ledgers to key sets")]
    Shape,
    /// There is no ledger.
    #[error("trust list names no ledger")]
    Empty,
    /// A ledger whose keys are all unusable.
    #[error("trust list has no usable key for ledger {0:?}")]
    NoKey(String),
}

/// Why a receipt is not valid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReceiptError {
    /// Not a COSE_Sign1 with the headers of a receipt.
    #[error("receipt: {0}")]
    Shape(&'static str),
    /// It is for another message.
    #[error("receipt is for another message")]
    Other,
    /// The signature does not verify with the ledger's key.
    #[error("the signature of the receipt is not valid")]
    Signature(#[from] EnvelopeError),
}

/// A key of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerKey {
    kid: String,
    key: PublicKey,
}

impl LedgerKey {
    /// Its id within the ledger.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The key without its id, to store and compare: equal bytes are equal keys.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.key.to_bytes()
    }

    /// The key of [`Self::to_bytes`].
    ///
    /// # Errors
    /// The bytes are not a key.
    pub fn from_bytes(kid: &str, bytes: &[u8]) -> Result<Self, KeyError> {
        Ok(Self {
            kid: kid.to_owned(),
            key: PublicKey::from_bytes(bytes)?,
        })
    }

    fn read(value: &Value) -> Result<Self, KeyError> {
        let key = CoseKey::from_cbor_value(value.clone()).map_err(|_| KeyError::Malformed)?;
        let kid = String::from_utf8(key.key_id.clone()).map_err(|_| KeyError::Malformed)?;
        if kid.is_empty() {
            return Err(KeyError::Malformed);
        }
        let bytes = |label: i64| {
            let label = Label::Int(label);
            let value = key.params.iter().find(|(candidate, _)| *candidate == label);
            value.and_then(|(_, value)| value.as_bytes()).ok_or(KeyError::Malformed)
        };
        let point = |width: usize| -> Result<Vec<u8>, KeyError> {
            let (x, y) = (bytes(-2)?, bytes(-3)?);
            if x.len() != width || y.len() != width {
                return Err(KeyError::Malformed);
            }
            Ok([&[4], x.as_slice(), y.as_slice()].concat())
        };
        let curve = || {
            let value = key.params.iter().find(|(label, _)| *label == Label::Int(-1));
            value
                .and_then(|(_, value)| value.as_integer())
                .and_then(|curve| i64::try_from(curve).ok())
        };
        let public = match &key.kty {
            KeyType::Assigned(iana::KeyType::EC2) => match curve() {
                Some(1) => PublicKey::p256(&point(32)?)?,
                Some(2) => PublicKey::p384(&point(48)?)?,
                Some(3) => PublicKey::p521(&point(66)?)?,
                other => return Err(KeyError::Kind(format!("COSE curve {other:?}"))),
            },
            KeyType::Assigned(iana::KeyType::OKP) => match curve() {
                Some(6) => PublicKey::ed25519(bytes(-2)?)?,
                other => return Err(KeyError::Kind(format!("COSE curve {other:?}"))),
            },
            KeyType::Assigned(iana::KeyType::RSA) => PublicKey::rsa_parts(bytes(-1)?, bytes(-2)?)?,
            other => return Err(KeyError::Kind(format!("COSE key type {other:?}"))),
        };
        Ok(Self { kid, key: public })
    }
}

/// Reads the payload of a trust list: the usable keys of each ledger.
///
/// # Errors
/// It is not such a map, or a ledger has no usable key.
pub fn read_trust_list(payload: &[u8]) -> Result<BTreeMap<String, Vec<LedgerKey>>, TrustListError> {
    let mut rest = payload;
    let value: Value = coset::cbor::from_reader(&mut rest).map_err(|_| TrustListError::Shape)?;
    let Value::Map(entries) = value else {
        return Err(TrustListError::Shape);
    };
    if !rest.is_empty() || entries.len() > MAX_ENTRIES {
        return Err(TrustListError::Shape);
    }
    let mut ledgers = BTreeMap::new();
    for (ledger, entry) in &entries {
        let ledger = ledger.as_text().ok_or(TrustListError::Shape)?.to_owned();
        let set = entry.as_map().and_then(|map| claim(map, &Value::from(1))).and_then(Value::as_array);
        let set = set.filter(|set| set.len() <= MAX_ENTRIES).ok_or(TrustListError::Shape)?;
        let keys: Vec<LedgerKey> = set.iter().filter_map(|key| LedgerKey::read(key).ok()).collect();
        if keys.is_empty() {
            return Err(TrustListError::NoKey(ledger));
        }
        if ledgers.insert(ledger, keys).is_some() {
            return Err(TrustListError::Shape);
        }
    }
    if ledgers.is_empty() {
        Err(TrustListError::Empty)
    } else {
        Ok(ledgers)
    }
}

/// A ledger's statement that it contains a message. Its claims are verified only by [`Receipt::verify`].
#[derive(Debug, Clone)]
pub struct Receipt {
    issuer: String,
    kid: String,
    /// The root of the tree for each of its proofs.
    roots: Vec<[u8; 32]>,
    message: CoseSign1,
}

impl Receipt {
    /// Parses a receipt for the message with `digest` ([`crate::Envelope::digest`]).
    ///
    /// # Errors
    /// It is malformed, or for another message.
    pub fn read(bytes: &[u8], digest: &[u8; 32]) -> Result<Self, ReceiptError> {
        let shape = ReceiptError::Shape;
        let message = CoseSign1::from_tagged_slice(bytes)
            .or_else(|_| CoseSign1::from_slice(bytes))
            .map_err(|_| shape("not a COSE_Sign1"))?;
        if message.payload.is_some() {
            return Err(shape("payload is not detached"));
        }
        let protected = &message.protected.header;
        if !protected.crit.is_empty() {
            return Err(shape("a critical header is not supported"));
        }
        let kid = String::from_utf8(protected.key_id.clone()).map_err(|_| shape("kid is not text"))?;
        let claims = named(protected, CWT_CLAIMS).and_then(Value::as_map).ok_or(shape("no CWT claims"))?;
        let issuer = claim(claims, &Value::from(1)).and_then(Value::as_text).ok_or(shape("no issuer"))?;
        if kid.is_empty() || issuer.is_empty() {
            return Err(shape("kid or issuer is empty"));
        }
        if named(protected, VDS) != Some(&Value::from(CCF_SHA256)) {
            return Err(shape("not from a CCF ledger"));
        }
        let proofs = named(&message.unprotected, VDP)
            .and_then(Value::as_map)
            .and_then(|map| claim(map, &Value::from(INCLUSION)))
            .and_then(Value::as_array)
            .filter(|proofs| (1..=MAX_PROOFS).contains(&proofs.len()))
            .ok_or(shape("no inclusion proofs"))?;
        let roots = proofs.iter().map(|proof| root(proof, digest)).collect::<Result<_, _>>()?;
        Ok(Self {
            issuer: issuer.to_owned(),
            kid,
            roots,
            message,
        })
    }

    /// The ledger that it claims to be from, to look up the key.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Id of the key that it claims to be signed with.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Verifies that the ledger's key signed every root.
    ///
    /// # Errors
    /// It did not, or has another id.
    pub fn verify(&self, key: &LedgerKey) -> Result<(), ReceiptError> {
        if key.kid != self.kid {
            return Err(ReceiptError::Shape("signed with another key"));
        }
        let verify = |root: &[u8; 32]| envelope::verify(&self.message, root, &key.key);
        self.roots.iter().try_for_each(verify).map_err(ReceiptError::from)
    }
}

/// The root that follows from an inclusion proof.
fn root(proof: &Value, digest: &[u8; 32]) -> Result<[u8; 32], ReceiptError> {
    let wrong = || ReceiptError::Shape("malformed inclusion proof");
    let decoded;
    let proof = match proof {
        Value::Bytes(bytes) => {
            decoded = coset::cbor::from_reader::<Value, _>(bytes.as_slice()).map_err(|_| wrong())?;
            &decoded
        }
        map => map,
    };
    let map = proof.as_map().ok_or_else(wrong)?;
    let leaf = claim(map, &Value::from(1)).and_then(Value::as_array).ok_or_else(wrong)?;
    let path = claim(map, &Value::from(2)).and_then(Value::as_array).ok_or_else(wrong)?;
    let [transaction, evidence, data] = leaf.as_slice() else {
        return Err(wrong());
    };
    let (transaction, data) = (hash(transaction).ok_or_else(wrong)?, hash(data).ok_or_else(wrong)?);
    let evidence = evidence.as_text().ok_or_else(wrong)?;
    if !(1..=MAX_EVIDENCE_BYTES).contains(&evidence.len()) || !(1..=MAX_PATH).contains(&path.len()) {
        return Err(wrong());
    }
    if data != *digest {
        return Err(ReceiptError::Other);
    }
    let mut node: [u8; 32] = Sha256::new()
        .chain_update(transaction)
        .chain_update(Sha256::digest(evidence))
        .chain_update(data)
        .finalize()
        .into();
    for step in path {
        let Some([left, sibling]) = step.as_array().map(Vec::as_slice) else {
            return Err(wrong());
        };
        let (left, sibling) = (left.as_bool().ok_or_else(wrong)?, hash(sibling).ok_or_else(wrong)?);
        let (first, second) = if left { (sibling, node) } else { (node, sibling) };
        node = Sha256::new().chain_update(first).chain_update(second).finalize().into();
    }
    Ok(node)
}

fn hash(value: &Value) -> Option<[u8; 32]> {
    value.as_bytes().and_then(|bytes| bytes.as_slice().try_into().ok())
}
