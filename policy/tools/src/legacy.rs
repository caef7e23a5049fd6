//! The legacy JSON form of policies, with lists as maps of numbered elements. It is converted, never enforced.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::config::Config;
use crate::confinement::Confinement;
use crate::container::{PolicyContainer, PolicyEnvRule, PolicyMount, image_user};
use crate::marshal::{self, Objects};

/// Largest legacy policy in bytes.
pub const MAX_LEGACY_BYTES: usize = 4 << 20;

/// Why a text is not a legacy policy, or a policy cannot be written as one.
#[derive(Debug, Error)]
pub enum LegacyError {
    /// Too large.
    #[error("legacy policy has {0} bytes, more than {MAX_LEGACY_BYTES}")]
    TooLarge(usize),
    /// Not JSON of that form.
    #[error("not a policy in the legacy JSON form")]
    Json(#[from] serde_json::Error),
    /// A list whose elements are not numbered from zero.
    #[error("{list}: element {index:?} does not exist")]
    Missing {
        /// The list.
        list: &'static str,
        /// The number that is missing.
        index: String,
    },
    /// `length` and the elements disagree.
    #[error("{list}: length says {length}, there are {elements} elements")]
    Length {
        /// The list.
        list: &'static str,
        /// The stated length.
        length: usize,
        /// The number of elements.
        elements: usize,
    },
    /// An environment rule of unknown strategy.
    #[error("env_rules: unknown strategy {0:?}")]
    Strategy(String),
    /// Everything is allowed, and containers are listed.
    #[error("Invalid policy for open-door enforcer")]
    OpenDoor,
    /// The legacy form cannot express it.
    #[error("the legacy form cannot express {0}")]
    Lost(&'static str),
    /// The result does not load.
    #[error("the converted policy does not load")]
    Policy(#[from] policy::PolicyError),
}

/// A list as a map from numbers to elements.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Numbered<T> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    length: Option<usize>,
    #[serde(
        default = "BTreeMap::new",
        deserialize_with = "elements",
        bound(deserialize = "T: Default + Deserialize<'de>")
    )]
    elements: BTreeMap<String, T>,
}

/// Go, which wrote and read this form, takes `null` for the zero value, and writes it for what is empty.
fn null_is_zero<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(input: D) -> Result<T, D::Error> {
    Option::deserialize(input).map(Option::unwrap_or_default)
}

/// The same for a map and each of its elements.
fn elements<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(input: D) -> Result<BTreeMap<String, T>, D::Error> {
    let elements: Option<BTreeMap<String, Option<T>>> = Option::deserialize(input)?;
    let filled = |(index, element): (String, Option<T>)| (index, element.unwrap_or_default());
    Ok(elements.into_iter().flatten().map(filled).collect())
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self {
            length: None,
            elements: BTreeMap::new(),
        }
    }
}

impl<T> Numbered<T> {
    fn into_list(mut self, list: &'static str) -> Result<Vec<T>, LegacyError> {
        let elements = self.elements.len();
        if let Some(length) = self.length.filter(|length| *length != elements) {
            return Err(LegacyError::Length { list, length, elements });
        }
        let take = |index: usize| {
            let index = index.to_string();
            self.elements.remove(&index).ok_or(LegacyError::Missing { list, index })
        };
        (0..elements).map(take).collect()
    }

    fn from_list(list: Vec<T>) -> Self {
        Self {
            length: Some(list.len()),
            elements: list
                .into_iter()
                .enumerate()
                .map(|(index, item)| (index.to_string(), item))
                .collect(),
        }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct LegacyPolicy {
    #[serde(deserialize_with = "null_is_zero")]
    allow_all: bool,
    #[serde(deserialize_with = "null_is_zero")]
    containers: Numbered<LegacyContainer>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct LegacyContainer {
    #[serde(deserialize_with = "null_is_zero")]
    command: Numbered<String>,
    #[serde(deserialize_with = "null_is_zero")]
    env_rules: Numbered<LegacyEnvRule>,
    #[serde(deserialize_with = "null_is_zero")]
    layers: Numbered<String>,
    #[serde(deserialize_with = "null_is_zero")]
    working_dir: String,
    #[serde(deserialize_with = "null_is_zero")]
    mounts: Numbered<LegacyMount>,
    #[serde(deserialize_with = "null_is_zero")]
    allow_elevated: bool,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct LegacyEnvRule {
    #[serde(deserialize_with = "null_is_zero")]
    strategy: String,
    #[serde(deserialize_with = "null_is_zero")]
    rule: String,
    #[serde(deserialize_with = "null_is_zero", skip_serializing_if = "std::ops::Not::not")]
    required: bool,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct LegacyMount {
    #[serde(deserialize_with = "null_is_zero")]
    source: String,
    #[serde(deserialize_with = "null_is_zero")]
    destination: String,
    #[serde(rename = "type", deserialize_with = "null_is_zero")]
    kind: String,
    #[serde(deserialize_with = "null_is_zero")]
    options: Numbered<String>,
}

/// Converts a policy in the legacy JSON form to Rego text.
///
/// The legacy form has no exec processes, signals, users, capabilities or seccomp profiles. Stdio, privilege escalation and users stay
/// unrestricted; exec, signals and flags are not allowed.
///
/// # Errors
/// The text does not have that form.
pub fn convert_legacy(json: &str) -> Result<String, LegacyError> {
    if json.len() > MAX_LEGACY_BYTES {
        return Err(LegacyError::TooLarge(json.len()));
    }
    let legacy: LegacyPolicy = serde_json::from_str::<Option<_>>(json.trim_start_matches('\u{feff}'))?.unwrap_or_default();
    let containers = legacy.containers.into_list("containers")?;
    if legacy.allow_all {
        return match containers.is_empty() {
            true => Ok(policy::OPEN_DOOR.to_owned()),
            false => Err(LegacyError::OpenDoor),
        };
    }
    let containers = containers.into_iter().map(container).collect::<Result<Vec<_>, _>>()?;
    let text = marshal::policy(
        &Config::default(),
        &Objects {
            fragments: &[],
            containers: &containers,
            windows_containers: &[],
            processes: &[],
        },
        &[],
        &[],
        None,
    );
    policy::Enforcer::new(&text)?;
    Ok(text)
}

fn container(legacy: LegacyContainer) -> Result<PolicyContainer, LegacyError> {
    let env_rule = |rule: LegacyEnvRule| {
        Ok(PolicyEnvRule::Whole {
            pattern: rule.rule,
            strategy: match rule.strategy.as_str() {
                "re2" => "re2",
                "string" => "string",
                _ => return Err(LegacyError::Strategy(rule.strategy)),
            },
            required: rule.required,
        })
    };
    let mount = |mount: LegacyMount| {
        Ok(PolicyMount {
            destination: mount.destination,
            options: mount.options.into_list("options")?,
            source: mount.source,
            required: false,
            kind: mount.kind,
        })
    };
    Ok(PolicyContainer {
        command: legacy.command.into_list("command")?,
        env_rules: legacy
            .env_rules
            .into_list("env_rules")?
            .into_iter()
            // A rule without a strategy accepts nothing, so it is left out unless the container must not start without it.
            .filter(|rule| !rule.strategy.is_empty() || rule.required)
            .map(env_rule)
            .collect::<Result<_, LegacyError>>()?,
        layers: legacy.layers.into_list("layers")?,
        mounts: legacy
            .mounts
            .into_list("mounts")?
            .into_iter()
            .map(mount)
            .collect::<Result<_, LegacyError>>()?,
        exec_processes: Vec::new(),
        signals: Vec::new(),
        user: image_user(""),
        capabilities: None,
        seccomp_profile_sha256: String::new(),
        allow_elevated: legacy.allow_elevated,
        working_dir: legacy.working_dir,
        allow_stdio_access: true,
        no_new_privileges: false,
        confinement: Confinement::default(),
    })
}

/// Writes a policy's containers in the legacy JSON form.
///
/// # Errors
/// The policy has a rule that the legacy form cannot express: omitting it would allow more.
pub fn write_legacy(document: &crate::Document) -> Result<String, LegacyError> {
    let texts = |value: &serde_json::Value| -> Vec<String> {
        let list = value.as_array().into_iter().flatten();
        list.filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    if !document.list("fragments").is_empty() {
        return Err(LegacyError::Lost("fragments"));
    }
    if !document.list("external_processes").is_empty() {
        return Err(LegacyError::Lost("external processes"));
    }
    let mut containers = Vec::new();
    for container in document.list("containers") {
        if container["seccomp_profile_sha256"]
            .as_str()
            .is_some_and(|digest| !digest.is_empty())
        {
            return Err(LegacyError::Lost("a seccomp profile"));
        }
        if container["capabilities"].is_object() {
            return Err(LegacyError::Lost("capabilities"));
        }
        let rules = container["env_rules"].as_array().into_iter().flatten().map(|rule| {
            let pattern = rule["pattern"]
                .as_str()
                .ok_or(LegacyError::Lost("environment rules of name and value"))?;
            Ok(LegacyEnvRule {
                strategy: rule["strategy"].as_str().unwrap_or("string").to_owned(),
                rule: pattern.to_owned(),
                required: rule["required"] == true,
            })
        });
        let mounts = container["mounts"].as_array().into_iter().flatten().map(|mount| LegacyMount {
            source: mount["source"].as_str().unwrap_or_default().to_owned(),
            destination: mount["destination"].as_str().unwrap_or_default().to_owned(),
            kind: mount["type"].as_str().unwrap_or_default().to_owned(),
            options: Numbered::from_list(texts(&mount["options"])),
        });
        containers.push(LegacyContainer {
            command: Numbered::from_list(texts(&container["command"])),
            env_rules: Numbered::from_list(rules.collect::<Result<_, LegacyError>>()?),
            layers: Numbered::from_list(texts(&container["layers"])),
            working_dir: container["working_dir"].as_str().unwrap_or_default().to_owned(),
            mounts: Numbered::from_list(mounts.collect()),
            allow_elevated: container["allow_elevated"] == true,
        });
    }
    let legacy = LegacyPolicy {
        allow_all: false,
        containers: Numbered::from_list(containers),
    };
    Ok(serde_json::to_string(&legacy)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEGACY: &str = r#"{"allow_all":false,"containers":{"length":1,"elements":{"0":{
        "command":{"length":2,"elements":{"1":"-c","0":"sh"}},
        "env_rules":{"length":1,"elements":{"0":{"strategy":"re2","rule":"A=.+"}}},
        "layers":{"length":1,"elements":{"0":"aa"}},"working_dir":"/srv",
        "mounts":{"length":1,"elements":{"0":{"source":"sandbox:///x","destination":"/x","type":"bind","options":{"length":1,"elements":{"0":"ro"}}}}},
        "allow_elevated":true}}}}"#;

    #[test]
    fn numbered_elements_become_lists_in_their_order() {
        let text = convert_legacy(LEGACY).unwrap();
        assert!(text.contains("\"command\": [\"sh\",\"-c\"]"), "{text}");
        assert!(text.contains(r#"{"pattern":"A=.+","strategy":"re2","required":false}"#), "{text}");
        assert!(
            text.contains(r#"{"destination":"/x","options":["ro"],"source":"sandbox:///x","type":"bind"}"#),
            "{text}"
        );
        let again = write_legacy(&crate::Document::read(&text).unwrap()).unwrap();
        assert_eq!(convert_legacy(&again).unwrap(), text);
    }

    #[test]
    fn null_is_the_zero_value_anywhere() {
        // Every value of the document in turn.
        let document: serde_json::Value = serde_json::from_str(LEGACY).unwrap();
        fn places(value: &serde_json::Value, at: String, found: &mut Vec<String>) {
            found.push(at.clone());
            for (key, value) in value.as_object().into_iter().flatten() {
                places(value, format!("{at}/{key}"), found);
            }
        }
        let mut all = Vec::new();
        places(&document, String::new(), &mut all);
        assert!(all.len() > 30);
        for place in &all {
            let mut changed = document.clone();
            *changed.pointer_mut(place).unwrap() = serde_json::Value::Null;
            let converted = convert_legacy(&changed.to_string());
            // A list that loses its elements contradicts its length, as the zero value would.
            let contradiction = place.ends_with("/elements");
            assert_eq!(
                matches!(converted, Err(LegacyError::Length { .. })),
                contradiction,
                "{place}: {converted:?}"
            );
            assert!(contradiction || converted.is_ok(), "{place}: {converted:?}");
        }
        let empty = LEGACY.replace(
            "{\"length\":2,\"elements\":{\"1\":\"-c\",\"0\":\"sh\"}}",
            "{\"length\":0,\"elements\":null}",
        );
        assert!(convert_legacy(&empty).unwrap().contains("\"command\": []"));
    }

    #[test]
    fn what_is_not_numbered_from_zero_is_refused() {
        let gap = LEGACY.replace("\"1\":\"-c\"", "\"2\":\"-c\"");
        assert!(matches!(convert_legacy(&gap), Err(LegacyError::Missing { list: "command", .. })));
        let length = LEGACY.replace("{\"length\":2", "{\"length\":3");
        assert!(matches!(convert_legacy(&length), Err(LegacyError::Length { list: "command", .. })));
        let strategy = LEGACY.replace("re2", "glob");
        assert!(matches!(convert_legacy(&strategy), Err(LegacyError::Strategy(_))));
        assert_eq!(convert_legacy(r#"{"allow_all":true}"#).unwrap(), policy::OPEN_DOOR);
        let both = LEGACY.replace("\"allow_all\":false", "\"allow_all\":true");
        assert!(matches!(convert_legacy(&both), Err(LegacyError::OpenDoor)));
    }
}
