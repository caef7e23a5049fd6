//! The naive use of the interpreter, a baseline for measurements: the engine's framework and functions, but the interpreter is cloned
//! and all data parsed for every query.

use policy::{PolicyError, bare_interpreter, data};
use regorus::{Engine, Value};
use serde_json::{Map, Value as Json};

/// A policy that is judged the naive way.
pub struct Naive {
    engine: Engine,
    /// The base document, with the metadata that the policy's answers left.
    data: Json,
}

impl Naive {
    /// Parses policy and framework.
    ///
    /// # Errors
    /// The text is not a policy.
    pub fn new(policy: &str) -> Result<Self, PolicyError> {
        let mut naive = Self {
            engine: bare_interpreter(policy)?,
            data: data::base_document(),
        };
        naive.query("data.policy.api_version", &Json::Object(Map::new()))?;
        Ok(naive)
    }

    /// Whether the policy's answer allows `point`; a denial queries the reason. With `keep`, the answer's metadata commands are applied.
    ///
    /// # Errors
    /// The evaluation fails, or a metadata command is unknown.
    pub fn enforce(&mut self, point: &str, mut input: Json, keep: bool) -> Result<bool, PolicyError> {
        let answer = self.query(&format!("data.policy.{point}"), &input)?;
        let allowed = answer["allowed"] == Value::Bool(true);
        if allowed {
            if keep && let Ok(commands) = answer["metadata"].as_array() {
                for command in commands.iter() {
                    self.apply(&serde_json::to_value(command).map_err(compile)?)?;
                }
            }
            self.query("data.policy.api_version", &input)?;
        } else {
            input["rule"] = Json::from(point);
            let reason = self.query("data.policy.reason", &input)?;
            reason.to_json_str().map_err(compile)?;
        }
        Ok(allowed)
    }

    /// Applies a command on a map, which are all that the framework gives.
    fn apply(&mut self, command: &Json) -> Result<(), PolicyError> {
        let (Some(name), Some(key)) = (command["name"].as_str(), command["key"].as_str()) else {
            return Err(compile("metadata command without name or key"));
        };
        let map = &mut self.data["metadata"][name];
        match command["action"].as_str() {
            Some("add" | "update") => map[key] = command["value"].clone(),
            Some("remove") => {
                map.as_object_mut().and_then(|map| map.remove(key));
            }
            other => return Err(compile(format!("metadata action {other:?}"))),
        }
        Ok(())
    }

    fn query(&mut self, rule: &str, input: &Json) -> Result<Value, PolicyError> {
        let mut engine = self.engine.clone();
        engine.add_data_json(&self.data.to_string()).map_err(compile)?;
        engine.set_input_json(&input.to_string()).map_err(compile)?;
        engine.eval_rule(rule.to_owned()).map_err(compile)
    }
}

fn compile(error: impl std::fmt::Display) -> PolicyError {
    PolicyError::Compile(error.to_string())
}
