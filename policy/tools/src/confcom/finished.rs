//! Finished containers, in the words of the policy itself (the peer's `lib/policy.py`), with the defaults that the peer fills in.

use super::refused;
use crate::GenerateError;
use crate::config::{Capabilities, Config, Container, Definition, EnvRule, ExactMount, ExecProcess, IdName, Strategy, User};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Finished {
    id: Option<String>,
    name: Option<String>,
    layers: Vec<String>,
    command: Option<Vec<String>>,
    env_rules: Vec<Rule>,
    mounts: Vec<Mount>,
    exec_processes: Vec<Process>,
    signals: Vec<i32>,
    user: Option<Identity>,
    capabilities: Option<Sets>,
    seccomp_profile_sha256: String,
    allow_elevated: bool,
    allow_stdio_access: bool,
    no_new_privileges: bool,
    working_dir: String,
}

impl Default for Finished {
    fn default() -> Self {
        Self {
            id: None,
            name: None,
            layers: Vec::new(),
            command: None,
            env_rules: Vec::new(),
            mounts: Vec::new(),
            exec_processes: Vec::new(),
            signals: Vec::new(),
            user: None,
            capabilities: None,
            seccomp_profile_sha256: String::new(),
            allow_elevated: false,
            allow_stdio_access: true,
            no_new_privileges: false,
            working_dir: "/".to_owned(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    pattern: String,
    strategy: Strategy,
    #[serde(default)]
    required: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mount {
    destination: String,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    options: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Process {
    command: Vec<String>,
    #[serde(default)]
    signals: Option<Vec<i32>>,
    /// Not judged for each process.
    #[serde(default, rename = "allow_stdio_access")]
    _allow_stdio_access: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    #[serde(default)]
    user_idname: Option<Rule>,
    #[serde(default)]
    group_idnames: Option<Vec<Rule>>,
    #[serde(default)]
    umask: Option<String>,
}

/// Sets that are missing are the peer's defaults.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sets {
    ambient: Vec<String>,
    bounding: Option<Vec<String>>,
    effective: Option<Vec<String>>,
    inheritable: Vec<String>,
    permitted: Option<Vec<String>>,
}

/// The configuration of a list of containers.
pub(super) fn config(list: Vec<Value>) -> Result<Config, GenerateError> {
    let mut config = Config {
        // The peer's own defaults.
        allow_properties_access: true,
        allow_environment_variable_dropping: true,
        allow_capability_dropping: true,
        ..Config::default()
    };
    for (index, value) in list.into_iter().enumerate() {
        let place = format!("container {}", index + 1);
        let finished: Finished = serde_json::from_value(value).map_err(|error| refused(&place, error))?;
        config
            .container
            .push(container(finished).map_err(|problem| refused(&place, problem))?);
    }
    match config.container.is_empty() {
        true => Err(refused("", "there is no container")),
        false => Ok(config),
    }
}

fn container(finished: Finished) -> Result<Container, String> {
    let hash = &finished.seccomp_profile_sha256;
    if !hash.is_empty() && (hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit())) {
        return Err("seccomp_profile_sha256 is not a SHA-256 in hex".to_owned());
    }
    Ok(Container {
        image_name: finished.id.or(finished.name),
        layers: finished.layers,
        command: finished.command.unwrap_or_default(),
        working_dir: Some(finished.working_dir),
        allow_elevated: finished.allow_elevated,
        allow_stdio_access: finished.allow_stdio_access,
        allow_privilege_escalation: !finished.no_new_privileges,
        signals: finished.signals,
        exec_process: finished.exec_processes.into_iter().map(process).collect(),
        user: finished.user.map(user),
        capabilities: Some(capabilities(finished.capabilities.unwrap_or_default())),
        definition: Some(Definition {
            env_rules: finished.env_rules.into_iter().map(env_rule).collect(),
            more_env_rules: Vec::new(),
            mounts: finished.mounts.into_iter().map(mount).collect(),
            seccomp_profile_sha256: finished.seccomp_profile_sha256,
        }),
        ..Container::default()
    })
}

fn env_rule(rule: Rule) -> EnvRule {
    EnvRule {
        strategy: rule.strategy,
        rule: rule.pattern,
        required: rule.required.unwrap_or(false),
        ..EnvRule::default()
    }
}

fn mount(mount: Mount) -> ExactMount {
    ExactMount {
        destination: mount.destination,
        options: mount.options,
        source: mount.source,
        kind: mount.kind,
    }
}

fn process(process: Process) -> ExecProcess {
    ExecProcess {
        command: process.command,
        signals: process.signals.unwrap_or_default(),
    }
}

fn user(identity: Identity) -> User {
    let id_name = |rule: Rule| IdName {
        strategy: rule.strategy,
        rule: rule.pattern,
    };
    let groups = identity.group_idnames.map(|groups| groups.into_iter().map(id_name).collect());
    User {
        umask: identity.umask.unwrap_or_default(),
        user_idname: identity.user_idname.map(id_name).unwrap_or_default(),
        group_idname: groups.unwrap_or_else(|| vec![IdName::default()]),
    }
}

fn capabilities(sets: Sets) -> Capabilities {
    let mut defaults = policy::data::unprivileged_capabilities().bounding;
    defaults.sort_unstable();
    let or_default = |set: Option<Vec<String>>| set.unwrap_or_else(|| defaults.clone());
    Capabilities {
        bounding: or_default(sets.bounding),
        effective: or_default(sets.effective),
        inheritable: sets.inheritable,
        permitted: or_default(sets.permitted),
        ambient: sets.ambient,
    }
}
