//! The straightforward use of the interpreter, for comparison in the benchmark: same framework and policy, but the engine is cloned and
//! all data parsed for every query.

use std::sync::{Arc, Mutex};

use regorus::{Engine, Value};
use serde_json::{Map, Value as Json};

use crate::framework;
use crate::interpreter::{PolicyError, compile, engine, register_functions};
use crate::state::{Command, State};

/// A policy judged the straightforward way.
pub struct Naive {
    engine: Engine,
    data: Json,
    state: State,
}

impl Naive {
    /// Parses policy and framework.
    ///
    /// # Errors
    /// The text is no policy.
    pub fn new(policy: &str) -> Result<Self, PolicyError> {
        let mut engine = engine();
        engine.add_policy("policy.rego".to_owned(), policy.to_owned()).map_err(compile)?;
        engine
            .add_policy(framework::FRAMEWORK_FILE.to_owned(), framework::module())
            .map_err(compile)?;
        let mut data = crate::data::base_document();
        let metadata = data.as_object_mut().and_then(|data| data.remove("metadata")).unwrap_or_default();
        let state = State::initial(&metadata);
        register_functions(&mut engine, &Arc::new(Mutex::new(state.clone())), Vec::new())?;
        let mut naive = Self { engine, data, state };
        naive.query("data.policy.api_version", Json::Object(Map::new()))?;
        Ok(naive)
    }

    /// Whether `point` is allowed, by the policy's answer alone; a denial asks for the reason. What the policy commands to remember
    /// is remembered if `keep`.
    ///
    /// # Errors
    /// The evaluation failed.
    pub fn enforce(&mut self, point: &str, input: Json, keep: bool) -> Result<bool, PolicyError> {
        let answer = self.query(&format!("data.policy.{point}"), input.clone())?;
        let allowed = answer["allowed"] == Value::Bool(true);
        if allowed {
            if let (Value::Array(_), true) = (&answer["metadata"], keep) {
                let commands = Command::read_all(&answer["metadata"]).map_err(compile)?;
                self.state.apply(commands).map_err(compile)?;
            }
            self.query("data.policy.api_version", input)?;
        } else {
            let mut input = input;
            input["rule"] = Json::from(point);
            let reason = self.query("data.policy.reason", input)?;
            reason.to_json_str().map_err(compile)?;
        }
        Ok(allowed)
    }

    fn query(&mut self, rule: &str, input: Json) -> Result<Value, PolicyError> {
        let mut data = self.data.clone();
        let metadata: Map<String, Json> = self
            .state
            .names()
            .filter_map(|name| Some((name.to_owned(), serde_json::to_value(self.state.rego_value(name)).ok()?)))
            .collect();
        data["metadata"] = Json::Object(metadata);
        let mut engine = self.engine.clone();
        engine.add_data_json(&data.to_string()).map_err(compile)?;
        engine.set_input_json(&input.to_string()).map_err(compile)?;
        engine.eval_rule(rule.to_owned()).map_err(compile)
    }
}
