//! Validation of all patterns of a policy or fragment when it is loaded.

use std::collections::HashSet;

use regorus::Value;

use crate::re2::{self, PatternError};

/// Rules whose values contain patterns.
pub(crate) const LISTS: &[&str] = &["containers", "external_processes", "platform_rules"];
/// Pattern fields of an environment rule, each with the field of its strategy.
const ENV: &[(&str, &str)] = &[("pattern", "strategy"), ("name", "name_strategy"), ("value", "value_strategy")];
/// Mount sources with these prefixes continue as patterns.
const SOURCE_PREFIXES: &[&str] = &["sandbox://", "hugepages://"];

/// The first pattern in `package` (its rules, by name) whose RE2 semantics cannot be kept; with `strict`, also the first that RE2 refuses.
pub(crate) fn first_unusable(package: &Value, strict: bool) -> Option<(String, PatternError)> {
    // The keys are made once, since a policy may have a hundred thousand rules.
    let [env_rules, mounts, source, user, groups, user_idname, pattern, strategy] = [
        "env_rules",
        "mounts",
        "source",
        "user",
        "group_idnames",
        "user_idname",
        "pattern",
        "strategy",
    ]
    .map(Value::from);
    let env: Vec<(Value, Value)> = ENV
        .iter()
        .map(|(pattern, says)| (Value::from(*pattern), Value::from(*says)))
        .collect();
    let re2 = Value::from("re2");
    let mut seen = HashSet::new();
    let mut found = None;
    let mut look = |text: &Value| {
        if let (None, Value::String(text)) = (&found, text)
            && seen.insert(text.clone())
            && let Err(error) = re2::check_pattern_quickly(text)
            && (strict || error.is_ours())
        {
            found = Some((text.to_string(), error));
        }
    };
    for object in LISTS.iter().flat_map(|name| elements(&package[*name])) {
        for rule in elements(&object[&env_rules]) {
            for (pattern, _) in env.iter().filter(|(_, strategy)| rule[strategy] == re2) {
                look(&rule[pattern]);
            }
        }
        for mount in elements(&object[&mounts]) {
            let text = &mount[&source];
            if matches!(text, Value::String(text) if SOURCE_PREFIXES.iter().any(|prefix| text.starts_with(prefix))) {
                look(text);
            }
        }
        let user = &object[&user];
        for rule in elements(&user[&groups]).chain([&user[&user_idname]]) {
            if rule[&strategy] == re2 {
                look(&rule[&pattern]);
            }
        }
    }
    found
}

fn elements(list: &Value) -> impl Iterator<Item = &Value> {
    let list = match list {
        Value::Array(list) => Some(list),
        _ => None,
    };
    list.into_iter().flat_map(|list| list.iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(pattern: &str) -> Value {
        let rule = serde_json::json!({"containers": [{"env_rules": [{"pattern": pattern, "strategy": "re2"}]}]});
        Value::from(rule)
    }

    #[test]
    fn what_re2_refuses_is_left_alone_and_what_we_refuse_is_named() {
        assert_eq!(first_unusable(&policy("A=("), false), None);
        assert_eq!(first_unusable(&policy("A=("), true), Some(("A=(".to_owned(), PatternError::Group)));
        assert_eq!(
            first_unusable(&policy(r"A=\Bx"), false),
            Some((r"A=\Bx".to_owned(), PatternError::NoEqual))
        );
        assert_eq!(first_unusable(&policy("A=.*"), true), None);
    }
}
