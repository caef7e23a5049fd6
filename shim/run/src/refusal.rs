//! What a refusal of containerd means to the user: a denial by the policy, a shim that is not installed, or another.

use crate::attach::AttachError;
use crate::containerd::ContainerdError;

/// Begins a denial (`policy::denial_text`), and the decision for tools in it.
const DENIED: &str = "denied by policy:";
const DECISION: &str = "policyDecision<";
/// Ends the decision.
const DECISION_END: &str = ">policyDecision";
/// The shim's program, which containerd looks for.
const SHIM: &str = "containerd-shim-casemate-v2";
/// How containerd says that it has not found it (1.6 to 2.0).
const ABSENT: [&str; 3] = ["not installed", "file does not exist", "not found"];

/// A refusal, understood.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The policy denied something.
    Denied {
        /// What and why, in words.
        sentence: String,
        /// For `casemate policy explain`; empty if there is none.
        decision: String,
    },
    /// containerd does not find the shim.
    NoShim,
}

/// What the error says, if it is one of these.
pub fn understand(error: &AttachError) -> Option<Refusal> {
    match error {
        AttachError::Containerd(ContainerdError::Call { status, .. }) => of_text(status.message()),
        _ => None,
    }
}

fn of_text(text: &str) -> Option<Refusal> {
    if let Some((_, denial)) = text.split_once(DENIED) {
        let (sentence, decision) = denial.split_once(DECISION).unwrap_or((denial, ""));
        let decision = decision
            .split_once(DECISION_END)
            .map(|(decision, _)| format!("{DECISION}{decision}{DECISION_END}"));
        return Some(Refusal::Denied {
            sentence: sentence.trim().trim_end_matches([':', ',']).to_owned(),
            decision: decision.unwrap_or_default(),
        });
    }
    let absent = text.contains(SHIM) && ABSENT.iter().any(|words| text.contains(words));
    absent.then_some(Refusal::NoShim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_is_its_sentence_and_its_decision() {
        let text = "failed to create shim task: denied by policy: container web may not be created (rule create_container): \
                    policyDecision<eyJ9>policyDecision: unknown";
        assert_eq!(
            of_text(text),
            Some(Refusal::Denied {
                sentence: "container web may not be created (rule create_container)".to_owned(),
                decision: "policyDecision<eyJ9>policyDecision".to_owned(),
            })
        );
        let Some(Refusal::Denied { decision, .. }) = of_text("denied by policy: no policyDecision<trunc") else {
            panic!("not a denial")
        };
        assert_eq!(decision, "");
    }

    #[test]
    fn a_shim_that_containerd_does_not_find_is_told_from_one_that_fails() {
        let absent = "failed to start shim: failed to resolve runtime path: runtime \"io.containerd.casemate.v2\" binary not installed \
                      \"containerd-shim-casemate-v2\": file does not exist: unknown";
        assert_eq!(of_text(absent), Some(Refusal::NoShim));
        assert_eq!(of_text("image x not found"), None);
        assert_eq!(of_text("containerd-shim-casemate-v2: cannot boot"), None);
    }
}
