//! Extension functions that match a request against many containers at once.
//!
//! In Rego each would be a loop over containers, rules and entries, and would dominate the cost of a decision under a large policy.
//! The Rego files define the functions where they use them. As in Rego, a field that is absent or of the wrong type matches nothing.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use regorus::{Engine, Value};

use crate::re2::Patterns;

mod mounts;

/// The cache of compiled patterns.
pub(crate) type SharedPatterns = Arc<Mutex<Patterns>>;

type Function = fn(&mut Patterns, &[Value]) -> Option<Value>;

/// Name, number of arguments and implementation of each function.
const FUNCTIONS: &[(&str, u8, Function)] = &[
    ("casemate_where", 3, |_, arguments| where_equal(arguments)),
    ("casemate_layer_listed", 2, |_, arguments| layer_listed(arguments)),
    ("casemate_env_fitting", 2, env_fitting),
    ("casemate_env_kept", 2, env_kept),
    ("casemate_env_unknown", 2, env_unknown),
    ("casemate_env_incomplete", 2, env_incomplete),
    ("casemate_users_fitting", 4, users_fitting),
    ("casemate_mounts_fitting", 3, mounts::fitting),
    ("casemate_mounts_refused", 3, mounts::refused),
];

/// Registers the functions with `engine`.
pub(crate) fn register(engine: &mut Engine, patterns: &SharedPatterns) -> Result<(), String> {
    for (name, arguments, function) in FUNCTIONS {
        let patterns = Arc::clone(patterns);
        engine
            .add_extension(
                (*name).to_owned(),
                *arguments,
                Box::new(move |arguments: Vec<Value>| {
                    let mut patterns = patterns.lock().unwrap_or_else(PoisonError::into_inner);
                    Ok(function(&mut patterns, &arguments).unwrap_or(Value::Undefined))
                }),
            )
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The members that `some member in value` iterates over; `None` if the value is no collection.
fn members(value: &Value) -> Option<Vec<&Value>> {
    match value {
        Value::Array(list) => Some(list.iter().collect()),
        Value::Set(set) => Some(set.iter_sorted().collect()),
        Value::Object(object) => Some(object.iter_sorted().map(|(_, member)| member).collect()),
        _ => None,
    }
}

/// A field of an object; `None` if there is none, or the value is no object.
fn field<'v>(object: &'v Value, key: &Value) -> Option<&'v Value> {
    match object {
        Value::Object(object) => object.get(key),
        _ => None,
    }
}

fn text(value: Option<&Value>) -> Option<&str> {
    match value {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

fn filtered(objects: &Value, mut fits: impl FnMut(&Value) -> bool) -> Option<Value> {
    let fitting: Vec<Value> = members(objects)?.into_iter().filter(|object| fits(object)).cloned().collect();
    Some(Value::from(fitting))
}

/// `[object | some object in objects; object[key] == value]`
fn where_equal(arguments: &[Value]) -> Option<Value> {
    let [objects, key, value] = arguments else { return None };
    filtered(objects, |object| field(object, key) == Some(value))
}

/// `containers[_].layers[_] == hash`
fn layer_listed(arguments: &[Value]) -> Option<Value> {
    let [containers, hash] = arguments else { return None };
    let layers = Value::from("layers");
    let listed = members(containers)?
        .into_iter()
        .filter_map(|container| field(container, &layers).and_then(members))
        .any(|layers| layers.contains(&hash));
    listed.then_some(Value::Bool(true))
}

/// The fields of environment rules.
struct EnvKeys {
    rules: Value,
    required: Value,
    pattern: Value,
    strategy: Value,
    name: Value,
    name_strategy: Value,
    value: Value,
    value_strategy: Value,
}

impl EnvKeys {
    fn new() -> Self {
        Self {
            rules: Value::from("env_rules"),
            required: Value::from("required"),
            pattern: Value::from("pattern"),
            strategy: Value::from("strategy"),
            name: Value::from("name"),
            name_strategy: Value::from("name_strategy"),
            value: Value::from("value"),
            value_strategy: Value::from("value_strategy"),
        }
    }

    fn rules<'v>(&self, object: &'v Value) -> Option<Vec<&'v Value>> {
        field(object, &self.rules).and_then(members)
    }

    /// Whether `NAME=value` matches the pattern, or name and value match theirs.
    fn accepts(&self, patterns: &mut Patterns, rule: &Value, entry: &Value) -> bool {
        let Value::String(entry) = entry else { return false };
        if text_fits(patterns, field(rule, &self.strategy), field(rule, &self.pattern), entry) {
            return true;
        }
        entry.split_once('=').is_some_and(|(name, value)| {
            text_fits(patterns, field(rule, &self.name_strategy), field(rule, &self.name), name)
                && text_fits(patterns, field(rule, &self.value_strategy), field(rule, &self.value), value)
        })
    }

    fn known(&self, patterns: &mut Patterns, rules: &[&Value], entry: &Value) -> bool {
        rules.iter().any(|rule| self.accepts(patterns, rule, entry))
    }

    /// Whether an entry satisfies each required rule.
    fn complete(&self, patterns: &mut Patterns, rules: &[&Value], entries: &[&Value]) -> bool {
        rules.iter().all(|rule| {
            let optional = matches!(field(rule, &self.required), None | Some(Value::Bool(false)));
            optional || entries.iter().any(|entry| self.accepts(patterns, rule, entry))
        })
    }
}

/// Strategy `string` or anchored `re2`; any other strategy matches nothing.
fn text_fits(patterns: &mut Patterns, strategy: Option<&Value>, pattern: Option<&Value>, text_asked: &str) -> bool {
    match (text(strategy), text(pattern)) {
        (Some("string"), Some(pattern)) => pattern == text_asked,
        (Some("re2"), Some(pattern)) => patterns.is_match(pattern, text_asked, true).unwrap_or(false),
        _ => false,
    }
}

/// Objects (containers or processes) that accept every entry and whose required rules are satisfied.
fn env_fitting(patterns: &mut Patterns, arguments: &[Value]) -> Option<Value> {
    let [objects, entries] = arguments else { return None };
    let (keys, entries) = (EnvKeys::new(), members(entries)?);
    filtered(objects, |object| {
        keys.rules(object).is_some_and(|rules| {
            keys.complete(patterns, &rules, &entries) && entries.iter().all(|entry| keys.known(patterns, &rules, entry))
        })
    })
}

/// The largest set of entries that one of the objects accepts, sorted; `None` if two of that size differ.
fn env_kept(patterns: &mut Patterns, arguments: &[Value]) -> Option<Value> {
    let [objects, entries] = arguments else { return None };
    let (keys, entries) = (EnvKeys::new(), members(entries)?);
    let mut largest: BTreeSet<BTreeSet<&Value>> = BTreeSet::new();
    let mut most = 0;
    for object in members(objects)? {
        let rules = keys.rules(object).unwrap_or_default();
        let known: BTreeSet<&Value> = entries
            .iter()
            .copied()
            .filter(|entry| keys.known(patterns, &rules, entry))
            .collect();
        if known.len() > most {
            most = known.len();
            largest.clear();
        }
        if known.len() == most {
            largest.insert(known);
        }
    }
    let mut largest = largest.into_iter();
    match (largest.next(), largest.next()) {
        (Some(kept), None) => Some(Value::from(kept.into_iter().cloned().collect::<Vec<_>>())),
        _ => None,
    }
}

/// Names of the entries that no object accepts, in order.
fn env_unknown(patterns: &mut Patterns, arguments: &[Value]) -> Option<Value> {
    let [objects, entries] = arguments else { return None };
    let keys = EnvKeys::new();
    let rules: Vec<Vec<&Value>> = members(objects)?.into_iter().filter_map(|object| keys.rules(object)).collect();
    let unknown: Vec<Value> = members(entries)?
        .into_iter()
        .filter(|entry| !rules.iter().any(|rules| keys.known(patterns, rules, entry)))
        .filter_map(|entry| text(Some(entry)))
        .map(|entry| Value::from(entry.split('=').next().unwrap_or(entry)))
        .collect();
    Some(Value::from(unknown))
}

/// Whether some object requires a missing entry.
fn env_incomplete(patterns: &mut Patterns, arguments: &[Value]) -> Option<Value> {
    let [objects, entries] = arguments else { return None };
    let (keys, entries) = (EnvKeys::new(), members(entries).unwrap_or_default());
    let incomplete = members(objects)?.into_iter().any(|object| {
        let rules = keys.rules(object);
        !rules.is_some_and(|rules| keys.complete(patterns, &rules, &entries))
    });
    incomplete.then_some(Value::Bool(true))
}

/// Containers with the requested umask whose rules accept the user and every group.
fn users_fitting(patterns: &mut Patterns, arguments: &[Value]) -> Option<Value> {
    let [containers, user, groups, umask] = arguments else {
        return None;
    };
    let groups = members(groups)?;
    let (key, key_umask, key_user, key_groups) = (
        Value::from("user"),
        Value::from("umask"),
        Value::from("user_idname"),
        Value::from("group_idnames"),
    );
    filtered(containers, |container| {
        let Some(allowed) = field(container, &key) else { return false };
        let group_rules = field(allowed, &key_groups).and_then(members).unwrap_or_default();
        field(allowed, &key_umask) == Some(umask)
            && field(allowed, &key_user).is_some_and(|rule| id_name_fits(patterns, rule, user))
            && groups
                .iter()
                .all(|group| group_rules.iter().any(|rule| id_name_fits(patterns, rule, group)))
    })
}

fn id_name_fits(patterns: &mut Patterns, rule: &Value, asked: &Value) -> bool {
    let (pattern, name) = (Value::from("pattern"), Value::from("name"));
    let equal = |key: &Value| field(rule, &pattern).is_some() && field(rule, &pattern) == field(asked, key);
    match text(field(rule, &Value::from("strategy"))) {
        Some("any") => true,
        Some("id") => equal(&Value::from("id")),
        Some("name") => equal(&name),
        Some("re2") => match (text(field(rule, &pattern)), text(field(asked, &name))) {
            (Some(pattern), Some(name)) => patterns.is_match(pattern, name, true).unwrap_or(false),
            _ => false,
        },
        _ => false,
    }
}
