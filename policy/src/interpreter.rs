//! The Rego interpreter with the policy, our framework and the base data loaded: one query in, one document out.
//!
//! Nothing is cloned or parsed again between queries. The names of the metadata that the framework uses are served
//! out of [`State`] by an extension function; only names of a policy's own making are put into `data`, and only when they change.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, PolicyLengthConfig, Value};
use thiserror::Error;

use crate::framework;
use crate::re2::Patterns;
use crate::state::State;

/// Largest policy text in bytes.
pub const MAX_POLICY_BYTES: usize = 3 << 20;
/// Longest line of a policy: environment rules of existing policies are written on one line.
const MAX_COLUMNS: NonZeroU32 = NonZeroU32::new(MAX_POLICY_BYTES as u32).unwrap();
/// Most lines of a policy.
const MAX_LINES: NonZeroUsize = NonZeroUsize::new(400_000).unwrap();
/// Longest evaluation of one query, on a slow machine with the largest policy. A query cut off denies.
const MAX_EVALUATION: Duration = Duration::from_secs(20);
/// Evaluation steps between two looks at the clock.
const CLOCK_INTERVAL: NonZeroU32 = NonZeroU32::new(512).unwrap();
/// File name of the policy in error texts.
const POLICY_FILE: &str = "policy.rego";
/// What regorus says of a rule nobody defined.
const NO_SUCH_RULE: &str = "not a valid rule path";

/// What regorus says, on evaluation, of names that nothing defines.
const UNDEFINED_NAMES: &[&str] = &[" is unsafe", "could not find function"];

/// Why a text cannot be a policy.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// The text exceeds [`MAX_POLICY_BYTES`].
    #[error("policy has {0} bytes, more than the {MAX_POLICY_BYTES} allowed")]
    TooLarge(usize),
    /// The text is not Rego of the dialect in use.
    #[error("error creating Rego policy: rego compilation failed: {0}")]
    Compile(String),
}

/// Why a query gave no document. Its text is what a denial shows as `policyError`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum QueryError {
    #[error("{0}")]
    Evaluation(String),
    #[error("unable to load results object from Rego query")]
    NotAnObject,
}

/// Shared with the extension function, which regorus owns.
type SharedState = Arc<Mutex<State>>;

/// The engine, its base data and the state that Rego sees.
pub(crate) struct Interpreter {
    engine: Engine,
    state: SharedState,
    base: Value,
    /// State whose own names are in the engine's data.
    published: State,
}

impl Interpreter {
    /// Loads `policy` beside the framework.
    pub(crate) fn new(policy: &str) -> Result<Self, PolicyError> {
        if policy.len() > MAX_POLICY_BYTES {
            return Err(PolicyError::TooLarge(policy.len()));
        }
        let mut engine = Engine::new();
        engine.set_policy_length_config(PolicyLengthConfig {
            max_col: MAX_COLUMNS,
            max_file_bytes: NonZeroUsize::new(MAX_POLICY_BYTES).unwrap_or(NonZeroUsize::MAX),
            max_lines: MAX_LINES,
        });
        // A built-in that fails makes its expression undefined, as existing policies expect.
        engine.set_strict_builtin_errors(false);
        engine.set_execution_timer_config(ExecutionTimerConfig {
            limit: MAX_EVALUATION,
            check_interval: CLOCK_INTERVAL,
        });
        engine.add_policy(POLICY_FILE.to_owned(), policy.to_owned()).map_err(compile)?;
        engine
            .add_policy(framework::FRAMEWORK_FILE.to_owned(), framework::module())
            .map_err(compile)?;
        engine
            .add_policy(framework::METADATA_FILE.to_owned(), framework::METADATA_MODULE.to_owned())
            .map_err(compile)?;

        let mut base = crate::data::base_document();
        let metadata = base.as_object_mut().and_then(|base| base.remove("metadata")).unwrap_or_default();
        let state = State::initial(&metadata);
        let base = Value::from(base);
        engine.add_data(base.clone()).map_err(compile)?;

        let shared = SharedState::new(Mutex::new(state.clone()));
        register_functions(&mut engine, &shared)?;
        let mut interpreter = Self {
            engine,
            state: shared,
            base,
            published: state,
        };
        interpreter.check()?;
        Ok(interpreter)
    }

    /// Evaluates the whole policy once, so that what other engines find when they compile never serves here either:
    /// variables and functions that nothing defines. What depends on the input is left to the decisions.
    fn check(&mut self) -> Result<(), PolicyError> {
        self.engine.set_input(Value::new_object());
        match self.engine.eval_query("data.policy".to_owned(), false) {
            Err(error) if UNDEFINED_NAMES.iter().any(|mark| error.to_string().contains(mark)) => Err(compile(error)),
            _ => Ok(()),
        }
    }

    /// Adds a module beside the policy.
    #[cfg(test)]
    pub(crate) fn add_module(&mut self, name: &str, text: &str) -> Result<(), PolicyError> {
        self.engine
            .add_policy(name.to_owned(), text.to_owned())
            .map(|_| ())
            .map_err(compile)
    }

    /// Evaluates `rule` (a full path from `data`) with `input`; undefined is `Value::Undefined`.
    pub(crate) fn value(&mut self, rule: &str, input: Value) -> Result<Value, QueryError> {
        self.engine.set_input(input);
        match self.engine.eval_rule(rule.to_owned()) {
            Ok(value) => Ok(value),
            Err(error) if error.to_string() == NO_SUCH_RULE => Ok(Value::Undefined),
            Err(error) => Err(QueryError::Evaluation(error.to_string())),
        }
    }

    /// As [`Self::value`], for a rule that gives an object; undefined is an empty one.
    pub(crate) fn object(&mut self, rule: &str, input: Value) -> Result<Value, QueryError> {
        match self.value(rule, input)? {
            Value::Undefined => Ok(Value::new_object()),
            object @ Value::Object(_) => Ok(object),
            _ => Err(QueryError::NotAnObject),
        }
    }

    /// The state as it is now.
    pub(crate) fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the state that Rego sees.
    ///
    /// # Errors
    /// The engine does not take the data; what Rego sees then is undefined and nothing may be allowed any more.
    pub(crate) fn set_state(&mut self, state: State) -> Result<(), QueryError> {
        let own = |name: &str| !framework::METADATA.contains(&name);
        let changed = state
            .names()
            .chain(self.published.names())
            .any(|name| own(name) && !state.same(&self.published, name));
        if changed {
            let metadata: std::collections::BTreeMap<Value, Value> = state
                .names()
                .filter(|name| own(name))
                .map(|name| (Value::from(name), state.rego_value(name)))
                .collect();
            let mut data = self.base.clone();
            data.as_object_mut()
                .map_err(evaluation)?
                .insert(Value::from("metadata"), Value::from(metadata));
            self.engine.clear_data();
            self.engine.add_data(data).map_err(evaluation)?;
            self.published = state.clone();
        }
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        Ok(())
    }

    /// Appends to the default mounts of the base data.
    pub(crate) fn extend_default_mounts(&mut self, mounts: Vec<Value>) -> Result<(), QueryError> {
        let key = Value::from("defaultMounts");
        let list = self.base.as_object_mut().map_err(evaluation)?.get_mut(&key);
        if let Some(list) = list {
            let mut all: Vec<Value> = list.as_array().map_err(evaluation)?.iter().cloned().collect();
            all.extend(mounts);
            *list = Value::from(all);
        }
        let mut data = self.base.clone();
        let own = self
            .engine
            .get_data()
            .as_object()
            .map_err(evaluation)?
            .get(&Value::from("metadata"))
            .cloned();
        if let Some(own) = own {
            data.as_object_mut().map_err(evaluation)?.insert(Value::from("metadata"), own);
        }
        self.engine.clear_data();
        self.engine.add_data(data).map_err(evaluation)
    }
}

fn compile(error: impl std::fmt::Display) -> PolicyError {
    PolicyError::Compile(error.to_string())
}

fn evaluation(error: impl std::fmt::Display) -> QueryError {
    QueryError::Evaluation(error.to_string())
}

/// The functions the framework is written with, and `regex.match` with the meaning existing patterns have.
fn register_functions(engine: &mut Engine, state: &SharedState) -> Result<(), PolicyError> {
    let served = Arc::clone(state);
    engine
        .add_extension(
            "casemate_state".to_owned(),
            1,
            Box::new(move |arguments: Vec<Value>| {
                let name = arguments.first().and_then(|name| name.as_string().ok().cloned());
                let state = served.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(name.map_or(Value::Undefined, |name| state.rego_value(&name)))
            }),
        )
        .map_err(compile)?;
    let patterns = Arc::new(Mutex::new(Patterns::default()));
    let anchored = Arc::clone(&patterns);
    engine
        .add_extension(
            "casemate_matches".to_owned(),
            2,
            Box::new(move |arguments| Ok(match_text(&anchored, &arguments, true))),
        )
        .map_err(compile)?;
    engine
        .add_extension(
            "regex.match".to_owned(),
            2,
            Box::new(move |arguments| Ok(match_text(&patterns, &arguments, false))),
        )
        .map_err(compile)?;
    Ok(())
}

/// Pattern and text to true or false; undefined for what is no pattern or no text.
fn match_text(patterns: &Mutex<Patterns>, arguments: &[Value], anchored: bool) -> Value {
    let [Value::String(pattern), Value::String(text)] = arguments else {
        return Value::Undefined;
    };
    let mut patterns = patterns.lock().unwrap_or_else(PoisonError::into_inner);
    match patterns.is_match(pattern, text, anchored) {
        Ok(matched) => Value::Bool(matched),
        Err(_) => Value::Undefined,
    }
}
