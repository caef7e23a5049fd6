//! Signed policy fragments: `load_fragment`.

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{Action, Load, Subject};
use crate::fragment;
use crate::ledgers::ProvenReceipt;
use crate::verdict::FragmentVerdict;

/// Loads a fragment whose issuer and feed are verified. The policy is queried first without the fragment's rules, then with them,
/// once for each of its parameter objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadFragment {
    /// The signer: a did:x509 that its certificate chain satisfies.
    pub issuer: String,
    /// The feed, from its protected header.
    pub feed: String,
    /// Security version number of its protected header.
    pub header_svn: Option<i64>,
    /// Its Rego text.
    pub text: String,
    /// Receipts that [`crate::Enforcer::proven_receipts`] confirmed.
    pub receipts: Vec<ProvenReceipt>,
}

impl LoadFragment {
    /// The input document of the query before (`loaded` is false) or after the fragment's rules are loaded.
    pub fn question(&self, namespace: &str, loaded: bool) -> Value {
        json!({
            "issuer": self.issuer,
            "feed": self.feed,
            "namespace": namespace,
            "fragment_loaded": loaded,
            "has_header_svn": self.header_svn.is_some(),
            "header_svn": self.header_svn,
            "receipts": self.receipts,
        })
    }
}

/// As the input document of the first query.
impl Serialize for LoadFragment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let namespace = fragment::namespace(&self.text).map_err(serde::ser::Error::custom)?;
        self.question(namespace, false).serialize(serializer)
    }
}

impl Action for LoadFragment {
    const POINT: &'static str = "load_fragment";
    type Verdict = FragmentVerdict;

    fn subject(&self) -> Subject<'_> {
        Subject {
            target: Some(&self.feed),
            ..Subject::default()
        }
    }

    fn load(&self) -> Option<Load<'_>> {
        Some(Load::Fragment(self))
    }
}
