//! Every pattern of a policy or fragment, looked at when it is loaded.

use std::collections::BTreeSet;

use regorus::Value;

use crate::re2::{self, PatternError};

/// Rules whose values hold patterns.
pub(crate) const LISTS: &[&str] = &["containers", "external_processes", "platform_rules"];
/// Fields of an environment rule that hold a pattern, each with the field that says so.
const ENV: &[(&str, &str)] = &[("pattern", "strategy"), ("name", "name_strategy"), ("value", "value_strategy")];
/// Sources with these prefixes go on as patterns.
const SOURCE_PREFIXES: &[&str] = &["sandbox://", "hugepages://"];

/// The first pattern in `package` (its rules, by name) that cannot mean what it means in RE2; with `strict`, that RE2 refuses as well.
pub(crate) fn first_unusable(package: &Value, strict: bool) -> Option<(String, PatternError)> {
    let mut seen = BTreeSet::new();
    let mut found = None;
    let mut look = |pattern: &Value| {
        if let (None, Value::String(pattern)) = (&found, pattern)
            && seen.insert(pattern.clone())
            && let Err(error) = re2::check_pattern_quickly(pattern)
            && (strict || error.is_ours())
        {
            found = Some((pattern.to_string(), error));
        }
    };
    for object in LISTS.iter().flat_map(|name| elements(&package[*name])) {
        for rule in elements(&object["env_rules"]) {
            for (pattern, strategy) in ENV {
                if is_re2(&rule[*strategy]) {
                    look(&rule[*pattern]);
                }
            }
        }
        for mount in elements(&object["mounts"]) {
            if mount["source"]
                .as_string()
                .is_ok_and(|source| SOURCE_PREFIXES.iter().any(|prefix| source.starts_with(prefix)))
            {
                look(&mount["source"]);
            }
        }
        let user = &object["user"];
        for rule in elements(&user["group_idnames"]).chain([&user["user_idname"]]) {
            if is_re2(&rule["strategy"]) {
                look(&rule["pattern"]);
            }
        }
    }
    found
}

fn is_re2(strategy: &Value) -> bool {
    strategy.as_string().is_ok_and(|strategy| strategy.as_ref() == "re2")
}

fn elements(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flat_map(|list| list.iter())
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
