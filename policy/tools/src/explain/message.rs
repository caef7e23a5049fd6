//! Parsing of a denial in an error text: its sentence, and its decision document, whole or cut short.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

const MARK_BEGIN: &str = "policyDecision< ";
const SENTENCE_BEGIN: &str = "denied by policy: ";
const RULE_BEGIN: &str = " (rule ";
/// Maximum number of positions that are tried as the end of a cut document.
const MAX_ATTEMPTS: usize = 256;

/// The parts of a denial in a text.
#[derive(Debug, Clone, Default)]
pub(crate) struct Message {
    /// The sentence.
    pub(crate) sentence: Option<String>,
    /// The enforcement point.
    pub(crate) rule: Option<String>,
    /// The decision document; null if there is none.
    pub(crate) decision: Value,
    /// Whether the document is cut short.
    pub(crate) cut: bool,
}

impl Message {
    pub(crate) fn read(text: &str) -> Self {
        let (head, encoded) = match text.split_once(MARK_BEGIN) {
            Some((head, rest)) => (head, Some(rest)),
            None => (text, None),
        };
        let sentence = head.split_once(SENTENCE_BEGIN).map(|(_, sentence)| sentence);
        let (sentence, rule) = match sentence.and_then(|sentence| sentence.rsplit_once(RULE_BEGIN)) {
            Some((sentence, rule)) => (Some(sentence), rule.split_once(')').map(|(rule, _)| rule.to_owned())),
            None => (sentence, None),
        };
        let (decision, cut) = encoded.map_or((Value::Null, false), document);
        let rule = decision["input"]["rule"]
            .as_str()
            .map(str::to_owned)
            .or(rule)
            .or_else(|| guess(head));
        Self {
            sentence: sentence
                .map(|sentence| sentence.trim().to_owned())
                .filter(|sentence| !sentence.is_empty()),
            rule,
            decision,
            cut,
        }
    }

    /// Whether the text has no denial.
    pub(crate) fn is_empty(&self) -> bool {
        self.sentence.is_none() && self.decision.is_null()
    }

    /// The policy's reasons.
    pub(crate) fn reasons(&self) -> Vec<&str> {
        let errors = self.decision["reason"]["errors"].as_array().into_iter().flatten();
        errors.filter_map(Value::as_str).collect()
    }
}

/// The rule by the error prefix of hcsshim, whose messages have no sentence.
fn guess(head: &str) -> Option<String> {
    let prefixes = [
        ("container creation denied due to policy", "create_container"),
        ("exec in container denied due to policy", "exec_in_container"),
        ("exec is denied due to policy", "exec_external"),
        ("overlay creation denied by policy", "mount_overlay"),
        ("overlay removal denied by policy", "unmount_overlay"),
        ("scratch mounting denied by policy", "scratch_mount"),
        ("unmounting scsi device", "unmount_device"),
        ("mounting scsi device", "mount_device"),
        ("mounting plan9 device", "plan9_mount"),
        ("get properties denied due to policy", "get_properties"),
        ("dump stacks denied due to policy", "dump_stacks"),
    ];
    let found = prefixes.iter().find(|(prefix, _)| head.contains(prefix));
    found.map(|(_, rule)| (*rule).to_owned())
}

/// The document at the beginning of `text`, and whether it is cut short.
fn document(text: &str) -> (Value, bool) {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=')))
        .unwrap_or(text.len());
    let encoded = text.get(..end).unwrap_or_default();
    let whole = encoded.get(..encoded.len() - encoded.len() % 4).unwrap_or_default();
    let bytes = STANDARD.decode(whole).unwrap_or_default();
    if let Ok(value) = serde_json::from_slice(&bytes) {
        return (value, false);
    }
    (repaired(&String::from_utf8_lossy(&bytes)), true)
}

/// The part of a cut JSON object up to its last complete element.
fn repaired(text: &str) -> Value {
    let mut open: Vec<char> = Vec::new();
    let mut places: Vec<(usize, String)> = Vec::new();
    let (mut quoted, mut escaped) = (false, false);
    for (position, character) in text.char_indices() {
        match (quoted, character) {
            (true, _) if escaped => escaped = false,
            (true, '\\') => escaped = true,
            (_, '"') => quoted = !quoted,
            (true, _) => {}
            (false, '{') => open.push('}'),
            (false, '[') => open.push(']'),
            (false, '}' | ']') => {
                open.pop();
            }
            (false, ',') => {}
            (false, _) => continue,
        }
        if !quoted && matches!(character, ',' | '{' | '[' | '}' | ']') {
            let end = position + usize::from(character != ',');
            places.push((end, open.iter().rev().collect()));
        }
    }
    let candidates = places.iter().rev().take(MAX_ATTEMPTS);
    let mut values = candidates.filter_map(|(end, closing)| serde_json::from_str(&format!("{}{closing}", text.get(..*end)?)).ok());
    values.next().unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_is_read_as_far_as_it_goes() {
        let document = json!({"decision": "deny", "input": {"argList": ["a", "b,]"], "envList": ["A=1"], "rule": "create_container"}});
        let text = document.to_string();
        assert_eq!(repaired(&text[..text.len() - 30])["input"]["argList"], json!(["a", "b,]"]));
        for end in 0..text.len() {
            let value = repaired(&text[..end]);
            let arguments = value["input"]["argList"].as_array().map_or(0, Vec::len);
            assert!(arguments <= 2, "{end}: {value}");
        }
    }

    #[test]
    fn the_sentence_is_found_in_a_truncated_denial() {
        let message = Message::read(
            "rpc error: denied by policy: container \"x\" may not start: command is not in the policy (rule create_container). policyDeci",
        );
        assert_eq!(message.rule.as_deref(), Some("create_container"));
        assert_eq!(
            message.sentence.as_deref(),
            Some("container \"x\" may not start: command is not in the policy")
        );
        assert!(Message::read("nothing of the kind").is_empty());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}", cut in 0usize..200) {
            let _ = Message::read(&text);
            let _ = Message::read(&format!("denied by policy: {text}policyDecision< {text}"));
            let encoded = STANDARD.encode(format!("{{\"input\":{{\"a\":[\"{text}\"]}}}}"));
            let end = cut.min(encoded.len());
            let _ = Message::read(&format!("policyDecision< {}", &encoded[..end]));
        }
    }
}
