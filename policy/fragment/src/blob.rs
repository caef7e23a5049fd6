//! Signed blobs that a host may inject: fragments, trust lists and reference values.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::did::{DidError, DidX509};
use crate::envelope::{Claims, Envelope, EnvelopeError};
use crate::identity::{Feed, Issuer};
use crate::ledger::{LedgerKey, Receipt, TrustListError, read_trust_list};
use crate::media::{MediaType, MediaTypeError};
use crate::resolve::ResolveError;

/// Longest Rego text of a fragment in bytes.
pub const MAX_REGO_BYTES: usize = 3 << 20;

/// Why a blob is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BlobError {
    /// The media type is unknown.
    #[error(transparent)]
    MediaType(#[from] MediaTypeError),
    /// The message, its chain or its signature is not valid.
    #[error("InjectFragment failed COSE validation")]
    Envelope(#[from] EnvelopeError),
    /// The signer signed it as another content type.
    #[error("signed as {signed:?}, cannot be used as {wanted}")]
    ContentType {
        /// Content type of the protected header.
        signed: String,
        /// Media type that the host gave.
        wanted: MediaType,
    },
    /// The issuer is not a `did:x509`.
    #[error("failed to resolve DID")]
    Did(#[from] DidError),
    /// The chain does not match the issuer.
    #[error("failed to resolve DID")]
    Resolve(#[from] ResolveError),
    /// The payload is not UTF-8 text, or too long.
    #[error("error loading security policy fragment: its text is not UTF-8 of at most {MAX_REGO_BYTES} bytes")]
    Rego,
    /// A trust list without security version.
    #[error("transparency trust list is missing an SVN in its CWT claims")]
    NoSvn,
    /// The payload is not a trust list.
    #[error("error loading transparency trust list")]
    TrustList(#[from] TrustListError),
}

/// A policy fragment whose issuer is verified. Whether it is loaded is the policy's decision.
#[derive(Debug, Clone)]
pub struct Fragment {
    /// The signer: the chain matches this DID.
    pub issuer: Issuer,
    /// The feed.
    pub feed: Feed,
    /// Security version of the protected header; the text may have another.
    pub svn: Option<i64>,
    /// The Rego text.
    pub rego: String,
    /// Well-formed receipts for this message, not yet verified with keys of their ledgers.
    pub receipts: Vec<Receipt>,
}

impl Fragment {
    /// Parses and verifies a signed fragment.
    ///
    /// # Errors
    /// It is malformed, not signed by its issuer, or was signed as another content type.
    pub fn open(bytes: &[u8]) -> Result<Self, BlobError> {
        let (envelope, claims) = proven(bytes, MediaType::Fragment)?;
        // A malformed receipt counts as absent: the policy decides whether one is required.
        let read = |receipt: &Vec<u8>| Receipt::read(receipt, &envelope.digest).ok();
        let receipts = envelope.receipts.iter().filter_map(read).collect();
        if envelope.payload.len() > MAX_REGO_BYTES {
            return Err(BlobError::Rego);
        }
        Ok(Self {
            issuer: claims.issuer,
            feed: claims.feed,
            svn: claims.svn,
            rego: String::from_utf8(envelope.payload).map_err(|_| BlobError::Rego)?,
            receipts,
        })
    }
}

/// A signed list of ledger keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustList {
    /// The signer.
    pub issuer: Issuer,
    /// The feed.
    pub subject: Feed,
    /// Its security version.
    pub svn: i64,
    /// Usable keys by ledger.
    pub ledgers: BTreeMap<String, Vec<LedgerKey>>,
}

impl TrustList {
    /// Parses and verifies a signed trust list.
    ///
    /// # Errors
    /// It is malformed, not signed by its issuer, or was signed as another content type.
    pub fn open(bytes: &[u8]) -> Result<Self, BlobError> {
        let (envelope, claims) = proven(bytes, MediaType::TrustList)?;
        Ok(Self {
            issuer: claims.issuer,
            subject: claims.feed,
            svn: claims.svn.ok_or(BlobError::NoSvn)?,
            ledgers: read_trust_list(&envelope.payload)?,
        })
    }
}

/// A blob, verified for the media type that the host gave.
#[derive(Debug, Clone)]
pub enum Blob {
    /// To be loaded if the policy allows it.
    Fragment(Fragment),
    /// To be loaded if the policy allows it.
    TrustList(TrustList),
    /// For the security context directory. The guest does not verify who signed it; relying parties do.
    ReferenceInfo(MediaType, Vec<u8>),
}

impl Blob {
    /// Parses and verifies `bytes` as `media_type`; empty means a fragment.
    ///
    /// # Errors
    /// The media type is unknown, or the blob is not valid for it.
    pub fn open(media_type: &str, bytes: &[u8]) -> Result<Self, BlobError> {
        match media_type.parse()? {
            MediaType::Fragment => Fragment::open(bytes).map(Self::Fragment),
            MediaType::TrustList => TrustList::open(bytes).map(Self::TrustList),
            kind @ (MediaType::TcbReference | MediaType::PlatformReference) => {
                agreed(&Envelope::open(bytes)?, kind)?;
                Ok(Self::ReferenceInfo(kind, bytes.to_vec()))
            }
        }
    }
}

/// Verifies an envelope, and that its chain matches its issuer.
fn proven(bytes: &[u8], wanted: MediaType) -> Result<(Envelope, Claims), BlobError> {
    let envelope = Envelope::open(bytes)?;
    agreed(&envelope, wanted)?;
    let claims = envelope.claims()?;
    let did: DidX509 = claims.issuer.as_str().parse()?;
    did.prove(&envelope.chain)?;
    Ok((envelope, claims))
}

fn agreed(envelope: &Envelope, wanted: MediaType) -> Result<(), BlobError> {
    if wanted.agrees_with(envelope.content_type.as_deref()) {
        return Ok(());
    }
    Err(BlobError::ContentType {
        signed: envelope.content_type.clone().unwrap_or_default(),
        wanted,
    })
}

/// Entry point for fuzzing: parses bytes as every kind of blob.
pub fn fuzz(bytes: &[u8]) {
    for media_type in [MediaType::Fragment, MediaType::TrustList, MediaType::TcbReference] {
        let _ = Blob::open(&media_type.to_string(), bytes);
    }
    let _ = read_trust_list(bytes);
    let _ = Receipt::read(bytes, &[0; 32]);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = text.parse::<DidX509>();
    }
}
