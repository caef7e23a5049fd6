//! Keys of transparency ledgers: `load_transparency_trust_list`.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{Action, Load, Subject};
use crate::verdict::{Answer, Verdict, go_type};

/// Loads the keys of a trust list whose issuer, subject and version are verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadTransparencyTrustList {
    /// The signer.
    pub issuer: String,
    /// The subject.
    pub subject: String,
    /// Its security version number.
    pub svn: i64,
    /// By ledger and key id, the encoded key.
    pub ledgers: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
}

impl Serialize for LoadTransparencyTrustList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ledgers: Vec<&String> = self.ledgers.keys().collect();
        json!({"issuer": self.issuer, "subject": self.subject, "svn": self.svn, "ledgers": ledgers}).serialize(serializer)
    }
}

impl Action for LoadTransparencyTrustList {
    const POINT: &'static str = "load_transparency_trust_list";
    type Verdict = TrustListVerdict;

    fn subject(&self) -> Subject<'_> {
        Subject {
            target: Some(&self.subject),
            ..Subject::default()
        }
    }

    fn load(&self) -> Option<Load<'_>> {
        Some(Load::TrustList(self))
    }
}

/// The ledgers whose keys are loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustListVerdict {
    /// Names, at least one.
    pub allowed_ledgers: Vec<String>,
}

impl Verdict for TrustListVerdict {
    fn read(answer: &Answer<'_>, _: &Subject<'_>) -> Result<Self, String> {
        let place = "unable to get allowed_ledgers from load_transparency_trust_list result";
        let list = match answer.result.get("allowed_ledgers") {
            Some(Value::Array(list)) => list,
            Some(_) => return Err(format!("{place}: value for 'allowed_ledgers' is not an array")),
            None => return Err(format!("{place}: unable to find value for key 'allowed_ledgers'")),
        };
        if list.is_empty() {
            return Err("transparency trust list carries no ledgers authorized by the policy".to_owned());
        }
        let name = |entry: &Value| match entry.as_str() {
            Some(name) => Ok(name.to_owned()),
            None => Err(format!(
                "Elements of result.allowed_ledgers must be strings, got {}",
                go_type(entry)
            )),
        };
        Ok(Self {
            allowed_ledgers: list.iter().map(name).collect::<Result<_, _>>()?,
        })
    }
}
