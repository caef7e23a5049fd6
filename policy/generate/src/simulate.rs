//! Requests in a file, judged in turn by a policy, with the engine and the base data that a guest has.
//!
//! A file is a JSON array of `{"name": POINT, "input": DOCUMENT}`, the documents being those that rules see. What one
//! decision changes, the next ones see.

use std::path::Path;

use policy::Enforcer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

/// Largest file of commands in bytes.
pub const MAX_COMMANDS_BYTES: u64 = 64 << 20;
/// Most commands of one file.
pub const MAX_COMMANDS: usize = 100_000;

/// Why nothing was simulated.
#[derive(Debug, Error)]
pub enum SimulateError {
    /// A guest would not start with this policy.
    #[error("the policy does not load")]
    Policy(#[from] policy::PolicyError),
    /// The commands are not of the documented form.
    #[error("the commands are not an array of {{\"name\", \"input\"}}")]
    Commands(#[source] serde_json::Error),
    /// Too many commands.
    #[error("{0} commands, more than {MAX_COMMANDS}")]
    TooMany(usize),
    /// A fragment's file cannot be read.
    #[error("command {index}: cannot read fragment {path}")]
    Fragment {
        /// Which command, from 0.
        index: usize,
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: Box<crate::GenerateError>,
    },
}

/// A request.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The enforcement point.
    pub name: String,
    /// What its rule sees.
    pub input: Value,
}

/// What became of a request.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Its place in the file, from 0.
    pub index: usize,
    /// The enforcement point.
    pub name: String,
    /// The decision.
    pub allowed: bool,
    /// The policy's answer, if it allows.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub result: Map<String, Value>,
    /// The policy's reasons, if it denies.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// The denial in plain words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentence: Option<String>,
    /// What a caller would see.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Reads commands.
///
/// # Errors
/// They are not of the documented form, or too many.
pub fn read_commands(json: &str) -> Result<Vec<Command>, SimulateError> {
    let commands: Vec<Command> = serde_json::from_str(json).map_err(SimulateError::Commands)?;
    if commands.len() > MAX_COMMANDS {
        return Err(SimulateError::TooMany(commands.len()));
    }
    Ok(commands)
}

/// Judges `commands` in turn under `policy`. Fragments (`input.local_path` of `load_fragment`) are looked for as they are
/// named, then relative to `base_dir`. `default_mounts` are allowed to every container, as a guest's network files are.
///
/// # Errors
/// The policy does not load, or a fragment's file cannot be read.
pub fn simulate(
    policy: &str,
    commands: Vec<Command>,
    default_mounts: &[policy::action::Mount],
    base_dir: &Path,
) -> Result<Vec<Outcome>, SimulateError> {
    let mut enforcer = Enforcer::new(policy)?;
    enforcer.extend_default_mounts(default_mounts)?;
    let mut outcomes = Vec::with_capacity(commands.len());
    for (index, Command { name, input }) in commands.into_iter().enumerate() {
        let answer = match input["local_path"].as_str() {
            Some(path) if name == "load_fragment" => {
                let text = fragment_text(index, path, base_dir)?;
                load_fragment(&mut enforcer, &input, &text)
            }
            _ => enforcer.ask(&name, input),
        };
        outcomes.push(match answer {
            Ok(result) => Outcome {
                index,
                name,
                allowed: true,
                result,
                reasons: Vec::new(),
                sentence: None,
                message: None,
            },
            Err(denied) => Outcome {
                index,
                name,
                allowed: false,
                result: Map::new(),
                reasons: denied.reasons().to_vec(),
                sentence: Some(denied.summary().to_owned()),
                message: Some(denied.to_string()),
            },
        });
    }
    Ok(outcomes)
}

fn fragment_text(index: usize, path: &str, base_dir: &Path) -> Result<String, SimulateError> {
    let read = |path: &Path| crate::source::read(path, policy_fragment::MAX_REGO_BYTES as u64);
    let bytes = read(Path::new(path)).or_else(|_| read(&base_dir.join(path)));
    let bytes = bytes.map_err(|source| SimulateError::Fragment {
        index,
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Loads a fragment as the guest does.
fn load_fragment(enforcer: &mut Enforcer, input: &Value, _text: &str) -> Result<Map<String, Value>, policy::Denied> {
    let mut input = input.clone();
    if let Some(input) = input.as_object_mut() {
        input.remove("local_path");
    }
    enforcer.ask("load_fragment", input)
}
