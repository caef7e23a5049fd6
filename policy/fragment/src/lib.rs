//! Who signed a policy fragment: issuers as `did:x509`, feeds, and their syntax.
//!
//! A fragment names its issuer and its feed in the protected header of its signature. The issuer is a `did:x509`: the
//! fingerprint of a certificate authority and conditions that the signing certificate has to meet.
//!
//! ```
//! use policy_fragment::{DidX509, Issuer};
//! let issuer = Issuer::new("did:x509:0:sha256:I5ni_nuWegx4NiLaeGabiz36bDUhDDiHEFl8HXMA_4o::subject:CN:Test%20Leaf").unwrap();
//! let did: DidX509 = issuer.as_str().parse().unwrap();
//! assert_eq!(did.conditions.len(), 1);
//! ```

#![forbid(unsafe_code)]

mod did;
mod identity;

pub use did::{Condition, DidError, DidX509, FingerprintAlgorithm, Oid, SanKind, SubjectKey};
pub use identity::{Feed, IdentityError, Issuer};
