//! Parsing of the denials in an error text: each with its sentence, and its decision document, whole or cut short.
//!
//! ```text
//! … denied by policy: SENTENCE (rule POINT). policyDecision< BASE64 >policyDecision …      ours
//! … container creation denied due to policy: policyDecision< BASE64 >policyDecision …      hcsshim
//! … POINT not allowed by policy. Errors: [REASONS]. Input: {…} …                           older hcsshim
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::json::repaired;
use super::older;

const MARK_BEGIN: &str = "policyDecision<";
const MARK_END: &str = ">policyDecision";
const SENTENCE_BEGIN: &str = "denied by policy: ";
const RULE_BEGIN: &str = " (rule ";
/// Maximum number of denials of one text.
const MAX_DENIALS: usize = 1000;

/// The parts of a denial in a text.
#[derive(Debug, Clone, Default, PartialEq)]
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
    /// Every denial of a text without escapes ([`super::unescape`]), in its order.
    pub(crate) fn all(text: &str) -> Vec<Self> {
        let mut found = Vec::new();
        let mut rest = text;
        while found.len() < MAX_DENIALS {
            let marks = [rest.find(MARK_BEGIN), older::find(rest)];
            let Some(at) = marks.into_iter().flatten().min() else { break };
            let head = &rest[..at];
            let (message, length) = match Some(at) == marks[0] {
                true => Self::with_decision(head, &rest[at + MARK_BEGIN.len()..], MARK_BEGIN.len()),
                false => Self::in_older_words(head, &rest[at + older::MARK.len()..]),
            };
            // Denials before it that lost their decision.
            found.extend(Self::sentences(own_head(head).0));
            found.push(message);
            rest = &rest[at + length..];
        }
        found.extend(Self::sentences(rest));
        found.truncate(MAX_DENIALS);
        found.retain(|message| !message.is_empty());
        found
    }

    /// The denial whose decision follows `head`, and how much of the text it takes from its mark on.
    fn with_decision(head: &str, rest: &str, mark: usize) -> (Self, usize) {
        let (decision, cut, length) = document(rest);
        let (_, own) = own_head(head);
        let (sentence, rule) = own.map_or((None, None), sentence);
        let rule = decision["input"]["rule"]
            .as_str()
            .map(str::to_owned)
            .or(rule)
            .or_else(|| guess(head));
        let message = Self {
            sentence,
            rule,
            decision,
            cut,
        };
        (message, mark + length)
    }

    fn in_older_words(head: &str, rest: &str) -> (Self, usize) {
        let older = older::read(head, rest);
        let rule = older.rule.or_else(|| guess(head));
        let message = Self {
            sentence: None,
            rule,
            decision: older.decision,
            cut: older.cut,
        };
        (message, older::MARK.len() + older.length)
    }

    /// Sentences without a decision.
    fn sentences(text: &str) -> Vec<Self> {
        let parts = text.split(SENTENCE_BEGIN).skip(1);
        let read = |part: &str| {
            let (sentence, rule) = sentence(part.lines().next().unwrap_or_default());
            Self {
                sentence,
                rule,
                ..Self::default()
            }
        };
        parts.map(read).collect()
    }

    /// Whether the text has no denial.
    fn is_empty(&self) -> bool {
        self.sentence.is_none() && self.decision.is_null() && self.rule.is_none()
    }

    /// The policy's reasons.
    pub(crate) fn reasons(&self) -> Vec<&str> {
        let errors = self.decision["reason"]["errors"].as_array().into_iter().flatten();
        errors.filter_map(Value::as_str).collect()
    }
}

/// What is before the last sentence of `head`, and that sentence if it belongs to the mark after `head`: they are on one line.
fn own_head(head: &str) -> (&str, Option<&str>) {
    let Some(at) = head.rfind(SENTENCE_BEGIN) else {
        return (head, None);
    };
    let sentence = &head[at + SENTENCE_BEGIN.len()..];
    match sentence.trim_end().contains('\n') {
        true => (head, None),
        false => (&head[..at], Some(sentence)),
    }
}

/// Sentence and rule; the sentence is none if it is empty, as in hcsshim's messages.
fn sentence(text: &str) -> (Option<String>, Option<String>) {
    let (sentence, rule) = match text.rsplit_once(RULE_BEGIN) {
        Some((sentence, rule)) => (sentence, rule.split_once(')').map(|(rule, _)| rule.to_owned())),
        None => (text, None),
    };
    let sentence = sentence.trim();
    ((!sentence.is_empty()).then(|| sentence.to_owned()), rule)
}

/// The rule by the error prefix of hcsshim, whose messages have no sentence: the last one, the longest of those that end there.
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
    let last = |(prefix, rule): &(&str, &'static str)| head.rfind(prefix).map(|at| (at + prefix.len(), prefix.len(), *rule));
    let found = prefixes.iter().filter_map(last).max();
    found.map(|(.., rule)| rule.to_owned())
}

/// The document at the beginning of `text`, whether it is cut short, and how much of the text it takes.
fn document(text: &str) -> (Value, bool, usize) {
    let next = text.find(MARK_BEGIN).unwrap_or(text.len());
    if let Some(end) = text[..next].find(MARK_END) {
        // Terminals and mail wrap long lines.
        let packed: String = text[..end].split_whitespace().collect();
        let decoded = STANDARD.decode(packed).ok();
        if let Some(value) = decoded.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            return (value, false, end + MARK_END.len());
        }
    }
    let start = text.len() - text.trim_start().len();
    let in_base64 = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
    let length = text[start..].find(|c: char| !in_base64(c)).unwrap_or(text.len() - start);
    let whole = &text[start..start + length - length % 4];
    let bytes = STANDARD.decode(whole).unwrap_or_default();
    let (value, cut) = match serde_json::from_slice(&bytes) {
        Ok(value) => (value, false),
        Err(_) => (repaired(&String::from_utf8_lossy(&bytes)), true),
    };
    (value, cut, start + length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn encoded(document: &Value) -> String {
        STANDARD.encode(document.to_string())
    }

    fn one(text: &str) -> Message {
        let mut all = Message::all(text);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    #[test]
    fn the_sentence_is_found_in_a_truncated_denial() {
        let message = one(
            "rpc error: denied by policy: container \"x\" may not start: command is not in the policy (rule create_container). policyDeci",
        );
        assert_eq!(message.rule.as_deref(), Some("create_container"));
        assert_eq!(
            message.sentence.as_deref(),
            Some("container \"x\" may not start: command is not in the policy")
        );
        assert!(Message::all("nothing of the kind").is_empty());
    }

    #[test]
    fn every_denial_of_a_text_is_found_in_its_order() {
        let document = |reason: &str| encoded(&json!({"decision": "deny", "reason": {"errors": [reason]}}));
        let text = format!(
            "1 denied by policy: first one (rule mount_device). policyDecision< {} >policyDecision: unknown\n\
             2 denied by policy: second one, cut (rule mount_over\n\
             3 unmounting scsi device at /x denied by policy: policyDecision< {} >policyDecision\n\
             4 container creation denied due to policy: create_container not allowed by policy. Errors: [invalid command invalid user]. \
             Input: {{\"argList\":[\"sh\"]}}: unknown\n\
             5 exec in container denied due to policy: policyDecision< {}\n\
             6 denied by policy: the last (rule exec_external)",
            document("a"),
            document("b"),
            &document("c")[..20],
        );
        let all = Message::all(&text);
        let rules: Vec<_> = all.iter().map(|message| message.rule.as_deref().unwrap_or_default()).collect();
        assert_eq!(
            rules,
            [
                "mount_device",
                "",
                "unmount_device",
                "create_container",
                "exec_in_container",
                "exec_external"
            ]
        );
        let reasons: Vec<_> = all.iter().map(|message| message.reasons().join("|")).collect();
        assert_eq!(reasons, ["a", "", "b", "invalid command|invalid user", "", ""]);
        let cut: Vec<_> = all.iter().map(|message| message.cut).collect();
        assert_eq!(cut, [false, false, false, false, true, false]);
        assert_eq!(all[1].sentence.as_deref(), Some("second one, cut"));
    }

    #[test]
    fn a_wrapped_document_is_read() {
        let document = json!({"decision": "deny", "input": {"rule": "mount_device"}, "reason": {"errors": ["x"]}});
        let mut wrapped = encoded(&document);
        wrapped.insert_str(40, "\n    ");
        for (begin, end) in [(" ", " "), ("", ""), ("\n", "\n")] {
            let message = one(&format!("policyDecision<{begin}{wrapped}{end}>policyDecision"));
            assert_eq!((message.decision, message.cut), (document.clone(), false));
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}", cut in 0usize..200) {
            let _ = Message::all(&text);
            let _ = Message::all(&format!("denied by policy: {text}policyDecision< {text}"));
            let _ = Message::all(&format!("{text} not allowed by policy. Errors: [{text}]. Input: {{{text}"));
            let encoded = STANDARD.encode(format!("{{\"input\":{{\"a\":[\"{text}\"]}}}}"));
            let end = cut.min(encoded.len());
            let _ = Message::all(&format!("policyDecision< {}", &encoded[..end]));
        }
    }
}
