//! The enforcer: takes an action, and returns a permit that owns the action, or a denial.

use std::collections::BTreeMap;
use std::sync::Arc;

use regorus::Value;
use serde_json::{Map, Value as Json};

use crate::action::{Action, Load};
use crate::denied::{Denied, Reason, Style};
use crate::fragment::Active;
use crate::interpreter::{Interpreter, PolicyError, QueryError};
use crate::ledgers::Ledgers;
use crate::points::{CASEMATE_VERSION, OlderPolicy, Point};
use crate::request::{Mount, Subject};
use crate::state::{Command, State};
use crate::verdict::{Answer, Verdict};

mod loading;

/// Longest decision in a denial's text, in bytes. Callers truncate error messages, and truncated base64 cannot be decoded.
pub const MAX_DECISION_BYTES: usize = 3072;

/// The reason for denials after a roll-back failed.
const POISONED: &str = "policy state could not be restored after an earlier error; everything is denied";

/// What earlier decisions left behind for later ones, beside the policy's own metadata. Cheap to clone.
#[derive(Debug, Clone, Default)]
struct Memory {
    /// By container, whether its exec processes may use stdio.
    stdio: Arc<BTreeMap<String, bool>>,
    ledgers: Ledgers,
    /// Fragments whose namespaces are in use.
    active: Arc<Vec<Active>>,
    /// Number of fragments loaded, in use or not.
    loads: usize,
}

/// Everything that a roll-back restores.
#[derive(Debug)]
struct Snapshot {
    memory: Memory,
    /// The policy's metadata, which the interpreter holds.
    state: State,
}

/// Owns a policy and its state. One per VM.
pub struct Enforcer {
    interpreter: Interpreter,
    api: ApiVersion,
    /// `casemate_version` of the policy.
    own_version: ApiVersion,
    /// The policy opts into the safer behaviour where that differs from hcsshim's.
    strict: bool,
    memory: Memory,
    max_decision_bytes: usize,
    poisoned: bool,
}

/// The version that a policy declares.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ApiVersion {
    Missing,
    NotSemver,
    /// Two names of the version have different values.
    Conflict,
    Declared(semver::Version),
}

impl Enforcer {
    /// Loads a policy text.
    ///
    /// # Errors
    /// The text is too large or not a valid policy.
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
            memory: Memory::default(),
            max_decision_bytes: MAX_DECISION_BYTES,
            poisoned: false,
        })
    }

    /// Sets the maximum length of the decision in a denial's text, in bytes; 0 means no limit.
    #[must_use]
    pub fn with_max_decision_bytes(mut self, bytes: usize) -> Self {
        self.max_decision_bytes = bytes;
        self
    }

    /// Whether everything is denied because a roll-back failed.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Decides whether the policy allows `action`.
    ///
    /// The policy's state changes at once. A commit of the permit keeps the change, a drop rolls it back.
    ///
    /// # Errors
    /// The policy denies or gives no usable answer, or an earlier roll-back failed.
    pub fn enforce<A: Action>(&mut self, action: A) -> Result<Permit<'_, A>, Denied> {
        const {
            assert!(
                Point::is_listed(A::POINT),
                "the action's point is missing from the tables in points.rs"
            )
        };
        let before = self.snapshot();
        match self.judge(&action) {
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

    /// How denials are formatted.
    fn style(&self) -> Style {
        Style {
            max_bytes: self.max_decision_bytes,
            redact_arguments: self.strict,
        }
    }

    /// Decides on a request in the form of a Rego input document, for simulators and tools. It makes no permit, and the change of the
    /// policy's state is kept.
    ///
    /// # Errors
    /// As [`Self::enforce`].
    pub fn ask(&mut self, point: &str, input: Json) -> Result<Map<String, Json>, Denied> {
        self.decide(point, input)
            .map_err(|reason| Denied::new(point, &Subject::default(), reason, self.style()))
    }

    /// Begins a sequence of decisions that is committed or rolled back as a whole.
    pub fn transaction(&mut self) -> Transaction<'_> {
        let before = self.snapshot();
        Transaction {
            enforcer: self,
            before: Some(before),
        }
    }

    fn judge<A: Action>(&mut self, action: &A) -> Result<(Map<String, Json>, A::Verdict), Reason> {
        let subject = action.subject();
        if subject.capabilities_needed && subject.capabilities.is_none() {
            return Err(Reason::Refused(
                "capabilities object provided by the UVM to the policy engine is nil".to_owned(),
            ));
        }
        let (result, fragment) = match action.load() {
            None => (self.decide_action(action)?, None),
            Some(Load::TrustList(list)) => (self.load_trust_list(list)?, None),
            Some(Load::Fragment(request)) => {
                let loaded = self.load_fragment(request)?;
                (loaded.answers.last().cloned().unwrap_or_default(), Some(loaded))
            }
        };
        let container_stdio = subject
            .container
            .is_some_and(|id| self.memory.stdio.get(id.as_hex()).copied().unwrap_or(false));
        let answer = Answer {
            result: &result,
            container_stdio,
            fragment: fragment.as_ref(),
        };
        let verdict = A::Verdict::read(&answer, &subject).map_err(Reason::Refused)?;
        if let Subject {
            container: Some(container),
            decides_stdio: true,
            ..
        } = subject
        {
            Arc::make_mut(&mut self.memory.stdio).insert(container.as_hex().to_owned(), verdict.stdio());
        }
        Ok((result, verdict))
    }

    /// Queries the policy once, with the action as the input document.
    fn decide_action<A: Action>(&mut self, action: &A) -> Result<Map<String, Json>, Reason> {
        let input = serde_json::to_value(action).map_err(|error| Reason::Refused(error.to_string()))?;
        self.decide(A::POINT, input)
    }

    /// Queries the policy about `point` and returns its answer if that allows.
    fn decide(&mut self, point: &str, input: Json) -> Result<Map<String, Json>, Reason> {
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

    /// The answer to `point` with its defaults; its metadata commands are applied.
    fn result(&mut self, name: &str, input: &Value) -> Result<Map<String, Json>, String> {
        if let Some(own) = Point::find_own(name) {
            return self.own_result(own, input);
        }
        let answer = self.query(&format!("data.policy.{name}"), input)?;
        let point = match (Point::find(name), &self.api) {
            (None, _) | (_, ApiVersion::NotSemver) => return Err(format!("enforcement point rule {name} does not exist")),
            (_, ApiVersion::Missing) => return Err("policy does not define api_version".to_owned()),
            (_, ApiVersion::Conflict) => return Err("api_version and api_svn of the policy differ".to_owned()),
            (Some(point), ApiVersion::Declared(version)) => (point, point.available_in(version)),
        };
        let mut result = match point {
            (_, true) if answer.is_empty() => return Err(format!("rule for {name} is missing from policy")),
            (point, false) if answer.is_empty() && point.older == OlderPolicy::AsksFramework => {
                return self.query(&format!("data.framework.{name}"), input);
            }
            (point, _) => point.default_results(),
        };
        result.extend(answer);
        Ok(result)
    }

    /// The answer to one of Casemate's own points: the policy's if it declares a supported `casemate_version`, else the default, or the
    /// policy's if the point asks for that.
    fn own_result(&mut self, point: &Point, input: &Value) -> Result<Map<String, Json>, String> {
        let declared = match &self.own_version {
            ApiVersion::Missing => {
                let mut result = point.default_results();
                if point.older == OlderPolicy::AsksPolicy {
                    result.extend(self.query(&format!("data.policy.{}", point.name), input)?);
                }
                return Ok(result);
            }
            ApiVersion::NotSemver | ApiVersion::Conflict => return Err("casemate_version of the policy is no semantic version".to_owned()),
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

    /// Whether the policy decides on Casemate's own points. If not, the guest enforces the OCI default masked and read-only paths and new
    /// namespaces, takes rlimits and sysctls of the pod's namespaces from the host, judges a pause as SIGSTOP, and sets no limit below
    /// what is in use.
    pub fn judges_confinement(&self) -> bool {
        self.own_version != ApiVersion::Missing
    }

    /// Evaluates a rule and applies the metadata commands in its answer, whether it allows or denies.
    fn query(&mut self, rule: &str, input: &Value) -> Result<Map<String, Json>, String> {
        let answer = self.evaluate(rule, input)?;
        json_object(&answer)
    }

    /// As [`Self::query`], as a value of the interpreter.
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

    /// Queries the policy for the reason of a denial.
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

    /// Appends mounts that every container may have, such as the guest's `resolv.conf`.
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

    /// The number of elements under each name of the policy's metadata; candidates are counted by container, fragments by feed.
    pub fn counters(&self) -> BTreeMap<String, usize> {
        self.interpreter.state().counters()
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            memory: self.memory.clone(),
            state: self.interpreter.state(),
        }
    }

    fn restore(&mut self, Snapshot { memory, state }: Snapshot) {
        if self.memory.active != memory.active {
            let engine = self.interpreter.scratch(memory.active.iter(), None);
            let entered = engine.map(|engine| self.interpreter.enter(engine));
            self.poisoned |= !matches!(entered, Ok(Ok(_)));
        }
        self.memory = memory;
        // A failure sets `poisoned`: everything is denied from then on.
        let _ = self.replace_state(state);
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

/// The version in `rules`: older policies call the API version `api_svn`. Rules that differ conflict, as in hcsshim's framework.
fn declared_version(interpreter: &mut Interpreter, rules: &[&str]) -> ApiVersion {
    let mut declared = Vec::new();
    for rule in rules {
        match interpreter.value(rule, Value::new_object()) {
            Ok(Value::Undefined) => {}
            Ok(value) => declared.push(value),
            // Two rules of one name that differ: not the same as no declaration.
            Err(_) => return ApiVersion::Conflict,
        }
    }
    let mut declared = declared.into_iter();
    let first = declared.next();
    if declared.any(|other| Some(&other) != first.as_ref()) {
        return ApiVersion::Conflict;
    }
    match first {
        None => ApiVersion::Missing,
        Some(Value::String(text)) => semver::Version::parse(&text).map_or(ApiVersion::NotSemver, ApiVersion::Declared),
        Some(_) => ApiVersion::NotSemver,
    }
}

/// Proof that the policy allowed an action. Code that acts takes a permit by value as its only input.
///
/// ```compile_fail
/// // No permit, no mount: the fields are private and there is no constructor.
/// let permit = policy::Permit::<policy::action::MountDevice> { action: todo!(), verdict: (), enforcer: todo!(), before: None };
/// ```
#[must_use = "a permit that is dropped rolls the decision back"]
pub struct Permit<'e, A: Action> {
    action: A,
    answer: Map<String, Json>,
    verdict: A::Verdict,
    enforcer: &'e mut Enforcer,
    before: Option<Snapshot>,
}

impl<A: Action> Permit<'_, A> {
    /// The allowed action.
    pub fn action(&self) -> &A {
        &self.action
    }

    /// The part of the request that the policy keeps.
    pub fn verdict(&self) -> &A::Verdict {
        &self.verdict
    }

    /// The policy's whole answer, for logs and tools.
    pub fn answer(&self) -> &Map<String, Json> {
        &self.answer
    }

    /// Keeps the change of the policy's state; to be called when the action took effect.
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

/// Decisions that belong together, such as a scratch directory and its overlay: [`Self::commit`] keeps them, a drop rolls them back.
#[must_use = "a transaction that is dropped rolls its decisions back"]
pub struct Transaction<'e> {
    enforcer: &'e mut Enforcer,
    before: Option<Snapshot>,
}

impl Transaction<'_> {
    /// As [`Enforcer::enforce`]; a drop of the transaction rolls back committed permits too.
    ///
    /// # Errors
    /// As [`Enforcer::enforce`].
    pub fn enforce<A: Action>(&mut self, action: A) -> Result<Permit<'_, A>, Denied> {
        self.enforcer.enforce(action)
    }

    /// The enforcer, for requests that are not actions: input documents, counters, default mounts.
    pub fn enforcer(&mut self) -> &mut Enforcer {
        self.enforcer
    }

    /// Keeps the changes of all committed permits.
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
