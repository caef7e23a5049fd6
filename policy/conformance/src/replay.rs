//! Runs one scenario and compares each decision with the recorded one.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use policy::action::Mount;
use policy::{Enforcer, PolicyError};
use serde_json::Value;
use thiserror::Error;

use crate::scenario::{Scenario, Step, Want};
use crate::{compare, request, selection};

/// Why a line failed.
#[derive(Debug, Error)]
pub enum Failure {
    /// The line is not a scenario.
    #[error("not a scenario: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A decision differs from the recorded one.
    #[error("{name}: {difference}")]
    Differs {
        /// Name of the scenario.
        name: String,
        /// The step and what differs.
        difference: String,
    },
}

/// Replays one line.
///
/// # Errors
/// The line is not a scenario, or a decision differs from the recorded one.
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
    let mut enforcer = match (created, create.ok) {
        (Ok(enforcer), true) => enforcer.with_max_decision_bytes(max_error_message_length),
        (Err(error), true) => return Err(format!("create: {error}")),
        (Ok(_), false) => return Err(format!("create succeeded, want {:?}", create.error)),
        (Err(error), false) => return creation_error(&error, create.error.as_deref().unwrap_or_default()),
    };
    let mut replay = Replay {
        counters: enforcer.counters(),
    };
    replay.steps(&mut enforcer, &steps, "step")
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

/// The counters after the last step, with which the next step's are compared.
struct Replay {
    counters: BTreeMap<String, usize>,
}

impl Replay {
    fn steps(&mut self, enforcer: &mut Enforcer, steps: &[Step], place: &str) -> Result<(), String> {
        for (index, step) in steps.iter().enumerate() {
            let place = format!("{place} {index} {}", step.point);
            match step.point.as_str() {
                "transaction" => self.transaction(enforcer, step, &place)?,
                "extend_default_mounts" => extend_default_mounts(enforcer, step).map_err(|error| format!("{place}: {error}"))?,
                _ => self.request(enforcer, step).map_err(|error| format!("{place}: {error}"))?,
            }
        }
        Ok(())
    }

    fn request(&mut self, enforcer: &mut Enforcer, step: &Step) -> Result<(), String> {
        let (outcome, answers) = request::run(enforcer, step)?;
        for (index, (answer, call)) in answers.iter().zip(&step.calls).enumerate() {
            let result = call.want.result.clone().unwrap_or_default();
            if call.want.allowed && compare::normal(answer) != compare::normal(&result) {
                return Err(format!("answer {index} is {answer:?}, want {result:?}"));
            }
        }
        match (outcome, step.want.allowed) {
            (Ok(allowed), true) => compare::allowed(&allowed, &step.want)?,
            (Err(denied), false) => compare::denied(&denied, &step.want)?,
            (Ok(allowed), false) => return Err(format!("allowed: {:?}", allowed.result)),
            (Err(denied), true) => return Err(format!("denied: {denied} {:?}", denied.reasons())),
        }
        compare_active(enforcer, step)?;
        self.compare_state(enforcer, &step.want)
    }

    fn transaction(&mut self, enforcer: &mut Enforcer, step: &Step, place: &str) -> Result<(), String> {
        if place.matches("transaction").count() > 1 {
            // hcsshim refuses nested transactions; the guest agent never opens one.
            return Ok(());
        }
        let mut transaction = enforcer.transaction();
        self.steps(transaction.enforcer(), &step.steps, place)?;
        if step.args.get("fail") == Some(&Value::Bool(true)) {
            drop(transaction);
        } else {
            transaction.commit();
        }
        self.compare_state(enforcer, &step.want)
            .map_err(|error| format!("{place}: {error}"))
    }

    fn compare_state(&mut self, enforcer: &Enforcer, want: &Want) -> Result<(), String> {
        let now = enforcer.counters();
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

fn compare_active(enforcer: &Enforcer, step: &Step) -> Result<(), String> {
    let Some(want) = step.want.module_active else {
        return Ok(());
    };
    let (issuer, feed) = (step.text("issuer"), step.text("feed"));
    let active = enforcer.active_fragments().any(|(i, f, _)| (i, f) == (issuer, feed));
    if active == want {
        Ok(())
    } else {
        Err(format!("fragment in use: {active}, want {want}"))
    }
}

fn extend_default_mounts(enforcer: &mut Enforcer, step: &Step) -> Result<(), String> {
    let mounts = step.args.get("mounts").cloned().unwrap_or_default();
    let mounts: Vec<Mount> = serde_json::from_value(mounts).map_err(|error| error.to_string())?;
    enforcer.extend_default_mounts(&mounts).map_err(|error| error.to_string())
}
