//! Signed policy fragments: from the bytes of a host to a text whose issuer and feed are verified.
//!
//! ```text
//! bytes ─► COSE_Sign1 (envelope) ─► x5chain verified (chain) ─► signature by its leaf (key)
//!       ─► issuer, feed, svn of the protected header ─► the chain matches the issuer's did:x509 (did, resolve)
//!       ─► Fragment { issuer, feed, svn, rego, receipts } | TrustList { … ledgers } | reference values
//! ```
//! The crate does no I/O, has no clock and trusts no root certificates: it verifies that the owner of the chain signed. The policy
//! names the chains that it accepts by DID. [`Receipt::verify`] verifies a receipt with a key of a [`TrustList`] that the policy allowed.
//!
//! ```
//! use policy_fragment::{BlobError, DidX509, Fragment, Issuer};
//! let issuer = Issuer::new("did:x509:0:sha256:I5ni_nuWegx4NiLaeGabiz36bDUhDDiHEFl8HXMA_4o::subject:CN:Test%20Leaf").unwrap();
//! let did: DidX509 = issuer.as_str().parse().unwrap();
//! assert_eq!(did.conditions.len(), 1);
//! assert!(matches!(Fragment::open(b"not COSE"), Err(BlobError::Envelope(_))));
//! ```

#![forbid(unsafe_code)]

mod blob;
mod chain;
mod did;
mod envelope;
mod identity;
mod key;
mod ledger;
mod media;
mod resolve;
mod subject;

pub use blob::{Blob, BlobError, Fragment, MAX_REGO_BYTES, TrustList, fuzz};
pub use chain::{Chain, ChainError, MAX_CERTIFICATE_BYTES, MAX_CERTIFICATES};
pub use did::{Condition, DidError, DidX509, FingerprintAlgorithm, Oid, SanKind, SubjectKey};
pub use envelope::{Claims, Envelope, EnvelopeError, MAX_MESSAGE_BYTES};
pub use identity::{Feed, IdentityError, Issuer};
pub use key::{KeyError, PublicKey};
pub use ledger::{LedgerKey, Receipt, ReceiptError, TrustListError, read_trust_list};
pub use media::{MediaType, MediaTypeError};
pub use resolve::ResolveError;

#[cfg(test)]
mod tests;
