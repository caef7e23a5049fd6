//! The part of a request that the policy's answer keeps: environment, capabilities, stdio.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::request::{Capabilities, Subject};

/// The typed form of a policy's answer.
pub trait Verdict: Sized {
    /// Reads the answer of the policy to the action described by `subject`.
    ///
    /// # Errors
    /// A field of the answer has the wrong type.
    fn read(answer: &Answer<'_>, subject: &Subject<'_>) -> Result<Self, String>;

    /// Whether the host may be connected to the stdio of the allowed process.
    fn stdio(&self) -> bool {
        false
    }
}

/// The result document of an allowed action.
#[derive(Debug)]
pub struct Answer<'a> {
    pub(crate) result: &'a Map<String, Value>,
    /// Whether the policy allowed stdio to the subject's container.
    pub(crate) container_stdio: bool,
    /// Set where the action loads a fragment, which takes several queries.
    pub(crate) fragment: Option<&'a FragmentVerdict>,
}

/// For actions that a policy cannot narrow.
impl Verdict for () {
    fn read(_: &Answer<'_>, _: &Subject<'_>) -> Result<Self, String> {
        Ok(())
    }
}

/// The verdict on a process in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessVerdict {
    /// Environment, in the order of the request.
    pub env: Vec<String>,
    /// Capability sets.
    pub capabilities: Capabilities,
    /// Whether the host may be connected to its stdio.
    pub stdio: bool,
}

impl Verdict for ProcessVerdict {
    fn read(answer: &Answer<'_>, subject: &Subject<'_>) -> Result<Self, String> {
        let env = answer.kept_env(subject)?;
        let capabilities = answer.kept_capabilities(subject)?;
        let stdio = if subject.decides_stdio {
            answer.boolean("allow_stdio_access")?
        } else {
            answer.container_stdio
        };
        Ok(Self { env, capabilities, stdio })
    }

    fn stdio(&self) -> bool {
        self.stdio
    }
}

/// The verdict on a process outside all containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalVerdict {
    /// Environment, in the order of the request.
    pub env: Vec<String>,
    /// Whether the host may be connected to its stdio.
    pub stdio: bool,
}

impl Verdict for ExternalVerdict {
    fn read(answer: &Answer<'_>, subject: &Subject<'_>) -> Result<Self, String> {
        Ok(Self {
            env: answer.kept_env(subject)?,
            stdio: answer.boolean("allow_stdio_access")?,
        })
    }
}

/// The result of loading a fragment.
#[derive(Debug, Clone, PartialEq)]
pub struct FragmentVerdict {
    /// The namespace that its text declares.
    pub namespace: String,
    /// Whether the policy's rules may refer to that namespace from now on.
    pub active: bool,
    /// The policy's answer to each query, in order.
    pub answers: Vec<Map<String, Value>>,
}

impl Verdict for FragmentVerdict {
    fn read(answer: &Answer<'_>, _: &Subject<'_>) -> Result<Self, String> {
        answer.fragment.cloned().ok_or_else(|| "the action loads no fragment".to_owned())
    }
}

impl Answer<'_> {
    fn boolean(&self, key: &str) -> Result<bool, String> {
        match self.result.get(key) {
            Some(Value::Bool(value)) => Ok(*value),
            Some(_) => Err(format!("value for '{key}' is not a boolean")),
            None => Err(format!("unable to find value for key '{key}'")),
        }
    }

    fn kept_env(&self, subject: &Subject<'_>) -> Result<Vec<String>, String> {
        let asked = subject.env.unwrap_or_default();
        match self.result.get("env_list") {
            None | Some(Value::Null) => Ok(asked.to_vec()),
            Some(Value::Array(list)) => Ok(kept(asked, &strings(list, "members of env_list from policy must be strings")?)),
            Some(other) => Err(format!(
                "policy returned incorrect type for 'env_list', expected []interface{{}}, received {}",
                go_type(other)
            )),
        }
    }

    fn kept_capabilities(&self, subject: &Subject<'_>) -> Result<Capabilities, String> {
        let asked = subject.capabilities.cloned().unwrap_or_default();
        let sets = match self.result.get("caps_list") {
            None | Some(Value::Null) => return Ok(asked),
            Some(Value::Object(sets)) => sets,
            Some(other) => {
                return Err(format!(
                    "policy returned incorrect type for 'caps_list', expected map[string]interface{{}}, received {}",
                    go_type(other)
                ));
            }
        };
        let keep = |name: &str, asked: &[String]| match sets.get(name).unwrap_or(&Value::Null) {
            Value::Array(list) => Ok(kept(
                asked,
                &strings(list, "members of capability sets from policy must be strings")?,
            )),
            other => Err(format!(
                "capability sets of caps_list from policy must be an array of interface{{}}, received {}",
                go_type(other)
            )),
        };
        Ok(Capabilities {
            ambient: keep("ambient", &asked.ambient)?,
            bounding: keep("bounding", &asked.bounding)?,
            effective: keep("effective", &asked.effective)?,
            inheritable: keep("inheritable", &asked.inheritable)?,
            permitted: keep("permitted", &asked.permitted)?,
        })
    }
}

fn strings<'a>(list: &'a [Value], complaint: &str) -> Result<BTreeSet<&'a str>, String> {
    list.iter()
        .map(|entry| entry.as_str().ok_or_else(|| format!("{complaint}, received {}", go_type(entry))))
        .collect()
}

/// The requested entries that are allowed, in the order of the request, without duplicates.
fn kept(asked: &[String], allowed: &BTreeSet<&str>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    asked
        .iter()
        .filter(|entry| allowed.contains(entry.as_str()) && seen.insert(entry.as_str()))
        .cloned()
        .collect()
}

/// Tools match on hcsshim's messages, so types have the names that Go gives them.
pub(crate) fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "json.Number",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn process(result: Value) -> Result<ProcessVerdict, String> {
        let env = ["B=2".to_owned(), "A=1".to_owned(), "B=2".to_owned()];
        let subject = Subject {
            env: Some(&env),
            decides_stdio: true,
            ..Subject::default()
        };
        let mut result = result.as_object().cloned().unwrap_or_default();
        result.entry("allow_stdio_access").or_insert(Value::Bool(true));
        ProcessVerdict::read(
            &Answer {
                result: &result,
                container_stdio: true,
                fragment: None,
            },
            &subject,
        )
    }

    #[test]
    fn without_a_list_the_environment_is_unchanged() {
        assert_eq!(process(json!({})).unwrap().env, ["B=2", "A=1", "B=2"]);
    }

    #[test]
    fn a_list_keeps_order_and_never_adds() {
        assert_eq!(process(json!({"env_list": ["A=1", "B=2", "C=3"]})).unwrap().env, ["B=2", "A=1"]);
    }

    #[test]
    fn wrong_types_are_named() {
        assert_eq!(
            process(json!({"env_list": [1]})).unwrap_err(),
            "members of env_list from policy must be strings, received json.Number"
        );
        assert!(
            process(json!({"caps_list": {"ambient": []}}))
                .unwrap_err()
                .contains("received <nil>")
        );
        assert_eq!(
            process(json!({"allow_stdio_access": 1})).unwrap_err(),
            "value for 'allow_stdio_access' is not a boolean"
        );
    }
}
