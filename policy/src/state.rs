//! The policy's metadata between decisions (`data.metadata`), and the commands by which its answers change them.

use std::collections::BTreeMap;

use regorus::Value;
use regorus::value::{Array, Object};
use thiserror::Error;

/// Why a metadata command of a policy could not be read or applied.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum MetadataError {
    #[error("error loading metadata array: invalid type")]
    NotAnArray,
    #[error("error loading metadata operation: unable to load metadata {0}")]
    Field(&'static str),
    #[error("error loading metadata operation: missing metadata {0}")]
    Missing(&'static str),
    #[error("error applying metadata operations: {0}")]
    Apply(String),
}

/// The value of a metadata name: a map, or a list without duplicates, in Rego's form.
#[derive(Debug, Clone, PartialEq)]
enum Entry {
    Map(Value),
    Set(Value),
}

impl Entry {
    fn go_name(&self) -> &'static str {
        match self {
            Entry::Map(_) => "regopolicyinterpreter.regoMetadataMap",
            Entry::Set(_) => "regopolicyinterpreter.regoMetadataSet",
        }
    }

    /// The value; shared and not copied, since every decision reads it.
    fn to_rego(&self) -> Value {
        match self {
            Entry::Map(value) | Entry::Set(value) => value.clone(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Entry::Map(value) => value.as_object().map_or(0, |map| map.len()),
            Entry::Set(value) => value.as_array().map_or(0, |list| list.len()),
        }
    }
}

/// All metadata. A clone is a snapshot to roll back to.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct State {
    entries: BTreeMap<String, Entry>,
}

impl State {
    /// The state before the first decision, from the base document's `metadata` (maps only).
    pub(crate) fn initial(metadata: &serde_json::Value) -> Self {
        let maps = metadata.as_object().into_iter().flatten();
        let entries = maps
            .map(|(name, map)| (name.clone(), Entry::Map(Value::from(map.clone()))))
            .collect();
        Self { entries }
    }

    /// The value of `name` in Rego; undefined if nothing was stored.
    pub(crate) fn rego_value(&self, name: &str) -> Value {
        self.entries.get(name).map_or(Value::Undefined, Entry::to_rego)
    }

    /// Names in use.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether `name` is the same in both.
    pub(crate) fn same(&self, other: &Self, name: &str) -> bool {
        self.entries.get(name) == other.entries.get(name)
    }

    /// Number of elements by name; for `matches` the candidates of each container, for `issuers` the fragments of each feed.
    pub(crate) fn counters(&self) -> BTreeMap<String, usize> {
        let mut counters = BTreeMap::new();
        for (name, entry) in &self.entries {
            match (name.as_str(), entry) {
                ("operatingsystem", _) => {}
                ("matches", Entry::Map(map)) => {
                    for (id, candidates) in map.as_object().iter().flat_map(|map| map.iter()) {
                        counters.insert(format!("matches/{}", text(id)), candidates.as_array().map_or(0, |list| list.len()));
                    }
                }
                ("issuers", Entry::Map(map)) => {
                    for (issuer, value) in map.as_object().iter().flat_map(|map| map.iter()) {
                        for (feed, fragments) in value["feeds"].as_object().iter().flat_map(|feeds| feeds.iter()) {
                            counters.insert(
                                format!("issuers/{}/{}", text(issuer), text(feed)),
                                fragments.as_array().map_or(0, |list| list.len()),
                            );
                        }
                    }
                }
                (_, entry) => {
                    counters.insert(name.clone(), entry.len());
                }
            }
        }
        counters
    }

    /// Applies the commands in order. If one fails, those before it stay applied, as in hcsshim.
    pub(crate) fn apply(&mut self, commands: Vec<Command>) -> Result<(), MetadataError> {
        commands
            .into_iter()
            .try_for_each(|command| self.apply_one(command).map_err(MetadataError::Apply))
    }

    fn apply_one(&mut self, command: Command) -> Result<(), String> {
        let Command {
            name,
            action,
            kind,
            key,
            value,
        } = command;
        match (kind.as_str(), action.as_str()) {
            ("map", "add" | "update") => {
                let map = self.map(&name)?;
                let rego_key = Value::from(key.as_str());
                if action == "add" && map.contains_key(&rego_key) {
                    return Err(format!("cannot add metadata value, key {name}[{key}] already exists"));
                }
                map.insert(rego_key, value);
            }
            ("map", "remove") => {
                self.map(&name)?.remove(&Value::from(key.as_str()));
            }
            ("set", "add") => {
                let set = self.set(&name)?;
                if !set.contains(&value) {
                    set.push(value);
                }
            }
            ("set", "remove") => self.set(&name)?.retain(|kept| *kept != value),
            ("map" | "set", other) => return Err(format!("unrecognized metadata action: {other} for {kind}")),
            (other, _) => return Err(format!("unrecognized metadata type: {other}")),
        }
        Ok(())
    }

    fn map(&mut self, name: &str) -> Result<&mut Object, String> {
        let entry = self
            .entries
            .entry(name.to_owned())
            .or_insert_with(|| Entry::Map(Value::new_object()));
        match entry {
            Entry::Map(map) => map.as_object_mut().map_err(|error| error.to_string()),
            other => Err(wrong_type(name, "regopolicyinterpreter.regoMetadataMap", other)),
        }
    }

    fn set(&mut self, name: &str) -> Result<&mut Array, String> {
        let entry = self
            .entries
            .entry(name.to_owned())
            .or_insert_with(|| Entry::Set(Value::new_array()));
        match entry {
            Entry::Set(set) => set.as_array_mut().map_err(|error| error.to_string()),
            other => Err(wrong_type(name, "regopolicyinterpreter.regoMetadataSet", other)),
        }
    }
}

/// The text of a map key.
fn text(key: &Value) -> String {
    key.as_string().map_or_else(|_| key.to_string(), |text| text.to_string())
}

fn wrong_type(name: &str, wanted: &str, saved: &Entry) -> String {
    format!(
        "unable to get metadata: metadata {name} has the wrong type (wanted {wanted}, but saved type is {})",
        saved.go_name()
    )
}

/// One change of the metadata, read from a policy's answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Command {
    name: String,
    action: String,
    kind: String,
    key: String,
    value: Value,
}

impl Command {
    /// Reads the `metadata` array of an answer, all of it before any command is applied.
    pub(crate) fn read_all(list: &Value) -> Result<Vec<Self>, MetadataError> {
        list.as_array()
            .map_err(|_| MetadataError::NotAnArray)?
            .iter()
            .map(Self::read)
            .collect()
    }

    fn read(entry: &Value) -> Result<Self, MetadataError> {
        let object = entry.as_object().map_err(|_| MetadataError::Field("object"))?;
        let field = |name: &'static str| object.get(&Value::from(name));
        let text = |name: &'static str| match field(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.to_string())),
            Some(_) => Err(MetadataError::Field(name)),
        };
        let kind = text("type")?.unwrap_or_else(|| "map".to_owned());
        let name = text("name")?.ok_or(MetadataError::Field("name"))?;
        let action = text("action")?.ok_or(MetadataError::Field("action"))?;
        let value = field("value").cloned();
        if value.is_none() && !(action == "remove" && kind == "map") {
            return Err(MetadataError::Missing("value"));
        }
        let key = text("key")?;
        if key.is_none() && kind == "map" {
            return Err(MetadataError::Missing("key"));
        }
        Ok(Self {
            name,
            action,
            kind,
            key: key.unwrap_or_default(),
            value: value.unwrap_or(Value::Undefined),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(state: &mut State, commands: &str) -> Result<(), MetadataError> {
        state.apply(Command::read_all(&Value::from_json_str(commands).unwrap())?)
    }

    #[test]
    fn add_update_and_remove_change_a_map() {
        let mut state = State::default();
        apply(
            &mut state,
            r#"[{"name":"x","action":"add","key":"a","value":1},{"name":"x","action":"update","key":"a","value":2}]"#,
        )
        .unwrap();
        assert_eq!(state.rego_value("x").to_string(), r#"{"a":2}"#);
        apply(&mut state, r#"[{"name":"x","action":"remove","key":"a"}]"#).unwrap();
        assert_eq!(state.rego_value("x").to_string(), "{}");
    }

    #[test]
    fn adding_twice_fails_and_keeps_earlier_commands() {
        let mut state = State::default();
        let twice = r#"[{"name":"x","action":"add","key":"a","value":1},{"name":"x","action":"add","key":"a","value":2}]"#;
        assert_eq!(
            apply(&mut state, twice).unwrap_err().to_string(),
            "error applying metadata operations: cannot add metadata value, key x[a] already exists"
        );
        assert_eq!(state.rego_value("x").to_string(), r#"{"a":1}"#);
    }

    #[test]
    fn a_set_holds_equal_values_once() {
        let mut state = State::default();
        let add = r#"{"name":"x","type":"set","action":"add","value":[1]}"#;
        apply(&mut state, &format!("[{add},{add}]")).unwrap();
        assert_eq!(state.rego_value("x").to_string(), "[[1]]");
        assert!(
            apply(&mut state, r#"[{"name":"x","action":"add","key":"k","value":1}]"#)
                .unwrap_err()
                .to_string()
                .contains("wrong type")
        );
    }

    #[test]
    fn nothing_is_applied_when_one_command_cannot_be_read() {
        let mut state = State::default();
        let bad = r#"[{"name":"x","action":"add","key":"a","value":1},{"name":"x","action":"add","key":7,"value":1}]"#;
        assert_eq!(apply(&mut state, bad), Err(MetadataError::Field("key")));
        assert_eq!(state, State::default());
    }
}
