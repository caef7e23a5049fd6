//! What a host may inject: fragments, trust lists and reference values, each opened by the rules of its kind.

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
    /// The host named a use that does not exist.
    #[error(transparent)]
    MediaType(#[from] MediaTypeError),
    /// The message, its chain or its signature.
    #[error("InjectFragment failed COSE validation")]
    Envelope(#[from] EnvelopeError),
    /// The signer made it for another use.
    #[error("signed as {signed:?}, cannot be used as {wanted}")]
    ContentType {
        /// Content type of the protected header.
        signed: String,
        /// What it was handed over as.
        wanted: MediaType,
    },
    /// The issuer is no `did:x509`.
    #[error("failed to resolve DID")]
    Did(#[from] DidError),
    /// The chain is not the issuer's.
    #[error("failed to resolve DID")]
    Resolve(#[from] ResolveError),
    /// The payload is not UTF-8 text, or too long.
    #[error("error loading security policy fragment: its text is not UTF-8 of at most {MAX_REGO_BYTES} bytes")]
    Rego,
    /// A trust list without security version.
    #[error("transparency trust list is missing an SVN in its CWT claims")]
    NoSvn,
    /// The payload is no trust list.
    #[error("error loading transparency trust list")]
    TrustList(#[from] TrustListError),
}

/// A policy fragment whose issuer is proven. Whether the policy wants it is the policy's to say.
#[derive(Debug, Clone)]
pub struct Fragment {
    /// Who signed it: the chain proves this DID.
    pub issuer: Issuer,
    /// Which of the issuer's fragments it is.
    pub feed: Feed,
    /// Security version of the protected header; the text may hold another.
    pub svn: Option<i64>,
    /// The Rego text.
    pub rego: String,
    /// Well-formed receipts about this very message. Each still has to be verified with a key of its ledger.
    pub receipts: Vec<Receipt>,
}

impl Fragment {
    /// Opens a signed fragment.
    ///
    /// # Errors
    /// It is malformed, not signed by its issuer, or was signed for another use.
    pub fn open(bytes: &[u8]) -> Result<Self, BlobError> {
        let (envelope, claims) = proven(bytes, MediaType::Fragment)?;
        // A receipt that cannot be read counts as absent: whether one is needed is the policy's to say.
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

/// Keys of ledgers, signed by whom the policy may trust for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustList {
    /// Who signed it.
    pub issuer: Issuer,
    /// Which of the issuer's lists it is.
    pub subject: Feed,
    /// Its security version.
    pub svn: i64,
    /// Usable keys by ledger.
    pub ledgers: BTreeMap<String, Vec<LedgerKey>>,
}

impl TrustList {
    /// Opens a signed trust list.
    ///
    /// # Errors
    /// It is malformed, not signed by its issuer, or was signed for another use.
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

/// A blob, opened for the use the host names.
#[derive(Debug, Clone)]
pub enum Blob {
    /// To be loaded beside the policy.
    Fragment(Fragment),
    /// To be loaded where the policy trusts its issuer.
    TrustList(TrustList),
    /// To be laid into the security context directory. Signed by *somebody*: verifiers outside judge by whom.
    ReferenceInfo(MediaType, Vec<u8>),
}

impl Blob {
    /// Opens `bytes` as the host's `media_type` says; empty means a fragment.
    ///
    /// # Errors
    /// The media type is unknown, or the blob is not acceptable for it.
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

/// Opens an envelope and proves its issuer by its chain.
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

/// Feeds bytes of a fuzzer to everything that reads a host's blob.
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
