//! The form of recorded decisions.

use std::collections::BTreeMap;

use policy::Denied;
use serde::Deserialize;
use serde_json::{Map, Value};

/// A scenario: one line of a vector file.
#[derive(Debug, Deserialize)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) policy: String,
    pub(crate) policy_b64: Option<String>,
    #[serde(default)]
    pub(crate) enforcer: String,
    #[serde(default)]
    pub(crate) max_error_message_length: usize,
    pub(crate) create: Creation,
    #[serde(default)]
    pub(crate) steps: Vec<Step>,
}

/// Whether the policy loads.
#[derive(Debug, Deserialize)]
pub(crate) struct Creation {
    pub(crate) ok: bool,
    pub(crate) error: Option<String>,
}

/// A request to the enforcer, or a transaction of several.
#[derive(Debug, Deserialize)]
pub(crate) struct Step {
    pub(crate) point: String,
    #[serde(default)]
    pub(crate) args: Map<String, Value>,
    pub(crate) input: Option<Value>,
    #[serde(default)]
    pub(crate) calls: Vec<Call>,
    #[serde(default)]
    pub(crate) steps: Vec<Step>,
    pub(crate) want: Want,
}

impl Step {
    /// The text of an argument, empty if there is none.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.args.get(name).and_then(Value::as_str).unwrap_or_default()
    }
}

/// One query of a step that makes several.
#[derive(Debug, Deserialize)]
pub(crate) struct Call {
    pub(crate) input: Value,
    pub(crate) want: Want,
}

/// The recorded outcome of a step.
#[derive(Debug, Deserialize)]
pub(crate) struct Want {
    pub(crate) allowed: bool,
    pub(crate) result: Option<Map<String, Value>>,
    #[serde(default)]
    pub(crate) reasons: Vec<String>,
    pub(crate) reason_text: Option<String>,
    pub(crate) num_error_objects: Option<usize>,
    pub(crate) policy_error: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) keep: Option<Kept>,
    #[serde(default)]
    pub(crate) state_delta: BTreeMap<String, Option<usize>>,
    pub(crate) module_active: Option<bool>,
}

/// The part of the request that an allowed step keeps.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Kept {
    pub(crate) env: Option<Vec<String>>,
    pub(crate) caps: Option<BTreeMap<String, Vec<String>>>,
    pub(crate) stdio: Option<bool>,
}

/// An allowed step.
pub(crate) struct Allowed {
    pub(crate) result: Map<String, Value>,
    pub(crate) kept: Option<Kept>,
}

/// The result of a step, and the answers to its queries where it makes several.
pub(crate) type Outcome = (Result<Allowed, Denied>, Vec<Map<String, Value>>);
