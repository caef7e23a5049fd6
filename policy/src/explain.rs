//! A decision document read out of an error text, told in plain words with what the policy would have allowed.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use crate::action::Subject;
use crate::ids::ContainerId;
use crate::plain::{self, DecisionError, extract_decision};

/// Most alternatives shown for one field.
const MAX_SHOWN: usize = 5;

/// Why something was denied, a line for each thing to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The enforcement point, where the message still says it.
    pub point: Option<String>,
    /// Plain words, the sentence first.
    pub lines: Vec<String>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

/// Explains the denial in `text`, which may hold anything around it.
///
/// # Errors
/// No decision is in the text, or it is cut short.
pub fn explain(text: &str) -> Result<Explanation, DecisionError> {
    let decision = extract_decision(text)?;
    let input = &decision["input"];
    let point = input["rule"].as_str().map(str::to_owned);
    let mut lines = Vec::new();
    if let Some(error) = decision["policyError"].as_str() {
        lines.push(format!("the policy itself is at fault: {error}"));
    } else if let Some(point) = &point {
        lines.push(denial(point, input, &decision["reason"]));
        lines.extend(alternatives(input, &decision["reason"]));
    } else if let Some(errors) = decision["reason"]["errors"].as_array() {
        lines.push("denied; the message was too long to say what was asked for".to_owned());
        lines.extend(errors.iter().filter_map(Value::as_str).map(str::to_owned));
    } else {
        lines.push("denied; the message was too long to say why".to_owned());
    }
    let cut: Vec<_> = decision["truncated"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if !cut.is_empty() {
        lines.push(format!("left out of the message: {}", cut.join(", ")));
    }
    Ok(Explanation { point, lines })
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
        None => plain::causes(point, input, &texts(&reason["errors"])),
    };
    format!("{}: {causes} (rule {point})", plain::refusal(point, &subject))
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(|text| text.as_str().map(str::to_owned))
        .collect()
}

/// What was asked for and what the objects that were considered would have allowed, for the fields that were refused.
fn alternatives(input: &Value, reason: &Value) -> Vec<String> {
    let objects = reason["error_objects"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut lines = Vec::new();
    for error in texts(&reason["errors"]) {
        let (asked, allowed) = match error.as_str() {
            "invalid command" => ("argList", "command"),
            "invalid working directory" => ("workingDir", "working_dir"),
            "invalid seccomp" => ("seccompProfileSHA256", "seccomp_profile_sha256"),
            _ => continue,
        };
        let shown: BTreeSet<String> = objects
            .iter()
            .filter_map(|object| object.get(allowed))
            .map(Value::to_string)
            .collect();
        if !shown.is_empty() {
            let more = shown.len().saturating_sub(MAX_SHOWN);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let shown: Vec<_> = shown.into_iter().take(MAX_SHOWN).collect();
            lines.push(format!(
                "  asked for {allowed} {}, the policy allows {}{more}",
                input[asked],
                shown.join(" or ")
            ));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::UnmountDevice;
    use crate::{Enforcer, OPEN_DOOR};

    const NO_DEVICES: &str = "package policy\napi_version := \"0.12.0\"\nframework_version := \"0.5.0\"\n\
        unmount_device := data.framework.unmount_device\nreason := data.framework.reason\n";

    #[test]
    fn a_denial_inside_other_text_is_explained() {
        let action = UnmountDevice {
            unmount_target: "/run/mounts/scsi/m0".to_owned(),
        };
        let denied = Enforcer::new(NO_DEVICES).unwrap().enforce(action).err().unwrap();
        let explained = explain(&format!("ctr: rpc error: {denied}: unknown")).unwrap();
        assert_eq!(explained.point.as_deref(), Some("unmount_device"));
        assert!(
            explained.lines[0].contains("/run/mounts/scsi/m0 may not be unmounted"),
            "{explained}"
        );
    }

    #[test]
    fn other_text_is_an_error() {
        assert!(matches!(explain(OPEN_DOOR), Err(DecisionError::NoDecision(_))));
        assert!(matches!(
            explain("policyDecision< AAA >policyDecision"),
            Err(DecisionError::Malformed(_))
        ));
    }
}
