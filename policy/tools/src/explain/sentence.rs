//! The sentence of a denial, from its decision document: for messages that lost the sentence itself.

use policy::action::Subject;
use policy::{ContainerId, DecisionError, denial_text, extract_decision};
use serde_json::Value;

use super::texts;

/// The sentence for the decision in `text`, which may have other text around it.
///
/// # Errors
/// The text has no decision, or it is cut short.
pub(super) fn sentence(text: &str) -> Result<String, DecisionError> {
    let decision = extract_decision(text)?;
    let (input, reason) = (&decision["input"], &decision["reason"]);
    Ok(match (decision["policyError"].as_str(), input["rule"].as_str()) {
        (Some(error), _) => format!("the policy itself is at fault: {error}"),
        (None, Some(point)) => denial(point, input, reason),
        (None, None) if reason["errors"].is_array() => "denied; the message was too long to say what was asked for".to_owned(),
        (None, None) => "denied; the message was too long to say why".to_owned(),
    })
}

fn denial(point: &str, input: &Value, reason: &Value) -> String {
    let container = input["containerID"].as_str().map(ContainerId::new);
    let target = input["target"].as_str().or_else(|| input["unmountTarget"].as_str());
    let subject = Subject {
        container: container.as_ref(),
        target,
        ..Subject::default()
    };
    let causes = match reason.as_str() {
        Some(text) => text.to_owned(),
        None => denial_text::causes(point, input, &texts(&reason["errors"])),
    };
    denial_text::sentence(point, &subject, &causes)
}

#[cfg(test)]
mod tests {
    use policy::action::UnmountDevice;
    use policy::{Enforcer, OPEN_DOOR};

    use super::*;

    const NO_DEVICES: &str = "package policy\napi_version := \"0.12.0\"\nframework_version := \"0.5.0\"\n\
        unmount_device := data.framework.unmount_device\nreason := data.framework.reason\n";

    #[test]
    fn a_denial_inside_other_text_is_explained() {
        let action = UnmountDevice {
            unmount_target: "/run/mounts/scsi/m0".to_owned(),
        };
        let denied = Enforcer::new(NO_DEVICES).unwrap().enforce(action).err().unwrap();
        let explained = sentence(&format!("ctr: rpc error: {}: unknown", denied.decision())).unwrap();
        assert_eq!(explained, denied.summary());
        assert!(
            explained.starts_with("layer at /run/mounts/scsi/m0 may not be unmounted"),
            "{explained}"
        );
    }

    #[test]
    fn other_text_is_an_error() {
        assert!(matches!(sentence(OPEN_DOOR), Err(DecisionError::NoDecision(_))));
        assert!(matches!(
            sentence("policyDecision< AAA >policyDecision"),
            Err(DecisionError::Malformed(_))
        ));
    }
}
