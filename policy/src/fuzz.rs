//! What hostile bytes reach, as functions of bytes: nothing may panic, and nothing may be allowed that was not before. A fuzzer calls
//! them; the tests beside them call each with a corpus.

use crate::action::{GetProperties, LoadFragment, MountDevice};
use crate::ids::RootHash;
use crate::{Enforcer, OPEN_DOOR, explain, extract_decision};

/// A policy that takes fragments of one issuer and feed, and lets rules refer to their namespace.
const WITH_FRAGMENT: &str = r#"package policy
api_version := "0.12.0"
framework_version := "0.5.0"
fragments := [{"issuer": "i", "feed": "f", "minimum_svn": "1", "includes": ["containers", "fragments", "namespace"]}]
load_fragment := data.framework.load_fragment
mount_device := data.framework.mount_device
get_properties := {"allowed": false}
reason := data.framework.reason
"#;

/// The text of a policy, and the first decisions under it.
pub fn policy_text(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(mut enforcer) = Enforcer::new(text) else { return };
    let _ = enforcer.enforce(GetProperties {}).map(|permit| permit.commit());
    let _ = enforcer
        .enforce(MountDevice::new("/run/mounts/scsi/m0", RootHash::none()))
        .map(|permit| permit.commit());
}

/// The text of a fragment.
///
/// # Panics
/// The fragment gave itself more than containers: that is what is looked for.
pub fn fragment(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(mut enforcer) = Enforcer::new(WITH_FRAGMENT) else { return };
    let request = LoadFragment {
        issuer: "i".to_owned(),
        feed: "f".to_owned(),
        header_svn: None,
        text: text.to_owned(),
        receipts: Vec::new(),
    };
    let _ = enforcer.enforce(request).map(|permit| permit.commit());
    assert!(
        enforcer.enforce(GetProperties {}).is_err(),
        "a fragment allowed what the policy denies"
    );
}

/// A denial's text on its way back.
pub fn deny_message(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = extract_decision(&text);
    let _ = explain(&text);
}

/// Bytes to begin with: what each function gets in practice.
pub fn corpus() -> Vec<&'static [u8]> {
    vec![
        OPEN_DOOR.as_bytes(),
        WITH_FRAGMENT.as_bytes(),
        b"package ns\nsvn := \"1\"\nframework_version := \"0.5.0\"\ncontainers := []\nget_properties := {\"allowed\": true}\n",
        b"package policy\nsvn := \"1\"\n",
        b"denied. policyDecision< eyJkZWNpc2lvbiI6ImRlbnkifQ== >policyDecision",
        b"policyDecision< >policyDecision",
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A text of the corpus with a piece cut out and something put in.
    fn mutated() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"[[[[[[".to_vec()),
            Just(b"{\"".to_vec()),
            Just(b" if {".to_vec()),
            Just(b"\n\n".to_vec()),
            prop::collection::vec(any::<u8>(), 0..8),
        ];
        (0..corpus().len(), any::<prop::sample::Index>(), any::<prop::sample::Index>(), piece).prop_map(|(text, from, length, piece)| {
            let mut bytes = corpus()[text].to_vec();
            let from = from.index(bytes.len());
            let to = (from + length.index(16)).min(bytes.len());
            drop(bytes.splice(from..to, piece));
            bytes
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn nothing_panics(bytes in mutated()) {
            policy_text(&bytes);
            fragment(&bytes);
            deny_message(&bytes);
        }
    }

    #[test]
    fn the_corpus_passes() {
        for bytes in corpus() {
            policy_text(bytes);
            fragment(bytes);
            deny_message(bytes);
        }
    }

    #[test]
    fn deep_nesting_is_an_error() {
        for open in ["[", "{", "(", "{\"a\":", "[x |", "not ", "-"] {
            let text = format!("package policy\nx := {}\n", open.repeat(100_000));
            policy_text(text.as_bytes());
            let text = format!("package policy\nx if {{\n{}\n}}\n", open.repeat(50_000));
            policy_text(text.as_bytes());
        }
    }
}
