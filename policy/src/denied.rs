//! A denial: a sentence, then the decision document that tools extract from error texts.

use std::fmt;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::decision::{MARK_BEGIN, MARK_END};
use crate::request::Subject;
use crate::{data, denial_text};

/// Reason for a policy that gives no usable answer.
const INVALID_POLICY: &str = "Security policy is not valid. Please check security policy or re-generate with tooling.";
/// Reason where the policy denies without one.
const NO_REASON: &str =
    "Security policy is either not valid or did not provide a reason for denial. Please check security policy or re-generate with tooling.";
/// Replaces values of environment variables and arguments.
const REDACTED: &str = "<<redacted>>";

/// Why an action is not allowed.
#[derive(Debug, Clone)]
pub enum Reason {
    /// The policy denies.
    Denied {
        /// The input document, with the name of the rule.
        input: Value,
        /// The policy's `reason`, if it has one.
        reason: Option<Map<String, Value>>,
        /// Whether its `error_objects` were removed because they exceed the longest decision.
        objects_cut: bool,
    },
    /// The policy gave no usable answer.
    Invalid {
        /// The input document.
        input: Value,
        /// The fault of the answer.
        policy_error: String,
    },
    /// Refused without evaluating the policy.
    Refused(String),
}

/// The policy does not allow an action.
///
/// It displays as a sentence followed by `policyDecision< BASE64 >policyDecision`.
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
        if self.decision.starts_with(MARK_BEGIN) {
            write!(f, ". {}", self.decision)
        } else {
            Ok(())
        }
    }
}

/// How a denial is formatted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Style {
    /// Longest decision in bytes; 0 means no limit.
    pub(crate) max_bytes: usize,
    /// Whether arguments of processes are redacted.
    pub(crate) redact_arguments: bool,
}

impl Denied {
    pub(crate) fn new(point: &str, subject: &Subject<'_>, reason: Reason, style: Style) -> Self {
        let Style {
            max_bytes,
            redact_arguments,
        } = style;
        let (reasons, decision, cause) = match reason {
            Reason::Denied {
                input,
                reason,
                objects_cut,
            } => {
                let reasons = reason.as_ref().map(errors).unwrap_or_default();
                let cause = denial_text::causes(point, &input, &reasons);
                let reason = reason.map_or_else(|| Value::from(NO_REASON), |reason| Value::Object(redacted_reason(reason)));
                let document = document(redacted_input(input, redact_arguments), reason);
                (reasons, enclose(document, max_bytes, objects_cut), cause)
            }
            Reason::Invalid { input, policy_error } => {
                let mut document = document(redacted_input(input, redact_arguments), Value::from(INVALID_POLICY));
                document.insert("policyError".to_owned(), Value::from(policy_error.as_str()));
                (
                    Vec::new(),
                    enclose(document, max_bytes, false),
                    format!("the policy is not valid: {policy_error}"),
                )
            }
            Reason::Refused(text) => (Vec::new(), text.clone(), text),
        };
        let summary = denial_text::sentence(point, subject, &cause);
        Self {
            point: point.to_owned(),
            summary,
            reasons,
            decision,
        }
    }

    /// The enforcement point.
    pub fn point(&self) -> &str {
        &self.point
    }

    /// The policy's `reason.errors`.
    pub fn reasons(&self) -> &[String] {
        &self.reasons
    }

    /// The sentence.
    pub fn summary(&self) -> &str {
        &self.summary
    }

    /// `policyDecision< BASE64 >policyDecision`, or plain text where the request was refused without a decision.
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

/// Redacts what may be secret: values of environment variables always, arguments after the program's name if the policy is strict.
fn redacted_input(mut input: Value, redact_arguments: bool) -> Value {
    if let Some(list) = input.get_mut("argList").and_then(Value::as_array_mut).filter(|_| redact_arguments) {
        list.iter_mut().skip(1).for_each(|argument| *argument = Value::from(REDACTED));
    }
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

/// The two default capability sets, and the word that replaces them in a decision to keep it short.
static DEFAULT_CAPABILITIES: LazyLock<Vec<(Value, &str)>> = LazyLock::new(|| {
    let defaults = [
        (data::privileged_capabilities(), "[privileged]"),
        (data::unprivileged_capabilities(), "[unprivileged]"),
    ];
    let json = |(sets, word)| Some((serde_json::to_value(sets).ok()?, word));
    defaults.into_iter().filter_map(json).collect()
});

fn shorten_capabilities(capabilities: &mut Value) {
    if let Some((_, word)) = DEFAULT_CAPABILITIES.iter().find(|(sets, _)| sets == capabilities) {
        *capabilities = Value::from(*word);
    }
}

fn document(input: Value, reason: Value) -> Map<String, Value> {
    let fields = [("decision", Value::from("deny")), ("input", input), ("reason", reason)];
    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Encodes the document between its marks. While that is longer than `max_bytes` (0: no limit), parts are removed, the least needed first.
fn enclose(document: Map<String, Value>, max_bytes: usize, objects_cut: bool) -> String {
    let mut document = Value::Object(document);
    let mut parts: &[&str] = &["reason.error_objects", "input", "reason"];
    if objects_cut {
        parts = &parts[1..];
        document["truncated"] = json!(["reason.error_objects"]);
    }
    if max_bytes == 0 || fits(&document, max_bytes) {
        let text = encode(&document);
        if max_bytes == 0 || text.len() <= max_bytes {
            return text;
        }
    }
    if !objects_cut {
        document["truncated"] = json!([]);
    }
    let mut text = None;
    for part in parts {
        let removed = match part.split_once('.') {
            Some((parent, child)) => document
                .get_mut(parent)
                .and_then(Value::as_object_mut)
                .and_then(|parent| parent.remove(child)),
            None => document.as_object_mut().and_then(|document| document.remove(*part)),
        };
        if removed.is_none() {
            continue;
        }
        if let Some(truncated) = document["truncated"].as_array_mut() {
            truncated.push(Value::from(*part));
        }
        let shorter = encode(&document);
        let short_enough = shorter.len() <= max_bytes;
        text = Some(shorter);
        if short_enough {
            break;
        }
    }
    text.unwrap_or_else(|| encode(&document))
}

/// Whether the objects are longer than `max_bytes`, so that they need not be converted: those of a large policy are megabytes.
/// Capabilities are not counted, since they may be shortened.
pub(crate) fn objects_are_cut(objects: &regorus::Value, max_bytes: usize) -> bool {
    let capabilities = regorus::Value::from("capabilities");
    let mut counter = Counter { left: max_bytes };
    let mut fits = |value: &regorus::Value| serde_json::to_writer(&mut counter, value).is_ok();
    let all_fit = match objects {
        regorus::Value::Array(objects) => objects.iter().all(|object| match object {
            regorus::Value::Object(fields) => fields
                .iter()
                .all(|(name, value)| *name == capabilities || (fits(name) && fits(value))),
            other => fits(other),
        }),
        other => fits(other),
    };
    max_bytes != 0 && !all_fit
}

/// A writer that fails after a number of bytes.
struct Counter {
    left: usize,
}

impl std::io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.left = self.left.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::FileTooLarge)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Whether the document's JSON is short enough to encode.
fn fits(document: &Value, max_bytes: usize) -> bool {
    serde_json::to_writer(Counter { left: max_bytes }, document).is_ok()
}

fn encode(document: &Value) -> String {
    format!("{}{}{}", MARK_BEGIN, STANDARD.encode(escape_json(&document.to_string())), MARK_END)
}

/// Compact JSON with the escapes of Go's `encoding/json`, which escapes characters of HTML and JavaScript syntax.
pub fn escape_json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            // These occur only within strings, where an escape is equivalent.
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => escaped.push_str(&format!("\\u{:04x}", character as u32)),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
