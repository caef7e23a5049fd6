//! Replays recorded decisions: one JSON line holds a policy, requests, and what has to come out.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::action::{self, Action, Capabilities, LoadFragment, LoadTransparencyTrustList};
use crate::denied::Denied;
use crate::enforcer::Enforcer;
use crate::plain::extract_decision;
use crate::verdict::{ExternalVerdict, ProcessVerdict};
use crate::{PolicyError, selection};

/// A line of a vector file.
#[derive(Debug, Deserialize)]
struct Scenario {
    name: String,
    policy: String,
    policy_b64: Option<String>,
    #[serde(default)]
    enforcer: String,
    #[serde(default)]
    max_error_message_length: usize,
    create: Creation,
    #[serde(default)]
    steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
struct Creation {
    ok: bool,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Step {
    point: String,
    #[serde(default)]
    args: Map<String, Value>,
    input: Option<Value>,
    #[serde(default)]
    calls: Vec<Call>,
    #[serde(default)]
    steps: Vec<Step>,
    want: Want,
}

/// One question of a step that asks several.
#[derive(Debug, Deserialize)]
struct Call {
    input: Value,
    want: Want,
}

#[derive(Debug, Deserialize)]
struct Want {
    allowed: bool,
    result: Option<Map<String, Value>>,
    #[serde(default)]
    reasons: Vec<String>,
    reason_text: Option<String>,
    num_error_objects: Option<usize>,
    policy_error: Option<String>,
    error: Option<String>,
    keep: Option<Kept>,
    #[serde(default)]
    state_delta: BTreeMap<String, Option<usize>>,
    module_active: Option<bool>,
}

/// What an allowed step left of the request.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
struct Kept {
    env: Option<Vec<String>>,
    caps: Option<BTreeMap<String, Vec<String>>>,
    stdio: Option<bool>,
}

/// An allowed step.
struct Allowed {
    result: Map<String, Value>,
    kept: Option<Kept>,
}

/// What a step gives, with the answers to its questions where it asks several.
type Outcome = (Result<Allowed, Denied>, Vec<Map<String, Value>>);

/// Why a line did not replay.
#[derive(Debug, Error)]
pub enum Failure {
    /// The line is no scenario.
    #[error("not a scenario: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Something else came out.
    #[error("{name}: {difference}")]
    Differs {
        /// The scenario.
        name: String,
        /// At which step what differed.
        difference: String,
    },
}

/// Replays one line.
///
/// # Errors
/// The line is no scenario, or something else came out.
pub fn replay(line: &str) -> Result<(), Failure> {
    let scenario: Scenario = serde_json::from_str(line)?;
    let name = scenario.name.clone();
    run(scenario).map_err(|difference| Failure::Differs { name, difference })
}

fn run(scenario: Scenario) -> Result<(), String> {
    let Scenario {
        policy,
        policy_b64,
        enforcer,
        max_error_message_length,
        create,
        steps,
        ..
    } = scenario;
    let encoded = policy_b64.unwrap_or_else(|| STANDARD.encode(policy));
    let created = selection::select(&enforcer, &encoded);
    let enforcer = match (created, create.ok) {
        (Ok(enforcer), true) => enforcer.with_max_decision_bytes(max_error_message_length),
        (Err(error), true) => return Err(format!("create: {error}")),
        (Ok(_), false) => return Err(format!("create succeeded, want {:?}", create.error)),
        (Err(error), false) => return creation_error(&error, create.error.as_deref().unwrap_or_default()),
    };
    let mut replay = Replay {
        counters: enforcer.counters(),
        enforcer,
    };
    replay.steps(&steps, "step")
}

fn creation_error(error: &selection::SelectionError, want: &str) -> Result<(), String> {
    let (got, want) = match error {
        selection::SelectionError::Base64(_) => ("unable to decode policy from Base64 format".to_owned(), want),
        selection::SelectionError::Policy(PolicyError::Compile(_)) => ("rego compilation failed".to_owned(), want),
        other => (other.to_string(), want),
    };
    if want.contains(&got) {
        Ok(())
    } else {
        Err(format!("create: {error}, want {want}"))
    }
}

struct Replay {
    enforcer: Enforcer,
    counters: BTreeMap<String, usize>,
}

impl Replay {
    fn steps(&mut self, steps: &[Step], place: &str) -> Result<(), String> {
        for (index, step) in steps.iter().enumerate() {
            let place = format!("{place} {index} {}", step.point);
            match step.point.as_str() {
                "transaction" => self.transaction(step, &place)?,
                "extend_default_mounts" => self.extend_default_mounts(step).map_err(|error| format!("{place}: {error}"))?,
                _ => self.request(step).map_err(|error| format!("{place}: {error}"))?,
            }
        }
        Ok(())
    }

    fn request(&mut self, step: &Step) -> Result<(), String> {
        let (outcome, answers) = match step.point.as_str() {
            "load_fragment" => load_fragment(&mut self.enforcer, step)?,
            "load_transparency_trust_list" => (load_trust_list(&mut self.enforcer, step)?, Vec::new()),
            _ => (request(&mut self.enforcer, step)?, Vec::new()),
        };
        for (index, (answer, call)) in answers.iter().zip(&step.calls).enumerate() {
            let result = call.want.result.clone().unwrap_or_default();
            if call.want.allowed && normal(answer) != normal(&result) {
                return Err(format!("answer {index} is {answer:?}, want {result:?}"));
            }
        }
        match (outcome, step.want.allowed) {
            (Ok(allowed), true) => compare_allowed(&allowed, &step.want)?,
            (Err(denied), false) => compare_denied(&denied, &step.want)?,
            (Ok(allowed), false) => return Err(format!("allowed: {:?}", allowed.result)),
            (Err(denied), true) => return Err(format!("denied: {denied} {:?}", denied.reasons())),
        }
        self.compare_active(step)?;
        self.compare_state(&step.want)
    }

    fn compare_active(&self, step: &Step) -> Result<(), String> {
        let Some(want) = step.want.module_active else {
            return Ok(());
        };
        let (issuer, feed) = (text(&step.args, "issuer"), text(&step.args, "feed"));
        let active = self.enforcer.active_fragments().any(|(i, f, _)| (i, f) == (issuer, feed));
        if active == want {
            Ok(())
        } else {
            Err(format!("fragment in use: {active}, want {want}"))
        }
    }

    fn extend_default_mounts(&mut self, step: &Step) -> Result<(), String> {
        let mounts = step.args.get("mounts").cloned().unwrap_or_default();
        let mounts: Vec<action::Mount> = serde_json::from_value(mounts).map_err(|error| error.to_string())?;
        self.enforcer.extend_default_mounts(&mounts).map_err(|error| error.to_string())
    }

    fn transaction(&mut self, step: &Step, place: &str) -> Result<(), String> {
        if place.matches("transaction").count() > 1 {
            // The borrow checker refuses a transaction within one; there is nothing to run.
            return Ok(());
        }
        let before = self.enforcer.begin();
        self.steps(&step.steps, place)?;
        if step.args.get("fail") == Some(&Value::Bool(true)) {
            self.enforcer.undo(before);
        }
        self.compare_state(&step.want).map_err(|error| format!("{place}: {error}"))
    }

    fn compare_state(&mut self, want: &Want) -> Result<(), String> {
        let now = self.enforcer.counters();
        let mut delta: BTreeMap<String, Option<usize>> = BTreeMap::new();
        for name in self.counters.keys().chain(now.keys()) {
            if self.counters.get(name) != now.get(name) {
                delta.insert(name.clone(), now.get(name).copied());
            }
        }
        self.counters = now;
        if delta == want.state_delta {
            Ok(())
        } else {
            Err(format!("state changed by {delta:?}, want {:?}", want.state_delta))
        }
    }
}

/// Runs a request through the type the agent uses, where there is one. The outer error: the vector does not fit the type.
fn request(enforcer: &mut Enforcer, step: &Step) -> Result<Result<Allowed, Denied>, String> {
    let process = |verdict: &ProcessVerdict| {
        Some(Kept {
            env: Some(verdict.env.clone()),
            caps: capability_lists(&verdict.capabilities),
            stdio: Some(verdict.stdio),
        })
    };
    let external = |verdict: &ExternalVerdict| {
        Some(Kept {
            env: Some(verdict.env.clone()),
            caps: None,
            stdio: Some(verdict.stdio),
        })
    };
    let nothing = |(): &()| None;
    match step.point.as_str() {
        "create_container" => typed::<action::CreateContainer>(enforcer, step, process),
        "exec_in_container" => typed::<action::ExecInContainer>(enforcer, step, process),
        "exec_external" => typed::<action::ExecExternal>(enforcer, step, external),
        "mount_device" => typed::<action::MountDevice>(enforcer, step, nothing),
        "unmount_device" => typed::<action::UnmountDevice>(enforcer, step, nothing),
        "rw_mount_device" => typed::<action::RwMountDevice>(enforcer, step, nothing),
        "rw_unmount_device" => typed::<action::RwUnmountDevice>(enforcer, step, nothing),
        "mount_blockdev" => typed::<action::MountBlockdev>(enforcer, step, nothing),
        "unmount_blockdev" => typed::<action::UnmountBlockdev>(enforcer, step, nothing),
        "mount_overlay" => typed::<action::MountOverlay>(enforcer, step, nothing),
        "unmount_overlay" => typed::<action::UnmountOverlay>(enforcer, step, nothing),
        "scratch_mount" => typed::<action::ScratchMount>(enforcer, step, nothing),
        "scratch_unmount" => typed::<action::ScratchUnmount>(enforcer, step, nothing),
        "plan9_mount" => typed::<action::Plan9Mount>(enforcer, step, nothing),
        "plan9_unmount" => typed::<action::Plan9Unmount>(enforcer, step, nothing),
        "shutdown_container" => typed::<action::ShutdownContainer>(enforcer, step, nothing),
        "signal_container_process" => typed::<action::SignalContainerProcess>(enforcer, step, nothing),
        "get_properties" => typed::<action::GetProperties>(enforcer, step, nothing),
        "dump_stacks" => typed::<action::DumpStacks>(enforcer, step, nothing),
        "runtime_logging" => typed::<action::RuntimeLogging>(enforcer, step, nothing),
        "host_network" => typed::<action::HostNetwork>(enforcer, step, nothing),
        "mount_cims" => typed::<action::MountCims>(enforcer, step, nothing),
        "registry_changes" => typed::<action::RegistryChanges>(enforcer, step, nothing),
        "log_provider" => typed::<action::LogProvider>(enforcer, step, |verdict| {
            Some(Kept {
                env: Some(verdict.providers.clone()),
                caps: None,
                stdio: None,
            })
        }),
        point => {
            let input = step.input.clone().ok_or("the vector has no input")?;
            Ok(enforcer.ask(point, input).map(|result| Allowed { result, kept: None }))
        }
    }
}

fn text<'a>(args: &'a Map<String, Value>, name: &str) -> &'a str {
    args.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A claimed receipt of a vector; its signature is as good as it says.
#[derive(Debug, Deserialize)]
struct Claim {
    issuer: String,
    kid: String,
    valid: bool,
}

fn load_fragment(enforcer: &mut Enforcer, step: &Step) -> Result<Outcome, String> {
    let claims: Vec<Claim> = match step.args.get("receipts") {
        Some(claims) => serde_json::from_value(claims.clone()).map_err(|error| error.to_string())?,
        None => Vec::new(),
    };
    let claims = claims.into_iter().map(|claim| (claim.issuer.clone(), claim));
    let action = LoadFragment {
        issuer: text(&step.args, "issuer").to_owned(),
        feed: text(&step.args, "feed").to_owned(),
        header_svn: step.args.get("header_svn").and_then(Value::as_i64),
        text: text(&step.args, "rego").to_owned(),
        receipts: enforcer.proven_receipts(claims, |claim, id, _| claim.valid && claim.kid == id),
    };
    if let Some(want) = &step.input {
        same_input(&action, want)?;
        let loaded = action.question(text_of(want, "namespace"), true);
        if let Some(call) = step.calls.iter().skip(1).find(|call| call.input != loaded) {
            return Err(format!("the second question is {loaded}, want {}", call.input));
        }
    }
    let issued = step.calls.len();
    match enforcer.enforce(action) {
        Ok(permit) => {
            let result = permit.answer().clone();
            let answers = permit.verdict().answers.clone();
            permit.commit();
            if answers.len() != issued {
                return Err(format!("asked {} questions, want {issued}", answers.len()));
            }
            Ok((Ok(Allowed { result, kept: None }), answers))
        }
        Err(denied) => Ok((Err(denied), Vec::new())),
    }
}

fn load_trust_list(enforcer: &mut Enforcer, step: &Step) -> Result<Result<Allowed, Denied>, String> {
    let input = step.input.as_ref().ok_or("the vector has no input")?;
    let ttl: BTreeMap<String, BTreeMap<String, String>> = match step.args.get("ttl") {
        Some(ttl) => serde_json::from_value(ttl.clone()).map_err(|error| error.to_string())?,
        None => BTreeMap::new(),
    };
    let mut ledgers: BTreeMap<String, BTreeMap<String, Vec<u8>>> = ttl
        .into_iter()
        .map(|(ledger, keys)| (ledger, keys.into_iter().map(|(id, seed)| (id, seed.into_bytes())).collect()))
        .collect();
    for ledger in input["ledgers"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        ledgers.entry(ledger.to_owned()).or_default();
    }
    let action = LoadTransparencyTrustList {
        issuer: text_of(input, "issuer").to_owned(),
        subject: text_of(input, "subject").to_owned(),
        svn: input["svn"].as_i64().ok_or("svn is no number")?,
        ledgers,
    };
    same_input(&action, input)?;
    Ok(enforcer.enforce(action).map(|permit| {
        let result = permit.answer().clone();
        permit.commit();
        Allowed { result, kept: None }
    }))
}

fn text_of<'a>(input: &'a Value, name: &str) -> &'a str {
    input[name].as_str().unwrap_or_default()
}

/// Whether the action asks what the vector asks; names of ledgers come in any order.
fn same_input<A: Action>(action: &A, want: &Value) -> Result<(), String> {
    let got = serde_json::to_value(action).map_err(|error| error.to_string())?;
    let sorted = |input: &Value| {
        let mut input = input.clone();
        if let Some(ledgers) = input.get_mut("ledgers").and_then(Value::as_array_mut) {
            ledgers.sort_by_key(Value::to_string);
        }
        input
    };
    if sorted(&got) == sorted(want) {
        Ok(())
    } else {
        Err(format!("the action's input is {got}, the vector's {want}"))
    }
}

fn typed<A: Action + DeserializeOwned>(
    enforcer: &mut Enforcer,
    step: &Step,
    kept: impl Fn(&A::Verdict) -> Option<Kept>,
) -> Result<Result<Allowed, Denied>, String> {
    let input = match &step.input {
        Some(input) => input.clone(),
        None => unasked(step),
    };
    let action: A = serde_json::from_value(input.clone()).map_err(|error| format!("input does not fit the action: {error}"))?;
    if step.input.is_some() && serde_json::to_value(&action).ok() != Some(input) {
        return Err("the action's input differs from the vector's".to_owned());
    }
    Ok(enforcer.enforce(action).map(|permit| {
        let allowed = Allowed {
            result: permit.answer().clone(),
            kept: kept(permit.verdict()),
        };
        permit.commit();
        allowed
    }))
}

/// The least input for a request that no Rego saw: from the arguments, from what was kept of it unchanged, or empty.
fn unasked(step: &Step) -> Value {
    let blank = match step.point.as_str() {
        "create_container" => {
            r#"{"containerID":"","argList":[],"envList":[],"workingDir":"","sandboxDir":"","hugePagesDir":"","mounts":[],
                "devices":[],"privileged":false,"noNewPrivileges":false,"user":{"id":"","name":""},"groups":[],"umask":"",
                "capabilities":null,"seccompProfileSHA256":"","isSandboxContainer":false}"#
        }
        "exec_in_container" => {
            r#"{"containerID":"","argList":[],"envList":[],"workingDir":"","noNewPrivileges":false,
                "user":{"id":"","name":""},"groups":[],"umask":"","capabilities":null}"#
        }
        "mount_device" => r#"{"target":"/run/mounts/scsi/m0","deviceHash":"","mountPathRegex":""}"#,
        "mount_overlay" => r#"{"containerID":"","layerPaths":[],"target":""}"#,
        _ => "{}",
    };
    let mut input: Map<String, Value> = serde_json::from_str(blank).unwrap_or_default();
    if let Some(kept) = &step.want.keep {
        let mut capabilities = kept.caps.clone().unwrap_or_default();
        for set in ["ambient", "bounding", "effective", "inheritable", "permitted"] {
            capabilities.entry(set.to_owned()).or_default();
        }
        for (key, value) in [
            ("envList", json!(kept.env.clone().unwrap_or_default())),
            ("capabilities", json!(capabilities)),
        ] {
            if let Some(slot) = input.get_mut(key) {
                *slot = value;
            }
        }
    }
    for (key, value) in &step.args {
        if let Some(slot) = input.get_mut(key) {
            *slot = value.clone();
        }
    }
    Value::Object(input)
}

fn compare_allowed(allowed: &Allowed, want: &Want) -> Result<(), String> {
    if let Some(result) = &want.result {
        let (got, want) = (normal(&allowed.result), normal(result));
        if got != want {
            return Err(format!("result {got}, want {want}"));
        }
    }
    if let (Some(kept), Some(want)) = (&allowed.kept, &want.keep) {
        let sorted = |list: &Option<Vec<String>>| {
            let mut list = list.clone().unwrap_or_default();
            list.sort();
            list
        };
        let sets = |caps: &Option<BTreeMap<String, Vec<String>>>| {
            let mut caps = caps.clone().unwrap_or_default();
            caps.retain(|_, list| !list.is_empty());
            caps.values_mut().for_each(|list| list.sort());
            caps
        };
        let caps_differ = want.caps.is_some() && sets(&kept.caps) != sets(&want.caps);
        if sorted(&kept.env) != sorted(&want.env) || caps_differ || want.stdio.is_some_and(|stdio| kept.stdio != Some(stdio)) {
            return Err(format!("kept {kept:?}, want {want:?}"));
        }
    }
    Ok(())
}

fn capability_lists(capabilities: &Capabilities) -> Option<BTreeMap<String, Vec<String>>> {
    serde_json::from_value(serde_json::to_value(capabilities).ok()?).ok()
}

/// The result with lists whose order carries no meaning sorted.
fn normal(result: &Map<String, Value>) -> Value {
    let unordered = ["env_list", "caps_list", "providers_to_keep", "allowed_ledgers"];
    let normalised = result.iter().map(|(key, value)| {
        let value = if unordered.contains(&key.as_str()) {
            normal_lists(value.clone())
        } else {
            value.clone()
        };
        (key.clone(), value)
    });
    Value::Object(normalised.collect())
}

fn normal_lists(value: Value) -> Value {
    match value {
        Value::Array(mut list) => {
            list.sort_by_key(Value::to_string);
            Value::Array(list)
        }
        Value::Object(map) => Value::Object(map.into_iter().map(|(key, value)| (key, normal_lists(value))).collect()),
        other => other,
    }
}

fn compare_denied(denied: &Denied, want: &Want) -> Result<(), String> {
    if let Some(error) = &want.error {
        return if denied.decision() == error {
            Ok(())
        } else {
            Err(format!("error {:?}, want {error:?}", denied.decision()))
        };
    }
    let decision = extract_decision(denied.decision()).map_err(|error| error.to_string())?;
    let mut reasons = denied.reasons().to_vec();
    reasons.sort();
    if reasons != want.reasons {
        return Err(format!("reasons {reasons:?}, want {:?}", want.reasons));
    }
    if let Some(text) = &want.reason_text
        && decision["reason"].as_str() != Some(text)
    {
        return Err(format!("reason {}, want {text:?}", decision["reason"]));
    }
    if want.num_error_objects != decision["reason"]["error_objects"].as_array().map(Vec::len) {
        return Err(format!(
            "error objects {}, want {:?}",
            decision["reason"]["error_objects"], want.num_error_objects
        ));
    }
    compare_policy_error(decision["policyError"].as_str(), want.policy_error.as_deref())
}

/// Texts of the recording engine's own making are only compared for being there.
fn compare_policy_error(got: Option<&str>, want: Option<&str>) -> Result<(), String> {
    const FOREIGN: &[&str] = &[
        "rego_",
        "eval_conflict_error",
        "rego compilation failed",
        "regopolicyinterpreter.",
        "map[string]interface {}",
        "json.Number",
    ];
    match (got, want) {
        (Some(_), Some(want)) if FOREIGN.iter().any(|mark| want.contains(mark)) => Ok(()),
        (got, want) if got == want => Ok(()),
        (got, want) => Err(format!("policy error {got:?}, want {want:?}")),
    }
}
