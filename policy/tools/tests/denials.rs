//! Denials of the caller: every event of the texts in the directory `deny` of `CASEMATE_CASES` is explained.

use policy_tools::explain_all;
use std::path::Path;

/// Names the directory.
const VARIABLE: &str = "CASEMATE_CASES";

#[test]
fn denials_of_the_caller() {
    let Some(cases) = std::env::var_os(VARIABLE) else {
        eprintln!("skipped: denials_of_the_caller: {VARIABLE} names no directory");
        return;
    };
    let explained = |name: &str| {
        let text = std::fs::read_to_string(Path::new(&cases).join("deny").join(name)).expect(name);
        explain_all(&text, None).expect(name)
    };
    let [one] = &explained("json-escaped.txt")[..] else {
        panic!("not one")
    };
    assert_eq!(
        (one.rule.as_deref(), &one.reasons[..]),
        (Some("create_container"), &["invalid command".to_owned()][..])
    );
    let [first, second] = &explained("two-events.txt")[..] else {
        panic!("not two")
    };
    assert_eq!(
        (&first.fields[..], &first.reasons[..]),
        (&["command".to_owned()][..], &["invalid command".to_owned()][..])
    );
    assert_eq!(
        (second.rule.as_deref(), &second.fields[..]),
        (Some("mount_device"), &["layers".to_owned()][..])
    );
}
