//! Simulation: the engine decides on requests from a file in order, with the guest's base data.
//!
//! A file is a JSON array of `{"name": POINT, "input": DOCUMENT}` with input documents of Rego. Changes of the policy's state are kept.

use std::path::Path;

use policy::Enforcer;
use policy::action::LoadFragment;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

/// Largest file of commands in bytes.
pub const MAX_COMMANDS_BYTES: u64 = 64 << 20;
/// Maximum number of commands of one file.
pub const MAX_COMMANDS: usize = 100_000;

/// Why the simulation failed.
#[derive(Debug, Error)]
pub enum SimulateError {
    /// The policy does not load.
    #[error("the policy does not load")]
    Policy(#[from] policy::PolicyError),
    /// The commands do not have the documented form.
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
        /// The cause.
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
    /// The input document.
    pub input: Value,
}

/// The decision on a request.
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
    /// The sentence of the denial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentence: Option<String>,
    /// The whole text of the denial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Parses commands.
///
/// # Errors
/// They do not have the documented form, or there are too many.
pub fn read_commands(json: &str) -> Result<Vec<Command>, SimulateError> {
    let commands: Vec<Command> = serde_json::from_str(json).map_err(SimulateError::Commands)?;
    if commands.len() > MAX_COMMANDS {
        return Err(SimulateError::TooMany(commands.len()));
    }
    Ok(commands)
}

/// Decides on `commands` in order under `policy`. The path of a fragment (`input.local_path` of `load_fragment`) is tried as it is, then
/// relative to `base_dir`. `default_mounts` are allowed for every container, as a guest's network files are.
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
                load_fragment(&mut enforcer, &input, text)
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
    let read = |path: &Path| crate::file::read(path, policy_fragment::MAX_REGO_BYTES as u64);
    let bytes = read(Path::new(path)).or_else(|_| read(&base_dir.join(path)));
    let bytes = bytes.map_err(|source| SimulateError::Fragment {
        index,
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Loads a fragment as the guest does. Issuer and receipts are taken from the request without verification.
fn load_fragment(enforcer: &mut Enforcer, input: &Value, text: String) -> Result<Map<String, Value>, policy::Denied> {
    let named = |key: &str| input[key].as_str().unwrap_or_default().to_owned();
    let receipts = input["receipts"].as_array().into_iter().flatten();
    let claims: Vec<(String, ())> = receipts
        .filter_map(|receipt| Some((receipt["issuer"].as_str()?.to_owned(), ())))
        .collect();
    let fragment = LoadFragment {
        issuer: named("issuer"),
        feed: named("feed"),
        header_svn: input["header_svn"].as_i64(),
        text,
        receipts: enforcer.proven_receipts(claims, |(), _, _| true),
    };
    let permit = enforcer.enforce(fragment)?;
    let answer = permit.answer().clone();
    permit.commit();
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "package policy\napi_version := \"0.12.0\"\nframework_version := \"0.5.0\"\n\
        fragments := [{\"issuer\":\"did:x\",\"feed\":\"f\",\"minimum_svn\":\"1\",\"includes\":[\"containers\"]}]\n\
        load_fragment := data.framework.load_fragment\nmount_device := data.framework.mount_device\n\
        unmount_device := data.framework.unmount_device\nreason := data.framework.reason\n";

    #[test]
    fn requests_are_decided_in_order_and_fragments_are_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let config = crate::Config::from_toml(&format!("[[container]]\nlayers = [\"{}\"]\ncommand = [\"sh\"]\n", "ab".repeat(32))).unwrap();
        let fragment = crate::generate_fragment(&config, "app", "1", Path::new("")).unwrap();
        std::fs::write(directory.path().join("app.rego"), fragment).unwrap();
        let mount = format!(
            r#"{{"name": "mount_device", "input": {{"target": "/run/mounts/scsi/m0", "deviceHash": "{}", "mountPathRegex": "/run/mounts/scsi/m[0-9]+"}}}}"#,
            "ab".repeat(32)
        );
        let load = |issuer: &str| {
            format!(r#"{{"name": "load_fragment", "input": {{"issuer": "{issuer}", "feed": "f", "local_path": "app.rego"}}}}"#)
        };
        let commands = format!("[{mount}, {}, {}, {mount}, {mount}]", load("did:y"), load("did:x"));
        let outcomes = simulate(POLICY, read_commands(&commands).unwrap(), &[], directory.path()).unwrap();
        let allowed: Vec<bool> = outcomes.iter().map(|outcome| outcome.allowed).collect();
        assert_eq!(allowed, [false, false, true, true, false], "{outcomes:#?}");
        assert_eq!(outcomes[0].reasons, ["deviceHash not found"]);
        assert_eq!(outcomes[1].reasons, ["invalid fragment issuer"]);
        assert_eq!(outcomes[4].reasons, ["device already mounted at path"]);
    }

    #[test]
    fn other_forms_are_refused() {
        for text in ["{}", "[{\"name\": \"x\"}]", "[{\"name\": \"x\", \"input\": {}, \"more\": 1}]"] {
            assert!(matches!(read_commands(text), Err(SimulateError::Commands(_))), "{text}");
        }
        let commands = read_commands(r#"[{"name": "load_fragment", "input": {"local_path": "none"}}]"#).unwrap();
        assert!(matches!(
            simulate(POLICY, commands, &[], Path::new("")),
            Err(SimulateError::Fragment { index: 0, .. })
        ));
    }
}
