//! Entry points for fuzzing: all parsers of untrusted text.

use std::path::Path;

/// Parses a configuration as TOML and JSON, and generates its policy. No file is read, since paths do not resolve.
pub fn configuration(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for config in [crate::Config::from_toml(&text), crate::Config::from_json(&text)]
        .into_iter()
        .flatten()
    {
        let _ = crate::generate(&config, Path::new("/nonexistent"));
        let _ = crate::generate_fragment(&config, "fuzzed", "1", Path::new("/nonexistent"));
    }
}

/// Explains an error text without a policy and with one.
pub fn deny_message(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = crate::explain_all(&text, None);
    let policy = "package policy\ncontainers := [{\"command\": [\"sh\"], \"env_rules\": [{\"pattern\": \"A=1\"}], \"mounts\": [{}], \"user\": {}}]\n";
    if let Ok(document) = crate::Document::read(policy) {
        let _ = crate::explain_all(&text, Some(&document));
    }
}

/// Checks a policy, and converts it from and to the legacy form.
pub fn policy_text(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(document) = crate::Document::read(&text) {
        let _ = crate::check(&document);
        let _ = crate::write_legacy(&document);
    }
    let _ = crate::convert_legacy(&text);
    let _ = crate::read_commands(&text);
    let _ = crate::policy_text(bytes.to_vec());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_text_makes_a_reader_panic(text in ".{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for bytes in [text.as_bytes(), bytes.as_slice()] {
                configuration(bytes);
                deny_message(bytes);
                policy_text(bytes);
            }
        }

        #[test]
        fn no_field_makes_a_check_panic(field in "[a-z_]{1,20}", value in "\\[?\\{?\"?[a-z0-9]{0,8}\"?\\}?\\]?") {
            policy_text(format!("package policy\nframework_version := \"0.5.0\"\ncontainers := [{{\"{field}\": {value}}}]\n").as_bytes());
            configuration(format!("[[container]]\n{field} = {value}\n").as_bytes());
        }
    }
}
