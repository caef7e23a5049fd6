//! A denial: plain words first, then the decision document that existing tools read out of error texts.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::action::Subject;
use crate::{data, plain};

/// Reason given when the policy itself is at fault.
const INVALID_POLICY: &str = "Security policy is not valid. Please check security policy or re-generate with tooling.";
/// Reason given when the policy denies and does not say why.
const NO_REASON: &str =
    "Security policy is either not valid or did not provide a reason for denial. Please check security policy or re-generate with tooling.";
/// Takes the place of an environment value.
const REDACTED: &str = "<<redacted>>";

/// Why an action was not allowed.
#[derive(Debug, Clone)]
pub(crate) enum Reason {
    /// The policy answered no; `reason` is what it says about it, if it says anything.
    Denied { input: Value, reason: Option<Map<String, Value>> },
    /// The policy gave no usable answer.
    Invalid { input: Value, policy_error: String },
    /// Refused outside the policy.
    Refused(String),
}

/// The policy does not allow an action.
///
/// Shown, it is one sentence in plain words followed by `policyDecision< BASE64 >policyDecision`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Denied {
    point: String,
    summary: String,
    reasons: Vec<String>,
    decision: String,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "denied by policy: {}", self.summary)?;
        if self.decision.starts_with(plain::MARK_BEGIN) {
            write!(f, ". {}", self.decision)
        } else {
            Ok(())
        }
    }
}

impl Denied {
    pub(crate) fn new(point: &str, subject: &Subject<'_>, reason: Reason, max_bytes: usize) -> Self {
        let (reasons, decision, cause) = match &reason {
            Reason::Denied { input, reason } => {
                let reasons = reason.as_ref().map(errors).unwrap_or_default();
                let document = json!({
                    "decision": "deny",
                    "input": redacted_input(input),
                    "reason": reason.clone().map_or_else(|| Value::from(NO_REASON), |reason| Value::Object(redacted_reason(reason))),
                });
                let cause = plain::causes(point, input, &reasons);
                (reasons, enclose(document, max_bytes), cause)
            }
            Reason::Invalid { input, policy_error } => {
                let document =
                    json!({"decision": "deny", "input": redacted_input(input), "reason": INVALID_POLICY, "policyError": policy_error});
                (
                    Vec::new(),
                    enclose(document, max_bytes),
                    format!("the policy is not valid: {policy_error}"),
                )
            }
            Reason::Refused(text) => (Vec::new(), text.clone(), text.clone()),
        };
        let summary = format!("{}: {cause} (rule {point})", plain::refusal(point, subject));
        Self {
            point: point.to_owned(),
            summary,
            reasons,
            decision,
        }
    }

    /// The enforcement point that denied.
    pub fn point(&self) -> &str {
        &self.point
    }

    /// The policy's own reasons, as its `reason.errors`.
    pub fn reasons(&self) -> &[String] {
        &self.reasons
    }

    /// The sentence in plain words alone.
    pub fn summary(&self) -> &str {
        &self.summary
    }

    /// `policyDecision< BASE64 >policyDecision`, or plain text where the policy was not asked or its answer was malformed.
    pub fn decision(&self) -> &str {
        &self.decision
    }
}

fn errors(reason: &Map<String, Value>) -> Vec<String> {
    reason
        .get("errors")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|e| e.as_str().map(str::to_owned))
        .collect()
}

/// The host may learn names of environment variables, not their values.
fn redacted_input(input: &Value) -> Value {
    let mut input = input.clone();
    if let Some(list) = input.get_mut("envList").and_then(Value::as_array_mut) {
        for entry in list {
            if let Some(text) = entry.as_str() {
                let name = text.split_once('=').map_or(text, |(name, _)| name);
                *entry = Value::from(format!("{name}={REDACTED}"));
            }
        }
    }
    if let Some(capabilities) = input.get_mut("capabilities") {
        shorten_capabilities(capabilities);
    }
    input
}

fn redacted_reason(mut reason: Map<String, Value>) -> Map<String, Value> {
    if let Some(objects) = reason.get_mut("error_objects").and_then(Value::as_array_mut) {
        for capabilities in objects.iter_mut().filter_map(|object| object.get_mut("capabilities")) {
            shorten_capabilities(capabilities);
        }
    }
    reason
}

/// The two default sets are long and say nothing; a word takes their place.
fn shorten_capabilities(capabilities: &mut Value) {
    let is = |default: crate::action::Capabilities| serde_json::to_value(default).is_ok_and(|default| default == *capabilities);
    if is(data::privileged_capabilities()) {
        *capabilities = Value::from("[privileged]");
    } else if is(data::unprivileged_capabilities()) {
        *capabilities = Value::from("[unprivileged]");
    }
}

/// Puts the document between its marks; if that is longer than `max_bytes` (0: never), the least needed parts are left out in turn.
fn enclose(mut document: Value, max_bytes: usize) -> String {
    let mut text = encode(&document);
    if max_bytes == 0 || text.len() <= max_bytes {
        return text;
    }
    document["truncated"] = json!([]);
    for part in ["reason.error_objects", "input", "reason"] {
        let removed = match part.split_once('.') {
            Some((parent, child)) => document
                .get_mut(parent)
                .and_then(Value::as_object_mut)
                .and_then(|parent| parent.remove(child)),
            None => document.as_object_mut().and_then(|document| document.remove(part)),
        };
        if removed.is_none() {
            continue;
        }
        if let Some(truncated) = document["truncated"].as_array_mut() {
            truncated.push(Value::from(part));
        }
        text = encode(&document);
        if text.len() <= max_bytes {
            break;
        }
    }
    text
}

fn encode(document: &Value) -> String {
    format!(
        "{}{}{}",
        plain::MARK_BEGIN,
        STANDARD.encode(escape_json(&document.to_string())),
        plain::MARK_END
    )
}

/// Compact JSON with the escapes of existing tools: no character that HTML or JavaScript would take for syntax.
pub fn escape_json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            // These occur only inside strings, where an escape means the same character.
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => escaped.push_str(&format!("\\u{:04x}", character as u32)),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
