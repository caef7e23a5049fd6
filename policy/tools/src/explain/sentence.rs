//! The sentence of a denial, from its decision document: for messages that lost the sentence itself, and hcsshim's, which have none.

use policy::action::Subject;
use policy::{ContainerId, denial_text};
use serde_json::{Value, json};

use super::texts;

/// Stands for what a message does not say.
const UNKNOWN: &str = "(not in the message)";

/// The sentence for a decision on `point`, as far as both are known.
pub(super) fn sentence(decision: &Value, point: Option<&str>) -> String {
    let (input, reason) = (&decision["input"], &decision["reason"]);
    match (decision["policyError"].as_str(), point) {
        (Some(error), _) => format!("the policy itself is at fault: {error}"),
        (None, Some(point)) if !input.is_null() || !reason.is_null() => denial(point, input, reason),
        (None, Some(point)) => format!("denied by rule {point}"),
        (None, None) if reason["errors"].is_array() => "denied; the message was too long to say what was asked for".to_owned(),
        (None, None) if decision.is_null() => "denied; too little of the message is left to say what".to_owned(),
        (None, None) => "denied; the message was too long to say why".to_owned(),
    }
}

fn denial(point: &str, input: &Value, reason: &Value) -> String {
    let container = input["containerID"].as_str().map(ContainerId::new);
    let target = input["target"].as_str().or_else(|| input["unmountTarget"].as_str());
    let subject = Subject {
        container: container.as_ref(),
        target,
        ..Subject::default()
    };
    // What the reasons refer to, where the message has lost it.
    let mut known = json!({"deviceHash": UNKNOWN, "workingDir": UNKNOWN, "signal": UNKNOWN});
    for (key, value) in input.as_object().into_iter().flatten() {
        known[key] = value.clone();
    }
    let causes = match reason.as_str() {
        Some(text) => text.to_owned(),
        None => denial_text::causes(point, &known, &texts(&reason["errors"])),
    };
    denial_text::sentence(point, &subject, &causes)
}

#[cfg(test)]
mod tests {
    use policy::action::UnmountDevice;
    use policy::{Enforcer, extract_decision};

    use super::*;

    const NO_DEVICES: &str = "package policy\napi_version := \"0.12.0\"\nframework_version := \"0.5.0\"\n\
        unmount_device := data.framework.unmount_device\nreason := data.framework.reason\n";

    #[test]
    fn the_sentence_is_that_of_the_denial() {
        let action = UnmountDevice {
            unmount_target: "/run/mounts/scsi/m0".to_owned(),
        };
        let denied = Enforcer::new(NO_DEVICES).unwrap().enforce(action).err().unwrap();
        let decision = extract_decision(denied.decision()).unwrap();
        assert_eq!(sentence(&decision, Some("unmount_device")), denied.summary());
        let lost = json!({"decision": "deny", "reason": {"errors": ["deviceHash not found"]}});
        assert_eq!(
            sentence(&lost, Some("mount_device")),
            "layer at the requested path may not be mounted: layer hash (not in the message) is not in the policy (rule mount_device)"
        );
        assert_eq!(sentence(&Value::Null, Some("unmount_device")), "denied by rule unmount_device");
    }
}
