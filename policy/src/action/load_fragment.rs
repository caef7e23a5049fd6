//! A signed addition to the policy: `load_fragment`.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::{Action, Subject};
use crate::denied::Reason;
use crate::enforcer::Enforcer;
use crate::fragment;
use crate::ledgers::ProvenReceipt;
use crate::verdict::{Answer, Verdict};

/// Loads a fragment whose issuer and feed are proven. Judged as a whole: first whether it is expected at all, then with its
/// text at hand, once for every parameter object the policy has for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadFragment {
    /// Who signed it: a did:x509 that its certificate chain satisfies.
    pub issuer: String,
    /// What it is about, from its protected header.
    pub feed: String,
    /// Security version number of its protected header.
    pub header_svn: Option<i64>,
    /// Its Rego.
    pub text: String,
    /// Receipts that [`Enforcer::proven_receipts`] confirmed.
    pub receipts: Vec<ProvenReceipt>,
}

impl LoadFragment {
    /// The input document of the question before (`loaded` false) or after the text is at hand.
    pub(crate) fn question(&self, namespace: &str, loaded: bool) -> Value {
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

/// The first question.
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

    fn judge(&self, enforcer: &mut Enforcer) -> Result<(Map<String, Value>, FragmentVerdict), Reason> {
        enforcer.judge_fragment(self)
    }
}

/// What became of a fragment.
#[derive(Debug, Clone, PartialEq)]
pub struct FragmentVerdict {
    /// The namespace its text declares.
    pub namespace: String,
    /// Whether the policy's rules may refer to that namespace from now on.
    pub active: bool,
    /// The policy's answer to each question, in order.
    pub answers: Vec<Map<String, Value>>,
}

/// Never read from a single answer: [`LoadFragment`] is judged by several.
impl Verdict for FragmentVerdict {
    fn read(_: &Answer<'_>, _: &Subject<'_>) -> Result<Self, String> {
        Err("a fragment is judged by more than one answer".to_owned())
    }
}
