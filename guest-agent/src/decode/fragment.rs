//! A signed message from the host: its length is checked, then it is opened. Opening proves who signed it; the policy judges it later.

use std::collections::BTreeMap;

use agent_protocol::{LoadFragmentRequest, limits::FRAGMENT_BYTES};
use policy::action::LoadTransparencyTrustList;
use policy_fragment::{Blob, Fragment, MediaType};

use super::DecodeError;

/// A message that is not opened yet.
#[derive(Debug)]
pub struct Injection {
    media_type: MediaType,
    message: Vec<u8>,
}

/// What a message adds to the policy.
#[derive(Debug)]
pub enum Addition {
    /// A fragment, whose receipts are not verified yet.
    Fragment(Fragment),
    /// Keys of transparency ledgers.
    TrustList(LoadTransparencyTrustList),
    /// Reference values for the security context directory, unchanged. Verifiers outside judge who signed them, not the guest.
    Reference(MediaType, Vec<u8>),
}

/// The message, and the kind that the host declares.
pub fn injection(request: LoadFragmentRequest) -> Result<Injection, DecodeError> {
    let LoadFragmentRequest { message, media_type, .. } = request;
    if message.len() > FRAGMENT_BYTES {
        return Err(DecodeError::FragmentTooLong(message.len()));
    }
    let media_type = media_type.parse::<MediaType>().map_err(policy_fragment::BlobError::from)?;
    Ok(Injection { media_type, message })
}

impl Injection {
    /// Verifies chain and signature and proves the issuer; takes milliseconds.
    ///
    /// # Errors
    /// The message is malformed, or its issuer did not sign it for this use.
    pub fn open(self) -> Result<Addition, DecodeError> {
        match Blob::open(&self.media_type.to_string(), &self.message)? {
            Blob::Fragment(fragment) => Ok(Addition::Fragment(fragment)),
            Blob::TrustList(list) => {
                let keys = |keys: Vec<policy_fragment::LedgerKey>| -> BTreeMap<String, Vec<u8>> {
                    keys.iter().map(|key| (key.kid().to_owned(), key.to_bytes())).collect()
                };
                Ok(Addition::TrustList(LoadTransparencyTrustList {
                    issuer: list.issuer.as_str().to_owned(),
                    subject: list.subject.as_str().to_owned(),
                    svn: list.svn,
                    ledgers: list.ledgers.into_iter().map(|(ledger, offered)| (ledger, keys(offered))).collect(),
                }))
            }
            Blob::ReferenceInfo(media_type, message) => Ok(Addition::Reference(media_type, message)),
        }
    }
}
