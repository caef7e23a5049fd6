//! A log on its way from a guest to a verifier, and its judgement. What can be read has this one encoding, and takes entries.
#![no_main]

use libfuzzer_sys::fuzz_target;
use permit_log::{Entry, Log, Requirements};
use std::sync::LazyLock;

static REQUIREMENTS: LazyLock<Requirements> = LazyLock::new(|| {
    let layer = |digit: &str| digit.repeat(64);
    let text = format!(
        r#"{{"whole": true, "policy": "{nine}", "layers": ["{one}", "{two}"], "fragments": [], "only_named": true,
            "started_before": [["proxy", "app"]], "no_exec_since": ["app"], "never": ["external"],
            "containers": {{"proxy": {{"layers": ["{one}"], "command": ["/proxy"]}}, "app": {{"layers": ["{two}"]}}}}}}"#,
        nine = "09".repeat(32),
        one = layer("1"),
        two = layer("2"),
    );
    serde_json::from_str(&text).unwrap()
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut log) = Log::decode(bytes) else { return };
    assert_eq!(log.encode(), bytes);
    let findings = REQUIREMENTS.judge(&log);
    assert_eq!(findings.len(), 8);
    let head = log.head();
    log.append(Entry::PowerOff).unwrap();
    assert_ne!(log.head(), head);
});
