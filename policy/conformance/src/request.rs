//! Requests of a scenario, made through the actions that the guest agent uses.

use std::collections::BTreeMap;

use policy::action::{self, Action, Capabilities, LoadFragment, LoadTransparencyTrustList};
use policy::{Denied, Enforcer, ExternalVerdict, ProcessVerdict};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::scenario::{Allowed, Kept, Outcome, Step};

/// Runs the request of a step, and commits what it changes. The outer error means that the vector does not fit the action's type.
pub(crate) fn run(enforcer: &mut Enforcer, step: &Step) -> Result<Outcome, String> {
    match step.point.as_str() {
        "load_fragment" => load_fragment(enforcer, step),
        "load_transparency_trust_list" => Ok((load_trust_list(enforcer, step)?, Vec::new())),
        _ => Ok((single(enforcer, step)?, Vec::new())),
    }
}

/// A request of one query: the action that the guest agent uses, or the bare input document if there is none.
fn single(enforcer: &mut Enforcer, step: &Step) -> Result<Result<Allowed, Denied>, String> {
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

/// A receipt of a vector; `valid` stands for the check of its signature.
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
        issuer: step.text("issuer").to_owned(),
        feed: step.text("feed").to_owned(),
        header_svn: step.args.get("header_svn").and_then(Value::as_i64),
        text: step.text("rego").to_owned(),
        receipts: enforcer.proven_receipts(claims, |claim, id, _| claim.valid && claim.kid == id),
    };
    if let Some(want) = &step.input {
        same_input(&action, want)?;
        let loaded = action.question(text_of(want, "namespace"), true);
        if let Some(call) = step.calls.iter().skip(1).find(|call| call.input != loaded) {
            return Err(format!("the second query is {loaded}, want {}", call.input));
        }
    }
    let recorded = step.calls.len();
    match enforcer.enforce(action) {
        Ok(permit) => {
            let result = permit.answer().clone();
            let answers = permit.verdict().answers.clone();
            permit.commit();
            if answers.len() != recorded {
                return Err(format!("made {} queries, want {recorded}", answers.len()));
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

/// Checks that the action's input document is the vector's; the order of ledgers does not matter.
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
        None => blank_input(step),
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

/// The input for a recorded request that hcsshim decided without Rego: its arguments, the kept part of the request, and blanks.
fn blank_input(step: &Step) -> Value {
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

fn capability_lists(capabilities: &Capabilities) -> Option<BTreeMap<String, Vec<String>>> {
    serde_json::from_value(serde_json::to_value(capabilities).ok()?).ok()
}
