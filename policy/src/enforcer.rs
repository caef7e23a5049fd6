//! The judge: an action goes in, a permit that owns the action comes out, or a denial.

use std::collections::BTreeMap;
use std::sync::Arc;

use regorus::Value;
use serde_json::{Map, Value as Json};

use crate::action::{Action, Mount, Subject};
use crate::denied::{Denied, Reason, Style};
use crate::fragment::Active;
use crate::interpreter::{Interpreter, PolicyError, QueryError};
use crate::ledgers::Ledgers;
use crate::points::{CASEMATE_VERSION, Point};
use crate::state::{Command, State};
use crate::verdict::{Answer, Verdict};

mod loading;

/// Longest decision in a denial's text: callers cut error messages short, and cut base64 cannot be read.
pub const MAX_DECISION_BYTES: usize = 3072;

/// Why nothing is allowed after a roll-back failed.
const POISONED: &str = "policy state could not be restored after an earlier error; everything is denied";

/// What was decided before, as the policy and later decisions see it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory {
    state: State,
    /// By container, whether its later processes may use stdio.
    stdio: Arc<BTreeMap<String, bool>>,
    ledgers: Ledgers,
    active: Arc<Vec<Active>>,
    /// Fragments that were loaded, in use or not.
    loads: usize,
}

/// Owns a policy and everything it remembers. One per VM.
pub struct Enforcer {
    interpreter: Interpreter,
    api: ApiVersion,
    /// `casemate_version` of the policy.
    own_version: ApiVersion,
    /// The policy asks for the safer choice wherever it would change what existing policies get.
    strict: bool,
    /// By container, whether its later processes may use stdio.
    stdio: Arc<BTreeMap<String, bool>>,
    ledgers: Ledgers,
    /// Fragments whose namespaces are in use.
    active: Arc<Vec<Active>>,
    /// Fragments that were loaded, in use or not.
    loads: usize,
    max_decision_bytes: usize,
    poisoned: bool,
}

/// What the policy says about the API it was written for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ApiVersion {
    Missing,
    NotSemver,
    Declared(semver::Version),
}

impl Enforcer {
    /// Loads a policy text.
    ///
    /// # Errors
    /// The text is too large or no policy; nothing may be served under it.
    pub fn new(policy: &str) -> Result<Self, PolicyError> {
        let mut interpreter = Interpreter::new(policy)?;
        let api = declared_version(&mut interpreter, &["data.policy.api_version", "data.policy.api_svn"]);
        let own_version = declared_version(&mut interpreter, &["data.policy.casemate_version"]);
        let strict = interpreter.strict();
        Ok(Self {
            interpreter,
            api,
            own_version,
            strict,
            stdio: Arc::default(),
            ledgers: Ledgers::default(),
            active: Arc::default(),
            loads: 0,
            max_decision_bytes: MAX_DECISION_BYTES,
            poisoned: false,
        })
    }

    /// Sets how long the decision in a denial's text may get, in bytes; 0 is without limit.
    #[must_use]
    pub fn with_max_decision_bytes(mut self, bytes: usize) -> Self {
        self.max_decision_bytes = bytes;
        self
    }

    /// Whether nothing is allowed any more because what the policy remembers could not be put back.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Judges `action`.
    ///
    /// What the policy remembers changes at once; it is kept when the permit is committed, and put back when it is dropped.
    ///
    /// # Errors
    /// The policy denies, says nothing usable, or nothing is allowed any more.
    pub fn enforce<A: Action>(&mut self, action: A) -> Result<Permit<'_, A>, Denied> {
        const {
            assert!(
                Point::is_listed(A::POINT),
                "the action's point is missing from the tables in points.rs"
            )
        };
        let before = self.memory();
        match action.judge(self) {
            Ok((answer, verdict)) => Ok(Permit {
                action,
                answer,
                verdict,
                enforcer: self,
                before: Some(before),
            }),
            Err(reason) => {
                if self.strict {
                    self.restore(before);
                }
                Err(Denied::new(A::POINT, &action.subject(), reason, self.style()))
            }
        }
    }

    /// How denials are written.
    fn style(&self) -> Style {
        Style {
            max_bytes: self.max_decision_bytes,
            redact_arguments: self.strict,
        }
    }

    /// Judges a request given as a Rego input document, for simulators and tools: what acts needs a permit.
    /// What the policy remembers is kept.
    ///
    /// # Errors
    /// As [`Self::enforce`].
    pub fn ask(&mut self, point: &str, input: Json) -> Result<Map<String, Json>, Denied> {
        self.decide(point, input)
            .map_err(|reason| Denied::new(point, &Subject::default(), reason, self.style()))
    }

    /// Begins a sequence of decisions that is kept or undone as a whole.
    pub fn transaction(&mut self) -> Transaction<'_> {
        let before = self.memory();
        Transaction {
            enforcer: self,
            before: Some(before),
        }
    }

    pub(crate) fn judge<A: Action>(&mut self, action: &A) -> Result<(Map<String, Json>, A::Verdict), Reason> {
        let subject = action.subject();
        if subject.capabilities_needed && subject.capabilities.is_none() {
            return Err(Reason::Refused(
                "capabilities object provided by the UVM to the policy engine is nil".to_owned(),
            ));
        }
        let input = serde_json::to_value(action).map_err(|error| Reason::Refused(error.to_string()))?;
        let result = self.decide(A::POINT, input)?;
        let container_stdio = subject
            .container
            .is_some_and(|id| self.stdio.get(id.as_hex()).copied().unwrap_or(false));
        let verdict = A::Verdict::read(
            &Answer {
                result: &result,
                container_stdio,
            },
            &subject,
        )
        .map_err(Reason::Refused)?;
        if let Subject {
            container: Some(container),
            decides_stdio: true,
            ..
        } = subject
        {
            Arc::make_mut(&mut self.stdio).insert(container.as_hex().to_owned(), verdict.stdio());
        }
        Ok((result, verdict))
    }

    /// Asks the policy about `point` and returns its whole answer if that allows.
    pub(crate) fn decide(&mut self, point: &str, input: Json) -> Result<Map<String, Json>, Reason> {
        if self.poisoned {
            return Err(Reason::Refused(POISONED.to_owned()));
        }
        let document = Value::from(input.clone());
        match self.result(point, &document) {
            Err(policy_error) => Err(Reason::Invalid { input, policy_error }),
            Ok(result) => match result.get("allowed") {
                Some(Json::Bool(true)) => Ok(result),
                Some(Json::Bool(false)) => Err(self.explain(point, input, document)),
                Some(_) => Err(Reason::Invalid {
                    input,
                    policy_error: "value for 'allowed' is not a boolean".to_owned(),
                }),
                None => Err(Reason::Invalid {
                    input,
                    policy_error: "unable to find value for key 'allowed'".to_owned(),
                }),
            },
        }
    }

    /// The answer to `point` with its defaults, and whatever it commands to remember applied.
    fn result(&mut self, name: &str, input: &Value) -> Result<Map<String, Json>, String> {
        if let Some(own) = Point::find_own(name) {
            return self.own_result(own, input);
        }
        let answer = self.query(&format!("data.policy.{name}"), input)?;
        let point = match (Point::find(name), &self.api) {
            (None, _) | (_, ApiVersion::NotSemver) => return Err(format!("enforcement point rule {name} does not exist")),
            (_, ApiVersion::Missing) => return Err("policy does not define api_version".to_owned()),
            (Some(point), ApiVersion::Declared(version)) => (point, point.available_in(version)),
        };
        let mut result = match point {
            (_, true) if answer.is_empty() => return Err(format!("rule for {name} is missing from policy")),
            (point, false) if answer.is_empty() && point.older == crate::points::OlderPolicy::AsksFramework => {
                return self.query(&format!("data.framework.{name}"), input);
            }
            (point, _) => point.default_results(),
        };
        result.extend(answer);
        Ok(result)
    }

    /// The answer to a point of our own: the policy's where it declares a `casemate_version` we know, else the fixed one.
    fn own_result(&mut self, point: &Point, input: &Value) -> Result<Map<String, Json>, String> {
        let declared = match &self.own_version {
            ApiVersion::Missing => return Ok(point.default_results()),
            ApiVersion::NotSemver => return Err("casemate_version of the policy is no semantic version".to_owned()),
            ApiVersion::Declared(version) => version,
        };
        if semver::Version::parse(CASEMATE_VERSION).is_ok_and(|ours| *declared > ours) {
            return Err(format!(
                "casemate_version is ahead of the current version: {declared} is greater than {CASEMATE_VERSION}"
            ));
        }
        if !point.available_in(declared) {
            return Ok(Map::from_iter([("allowed".to_owned(), Json::from(false))]));
        }
        let answer = self.query(&format!("data.policy.{}", point.name), input)?;
        if answer.is_empty() {
            return Err(format!("rule for {} is missing from policy", point.name));
        }
        Ok(answer)
    }

    /// Whether the policy decides what `confine_container`, `guest_network` and `port_forward` ask. Where it does not, the guest forces
    /// the OCI default masked and read-only paths and its own namespaces; rlimits, and sysctls of the pod's namespaces, it takes as they come.
    pub fn judges_confinement(&self) -> bool {
        self.own_version != ApiVersion::Missing
    }

    /// Evaluates a rule and applies the metadata commands in its answer, whether it allows or not.
    fn query(&mut self, rule: &str, input: &Value) -> Result<Map<String, Json>, String> {
        let answer = self.evaluate(rule, input)?;
        json_object(&answer)
    }

    /// As [`Self::query`], in the interpreter's own form.
    fn evaluate(&mut self, rule: &str, input: &Value) -> Result<Value, String> {
        let mut answer = self.interpreter.object(rule, input.clone()).map_err(|error| error.to_string())?;
        let metadata = answer
            .as_object_mut()
            .ok()
            .and_then(|object| object.remove(&Value::from("metadata")));
        if let Some(metadata) = metadata {
            let commands = Command::read_all(&metadata).map_err(|error| error.to_string())?;
            let mut state = self.interpreter.state();
            let applied = state.apply(commands);
            self.replace_state(state).map_err(|error| error.to_string())?;
            applied.map_err(|error| error.to_string())?;
        }
        Ok(answer)
    }

    /// Asks the policy why it denied `point`.
    fn explain(&mut self, point: &str, mut input: Json, mut document: Value) -> Reason {
        if let Some(object) = input.as_object_mut() {
            object.insert("rule".to_owned(), Json::from(point));
        }
        if let Ok(object) = document.as_object_mut() {
            object.insert(Value::from("rule"), Value::from(point));
        }
        let mut reason = self.evaluate("data.policy.reason", &document).unwrap_or(Value::Undefined);
        let objects = Value::from("error_objects");
        let objects_cut = crate::denied::objects_are_cut(&reason["error_objects"], self.max_decision_bytes);
        if objects_cut && let Ok(reason) = reason.as_object_mut() {
            reason.remove(&objects);
        }
        Reason::Denied {
            input,
            reason: json_object(&reason).ok().filter(|reason| !reason.is_empty()),
            objects_cut,
        }
    }

    /// Appends mounts that every container may have, such as those of the guest's network.
    ///
    /// # Errors
    /// The base data could not be replaced; everything is denied from now on.
    pub fn extend_default_mounts(&mut self, mounts: &[Mount]) -> Result<(), PolicyError> {
        let mounts = mounts
            .iter()
            .filter_map(|mount| serde_json::to_value(mount).ok())
            .map(Value::from)
            .collect();
        let extended = self.interpreter.extend_default_mounts(mounts);
        self.poisoned |= matches!(extended, Err(PolicyError::Compile(_)));
        extended
    }

    /// The state before a sequence of decisions that may be undone; see [`Self::undo`].
    pub(crate) fn begin(&self) -> Memory {
        self.memory()
    }

    /// Puts the state of [`Self::begin`] back.
    pub(crate) fn undo(&mut self, before: Memory) {
        self.restore(before);
    }

    /// How much the policy remembers, by name.
    pub(crate) fn counters(&self) -> BTreeMap<String, usize> {
        self.interpreter.state().counters()
    }

    fn memory(&self) -> Memory {
        Memory {
            state: self.interpreter.state(),
            stdio: Arc::clone(&self.stdio),
            ledgers: self.ledgers.clone(),
            active: Arc::clone(&self.active),
            loads: self.loads,
        }
    }

    fn restore(&mut self, memory: Memory) {
        self.stdio = memory.stdio;
        self.ledgers = memory.ledgers;
        self.loads = memory.loads;
        if self.active != memory.active {
            let engine = self.interpreter.scratch(memory.active.iter(), None);
            let entered = engine.map(|engine| self.interpreter.enter(engine));
            self.poisoned |= !matches!(entered, Ok(Ok(_)));
            self.active = memory.active;
        }
        // A failure is remembered: from then on everything is denied.
        let _ = self.replace_state(memory.state);
    }

    fn replace_state(&mut self, state: State) -> Result<(), QueryError> {
        let replaced = self.interpreter.set_state(state);
        self.poisoned |= replaced.is_err();
        replaced
    }
}

fn json_object(value: &Value) -> Result<Map<String, Json>, String> {
    match serde_json::to_value(value) {
        Ok(Json::Object(object)) => Ok(object),
        _ => Err(QueryError::NotAnObject.to_string()),
    }
}

/// The first of `rules` that is there: older policies call the API version `api_svn`.
fn declared_version(interpreter: &mut Interpreter, rules: &[&str]) -> ApiVersion {
    let declared = rules.iter().find_map(|rule| {
        interpreter
            .value(rule, Value::new_object())
            .ok()
            .filter(|value| *value != Value::Undefined)
    });
    match declared {
        None => ApiVersion::Missing,
        Some(Value::String(text)) => semver::Version::parse(&text).map_or(ApiVersion::NotSemver, ApiVersion::Declared),
        Some(_) => ApiVersion::NotSemver,
    }
}

/// Proof that the policy allowed an action. Whoever acts takes one by value and has no other input.
///
/// ```compile_fail
/// // No permit, no mount: the fields are private and there is no constructor.
/// let permit = policy::Permit::<policy::action::MountDevice> { action: todo!(), verdict: (), enforcer: todo!(), before: None };
/// ```
#[must_use = "a permit that is dropped undoes the decision"]
pub struct Permit<'e, A: Action> {
    action: A,
    answer: Map<String, Json>,
    verdict: A::Verdict,
    enforcer: &'e mut Enforcer,
    before: Option<Memory>,
}

impl<A: Action> Permit<'_, A> {
    /// What was allowed.
    pub fn action(&self) -> &A {
        &self.action
    }

    /// What the policy left of the request.
    pub fn verdict(&self) -> &A::Verdict {
        &self.verdict
    }

    /// The policy's whole answer, for logs and tools.
    pub fn answer(&self) -> &Map<String, Json> {
        &self.answer
    }

    /// The action took effect: keep what the policy remembers of it.
    pub fn commit(mut self) {
        self.before = None;
    }
}

impl<A: Action> Drop for Permit<'_, A> {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            self.enforcer.restore(before);
        }
    }
}

/// Decisions that belong together, such as a scratch directory and the overlay on it: kept by [`Self::commit`], undone by a drop.
#[must_use = "a transaction that is dropped undoes its decisions"]
pub struct Transaction<'e> {
    enforcer: &'e mut Enforcer,
    before: Option<Memory>,
}

impl Transaction<'_> {
    /// As [`Enforcer::enforce`]; a committed permit is still undone if the transaction is dropped.
    ///
    /// # Errors
    /// As [`Enforcer::enforce`].
    pub fn enforce<A: Action>(&mut self, action: A) -> Result<Permit<'_, A>, Denied> {
        self.enforcer.enforce(action)
    }

    /// Keeps what the policy remembers of all committed permits.
    pub fn commit(mut self) {
        self.before = None;
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            self.enforcer.restore(before);
        }
    }
}

#[cfg(test)]
mod tests;
