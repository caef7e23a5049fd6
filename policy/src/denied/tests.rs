use serde_json::json;

use super::*;
use crate::extract_decision;

fn denied(input: Value, reason: Value, max_bytes: usize) -> Denied {
    let reason = Reason::Denied {
        input,
        reason: reason.as_object().cloned(),
        objects_cut: false,
    };
    let style = Style {
        max_bytes,
        ..Style::default()
    };
    Denied::new("create_container", &Subject::default(), reason, style)
}

#[test]
fn html_and_line_separators_are_escaped() {
    let text = "<a> & \u{2028}\u{2029} \"q\"";
    let denied = denied(json!({"x": text}), json!({"errors": []}), 0);
    let document = STANDARD
        .decode(denied.decision().trim_start_matches(MARK_BEGIN).trim_end_matches(MARK_END))
        .unwrap();
    let document = String::from_utf8(document).unwrap();
    assert!(document.contains(r"\u003ca\u003e \u0026 \u2028\u2029"), "{document}");
    assert_eq!(extract_decision(denied.decision()).unwrap()["input"]["x"], text);
}

#[test]
fn parts_are_removed_in_order_until_the_text_fits() {
    let long = "x".repeat(3000);
    let cut = |input: &str, objects: &str, errors: &str| {
        let reason = json!({"errors": [errors], "error_objects": [objects]});
        let denied = denied(json!({"field": input}), reason, 3072);
        let decision = extract_decision(denied.decision()).unwrap();
        (decision["truncated"].clone(), denied.decision().len())
    };
    assert_eq!(cut("a", "b", "c").0, Value::Null);
    assert_eq!(cut("a", &long, "c").0, json!(["reason.error_objects"]));
    assert_eq!(cut(&long, &long, "c").0, json!(["reason.error_objects", "input"]));
    let (parts, length) = cut(&long, &long, &long);
    assert_eq!(parts, json!(["reason.error_objects", "input", "reason"]));
    assert!(length < 200);
}

#[test]
fn oversized_objects_are_removed_before_conversion() {
    let long = |field: &str| regorus::Value::from(json!([{"command": ["app"]}, {field: "x".repeat(4000)}]));
    assert!(objects_are_cut(&long("layers"), 3072));
    assert!(!objects_are_cut(&long("layers"), 0), "0 is without limit");
    assert!(!objects_are_cut(&long("layers"), 5000));
    assert!(!objects_are_cut(&long("capabilities"), 3072), "a word may take their place");
    assert!(!objects_are_cut(&regorus::Value::Null, 10));
}

#[test]
fn environment_values_are_redacted() {
    let denied = denied(json!({"envList": ["A=secret", "B", "C=x=y"]}), json!({}), 0);
    let decision = extract_decision(denied.decision()).unwrap();
    assert_eq!(
        decision["input"]["envList"],
        json!(["A=<<redacted>>", "B=<<redacted>>", "C=<<redacted>>"])
    );
}

#[test]
fn a_policy_without_a_reason_says_so() {
    let denied = Denied::new(
        "x",
        &Subject::default(),
        Reason::Denied {
            input: json!({}),
            reason: None,
            objects_cut: false,
        },
        Style::default(),
    );
    assert_eq!(extract_decision(denied.decision()).unwrap()["reason"], NO_REASON);
    assert_eq!(denied.summary(), "x is not allowed: the policy does not allow it (rule x)");
}

#[test]
fn a_strict_policy_redacts_arguments() {
    let reason = Reason::Denied {
        input: json!({"argList": ["app", "--password=x"]}),
        reason: None,
        objects_cut: false,
    };
    let style = Style {
        redact_arguments: true,
        ..Style::default()
    };
    let denied = Denied::new("x", &Subject::default(), reason, style);
    let document = extract_decision(denied.decision()).unwrap();
    assert_eq!(document["input"]["argList"], json!(["app", REDACTED]));
}
