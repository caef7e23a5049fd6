//! Comparison of a decision with the recorded one.

use std::collections::BTreeMap;

use policy::{Denied, extract_decision};
use serde_json::{Map, Value};

use crate::scenario::{Allowed, Want};

pub(crate) fn allowed(allowed: &Allowed, want: &Want) -> Result<(), String> {
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

/// The result with the lists sorted whose order has no meaning.
pub(crate) fn normal(result: &Map<String, Value>) -> Value {
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

pub(crate) fn denied(denied: &Denied, want: &Want) -> Result<(), String> {
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

/// Texts of OPA and of Go are compared for presence only.
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
