//! A denial: plain words first, then the decision document that existing tools read out of error texts.

use std::fmt;
use std::sync::LazyLock;

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
pub enum Reason {
    /// The policy answered no; `reason` is what it says about it, if it says anything.
    Denied {
        /// The question, with the name of the rule.
        input: Value,
        /// The policy's `reason`.
        reason: Option<Map<String, Value>>,
        /// Whether its `error_objects` were left out, being far longer than any decision text.
        objects_cut: bool,
    },
    /// The policy gave no usable answer.
    Invalid {
        /// The question.
        input: Value,
        /// What is wrong with the answer.
        policy_error: String,
    },
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

/// How a denial is written.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Style {
    /// Longest decision text in bytes; 0 is without limit.
    pub(crate) max_bytes: usize,
    /// Whether the host may not read back the arguments of processes.
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
                let cause = plain::causes(point, &input, &reasons);
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
///
/// Arguments can be secrets as well. The program's name stays; what existing tools show stays unless the policy is strict.
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

/// The two default sets, and the word that takes their place: they are long and say nothing.
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

/// Puts the document between its marks; if that is longer than `max_bytes` (0: never), the least needed parts are left out in turn.
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

/// Whether the objects are longer than any decision text may get, and need not even be converted: those of a large policy are
/// megabytes. Capabilities do not count, which may be shortened.
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

/// Counts down what is written, and takes no more.
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

/// Whether the document's JSON is short enough to be worth encoding.
fn fits(document: &Value, max_bytes: usize) -> bool {
    serde_json::to_writer(Counter { left: max_bytes }, document).is_ok()
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
