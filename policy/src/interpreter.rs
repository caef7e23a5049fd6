//! The Rego interpreter with policy, framework and base data.
//!
//! Nothing is cloned or parsed between queries. The framework is parsed when something can refer to it: the policy, a fragment, or a
//! query for a point that the policy's API version does not know. An extension function reads the framework's metadata from [`State`]; only metadata
//! names that the framework does not know are written to `data`, and only when they change.

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU32, NonZeroUsize};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, PolicyLengthConfig, Value};
use thiserror::Error;

use crate::fragment::Active;
use crate::framework;
use crate::functions;
use crate::matching::{self, SharedPatterns};
use crate::patterns;
use crate::re2::{PatternError, Patterns};
use crate::rego::normal;
use crate::rego::positions::Changes;
use crate::source::{self, SourceError};
use crate::state::State;

/// Largest policy text in bytes.
pub const MAX_POLICY_BYTES: usize = 3 << 20;
/// Longest line of a policy: generated policies have all environment rules of a container on one line.
const MAX_COLUMNS: NonZeroU32 = NonZeroU32::new(MAX_POLICY_BYTES as u32).unwrap();
/// Maximum number of lines of a policy.
const MAX_LINES: NonZeroUsize = NonZeroUsize::new(400_000).unwrap();
/// Time limit of one query, for the largest policy on a slow machine. A query that exceeds it denies.
const MAX_EVALUATION: Duration = Duration::from_secs(10);
/// Maximum number of default mounts, including those of the base document.
pub(crate) const MAX_DEFAULT_MOUNTS: usize = 4096;
/// Evaluation steps between checks of the time limit.
const CLOCK_INTERVAL: NonZeroU32 = NonZeroU32::new(512).unwrap();
/// File name of the policy in error messages.
const POLICY_FILE: &str = "policy.rego";
/// Package of the policy.
const POLICY_PACKAGE: &str = "data.policy";
/// Package of the framework.
const FRAMEWORK_PACKAGE: &str = "data.framework";
/// Error of regorus for an undefined rule.
const NO_SUCH_RULE: &str = "not a valid rule path";

/// Errors of regorus at evaluation for undefined names.
const UNDEFINED_NAMES: &[&str] = &[" is unsafe", "could not find function"];

/// Why a text is not a policy.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// The text exceeds [`MAX_POLICY_BYTES`].
    #[error("policy has {0} bytes, more than the {MAX_POLICY_BYTES} allowed")]
    TooLarge(usize),
    /// The text is not valid Rego.
    #[error("error creating Rego policy: rego compilation failed: {0}")]
    Compile(String),
    /// A pattern whose RE2 semantics cannot be kept.
    #[error("pattern {pattern:?} cannot be used: {error}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// The reason.
        error: PatternError,
    },
    /// More default mounts than the limit.
    #[error("more than {MAX_DEFAULT_MOUNTS} default mounts")]
    TooManyMounts,
}

/// Why a query returned no document. A denial shows its text as `policyError`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum QueryError {
    #[error("{0}")]
    Evaluation(String),
    #[error("unable to load results object from Rego query")]
    NotAnObject,
}

/// Shared with the extension function, which regorus owns.
pub(crate) type SharedState = Arc<Mutex<State>>;

/// An engine, and the state that is in its data.
pub(crate) struct Loaded {
    engine: Engine,
    has_framework: bool,
    published: State,
    /// What differs between the texts and what the engine was given, by file name.
    changes: Vec<(String, Changes)>,
}

/// The engine, its base data and the state that Rego sees.
pub(crate) struct Interpreter {
    current: Loaded,
    /// The policy without fragments, with the framework if the policy can refer to it; never evaluated.
    pristine: Engine,
    pristine_has_framework: bool,
    state: SharedState,
    strict: bool,
    /// Metadata names that rules read from `state`; others are in the engine's data.
    served: BTreeSet<String>,
    base: Value,
}

impl Interpreter {
    /// Loads `policy` and the framework.
    pub(crate) fn new(policy: &str) -> Result<Self, PolicyError> {
        if policy.len() > MAX_POLICY_BYTES {
            return Err(PolicyError::TooLarge(policy.len()));
        }
        let mut engine = engine();
        let source = source::read(policy)?;
        let changes = vec![(POLICY_FILE.to_owned(), source.changes)];
        add(&mut engine, POLICY_FILE, source.text, &changes)?;
        let served: BTreeSet<String> = framework::METADATA
            .iter()
            .map(|name| (*name).to_owned())
            .chain(source.metadata)
            .collect();
        let has_framework = source.reads_data;
        if has_framework {
            add_framework(&mut engine, &served)?;
        }

        let mut base = crate::data::base_document();
        let metadata = base.as_object_mut().and_then(|base| base.remove("metadata")).unwrap_or_default();
        let state = State::initial(&metadata);
        let shared = SharedState::new(Mutex::new(state.clone()));
        let patterns = register_functions(&mut engine, &shared, source.constants)?;
        let base = Value::from(base);
        let pristine = engine.clone();
        engine.add_data(base.clone()).map_err(compile)?;
        check(&mut engine, POLICY_PACKAGE, &changes)?;
        let strict = match engine.eval_rule(format!("{POLICY_PACKAGE}.strict")) {
            Ok(value) => value == Value::Bool(true),
            Err(error) if error.to_string() == NO_SUCH_RULE => false,
            // Two rules that differ: not the same as none.
            Err(error) => return Err(compile(error)),
        };
        refuse_patterns(&mut engine, POLICY_PACKAGE, strict)?;
        if strict {
            patterns.lock().unwrap_or_else(PoisonError::into_inner).anchor_whole();
        }
        Ok(Self {
            current: Loaded {
                engine,
                has_framework,
                published: state,
                changes,
            },
            pristine,
            pristine_has_framework: has_framework,
            state: shared,
            strict,
            served,
            base,
        })
    }

    /// Whether the policy has `strict := true`.
    pub(crate) fn strict(&self) -> bool {
        self.strict
    }

    /// A new engine with these fragments; the package `checked` is validated.
    pub(crate) fn scratch<'f>(
        &self,
        fragments: impl IntoIterator<Item = &'f Active>,
        checked: Option<&str>,
    ) -> Result<Loaded, PolicyError> {
        let mut engine = self.pristine.clone();
        if !self.pristine_has_framework {
            add_framework(&mut engine, &self.served)?;
        }
        let own = self.current.changes.iter().filter(|(file, _)| file == POLICY_FILE);
        let mut changes: Vec<(String, Changes)> = own.cloned().collect();
        for fragment in fragments {
            // Constants stay in the text, since fragments are rarely evaluated after their load.
            let source = source::check(&fragment.text)?;
            changes.push((fragment.file(), source.changes));
            add(&mut engine, &fragment.file(), source.text, &changes)?;
        }
        let published = self.state();
        engine.add_data(self.data(&published).map_err(compile)?).map_err(compile)?;
        if let Some(package) = checked {
            let package = format!("data.{}", normal::package_name(package));
            check(&mut engine, &package, &changes)?;
            refuse_patterns(&mut engine, &package, self.strict)?;
        }
        Ok(Loaded {
            engine,
            has_framework: true,
            published,
            changes,
        })
    }

    /// Replaces the engine in use, and returns the previous one.
    ///
    /// # Errors
    /// The engine rejects the state's data; everything must be denied from then on.
    pub(crate) fn enter(&mut self, loaded: Loaded) -> Result<Loaded, QueryError> {
        let before = std::mem::replace(&mut self.current, loaded);
        self.set_state(self.state())?;
        Ok(before)
    }

    /// Adds a module, which may refer to the framework.
    #[cfg(test)]
    pub(crate) fn add_module(&mut self, name: &str, text: &str) -> Result<(), PolicyError> {
        if !self.current.has_framework {
            add_framework(&mut self.current.engine, &self.served)?;
            self.current.has_framework = true;
        }
        self.current
            .engine
            .add_policy(name.to_owned(), text.to_owned())
            .map(|_| ())
            .map_err(compile)
    }

    /// Evaluates `rule` (a full path from `data`) with `input`; undefined is `Value::Undefined`.
    pub(crate) fn value(&mut self, rule: &str, input: Value) -> Result<Value, QueryError> {
        let engine = &mut self.current.engine;
        if !self.current.has_framework && rule.starts_with(FRAMEWORK_PACKAGE) {
            add_framework(engine, &self.served).map_err(evaluation)?;
            self.current.has_framework = true;
        }
        engine.set_input(input);
        let answer = guarded(|| engine.eval_rule(rule.to_owned()).map_err(|error| error.to_string()));
        drop(engine.take_prints());
        match answer {
            Ok(value) => Ok(value),
            Err(error) if error == NO_SUCH_RULE => Ok(Value::Undefined),
            Err(error) => Err(QueryError::Evaluation(restored(error, &self.current.changes))),
        }
    }

    /// As [`Self::value`], for a rule that returns an object; undefined is an empty object.
    pub(crate) fn object(&mut self, rule: &str, input: Value) -> Result<Value, QueryError> {
        match self.value(rule, input)? {
            Value::Undefined => Ok(Value::new_object()),
            object @ Value::Object(_) => Ok(object),
            _ => Err(QueryError::NotAnObject),
        }
    }

    /// A copy of the state.
    pub(crate) fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the state that Rego sees.
    ///
    /// # Errors
    /// The engine rejects the data; its data are then undefined, and everything must be denied from then on.
    pub(crate) fn set_state(&mut self, state: State) -> Result<(), QueryError> {
        let own = |name: &str| !self.served.contains(name);
        let published = &self.current.published;
        let changed = state
            .names()
            .chain(published.names())
            .any(|name| own(name) && !state.same(published, name));
        if changed {
            self.publish(&state)?;
        }
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
        Ok(())
    }

    /// Writes the base data and the metadata that the framework does not know to the engine in use.
    fn publish(&mut self, state: &State) -> Result<(), QueryError> {
        let data = self.data(state)?;
        self.current.engine.clear_data();
        self.current.engine.add_data(data).map_err(evaluation)?;
        self.current.published = state.clone();
        Ok(())
    }

    /// The base data with the metadata that the framework does not know.
    fn data(&self, state: &State) -> Result<Value, QueryError> {
        let metadata: BTreeMap<Value, Value> = state
            .names()
            .filter(|name| !self.served.contains(*name))
            .map(|name| (Value::from(name), state.rego_value(name)))
            .collect();
        let mut data = self.base.clone();
        if !metadata.is_empty() {
            let object = data.as_object_mut().map_err(evaluation)?;
            object.insert(Value::from("metadata"), Value::from(metadata));
        }
        Ok(data)
    }

    /// Appends mounts to the default mounts of the base data, without duplicates.
    ///
    /// # Errors
    /// There are too many, or the engine rejects the data and everything must be denied from then on.
    pub(crate) fn extend_default_mounts(&mut self, mounts: Vec<Value>) -> Result<(), PolicyError> {
        let key = Value::from("defaultMounts");
        let base = self.base.as_object_mut().map_err(compile)?;
        let list = base.get(&key).and_then(|list| list.as_array().ok());
        let mut all: Vec<Value> = list.into_iter().flat_map(|list| list.iter().cloned()).collect();
        for mount in mounts {
            if !all.contains(&mount) {
                all.push(mount);
            }
        }
        if all.len() > MAX_DEFAULT_MOUNTS {
            return Err(PolicyError::TooManyMounts);
        }
        base.insert(key, Value::from(all));
        let state = self.state();
        self.publish(&state).map_err(compile)
    }
}

/// Evaluates a whole package once to find undefined variables and functions, which OPA reports at compile time. Errors that depend on
/// the input are ignored.
fn check(engine: &mut Engine, package: &str, changes: &[(String, Changes)]) -> Result<(), PolicyError> {
    engine.set_input(Value::new_object());
    match guarded(|| engine.eval_query(package.to_owned(), false).map_err(|error| error.to_string())) {
        Err(error) if UNDEFINED_NAMES.iter().any(|mark| error.contains(mark)) => Err(compile(restored(error, changes))),
        _ => Ok(()),
    }
}

/// Gives the engine a text in normal form.
fn add(engine: &mut Engine, file: &str, text: String, changes: &[(String, Changes)]) -> Result<String, PolicyError> {
    let added = guarded(|| engine.add_policy(file.to_owned(), text).map_err(|error| error.to_string()));
    added.map_err(|error| compile(restored(error, changes)))
}

/// Adds the framework, and its metadata under the names `served`.
fn add_framework(engine: &mut Engine, served: &BTreeSet<String>) -> Result<(), PolicyError> {
    engine
        .add_policy(framework::FRAMEWORK_FILE.to_owned(), framework::module())
        .map_err(compile)?;
    engine
        .add_policy(framework::METADATA_FILE.to_owned(), metadata_module(served))
        .map_err(compile)?;
    Ok(())
}

/// An error of the engine with places of the original texts.
fn restored(error: String, changes: &[(String, Changes)]) -> String {
    changes.iter().fold(error, |error, (file, changes)| changes.restore(&error, file))
}

/// Turns a panic of the interpreter into an error, which denies. Every evaluation starts from a clean state.
fn guarded<T>(act: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    std::panic::catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|_| Err("the interpreter failed".to_owned()))
}

fn refuse_patterns(engine: &mut Engine, package: &str, strict: bool) -> Result<(), PolicyError> {
    engine.set_input(Value::new_object());
    let lists = patterns::LISTS.iter().map(|name| {
        let list = engine.eval_rule(format!("{package}.{name}")).unwrap_or(Value::Undefined);
        (Value::from(*name), list)
    });
    let lists: BTreeMap<Value, Value> = lists.filter(|(_, list)| *list != Value::Undefined).collect();
    match patterns::first_unusable(&Value::from(lists), strict) {
        None => Ok(()),
        Some((pattern, error)) => Err(PolicyError::Pattern { pattern, error }),
    }
}

/// The framework's metadata module, with a rule for every other name.
fn metadata_module(names: &BTreeSet<String>) -> String {
    let others = names.iter().filter(|name| !framework::METADATA.contains(&name.as_str()));
    let rules = others.map(|name| format!("\n{name} := casemate_state(\"{name}\")\n"));
    std::iter::once(framework::METADATA_MODULE.to_owned()).chain(rules).collect()
}

impl From<SourceError> for PolicyError {
    fn from(error: SourceError) -> Self {
        Self::Compile(error.to_string())
    }
}

/// An interpreter with one text and nothing else, for tools that read its objects.
pub struct Reading {
    /// The interpreter.
    pub engine: Engine,
    /// The package of the text.
    pub package: String,
    /// Where its rules are: `data.policy`. Not the package's own name where that is a keyword.
    pub rules: String,
}

/// Loads a text for reading.
///
/// # Errors
/// The text is too large or not a module.
pub fn reading_interpreter(file: &str, text: &str) -> Result<Reading, PolicyError> {
    if text.len() > MAX_POLICY_BYTES {
        return Err(PolicyError::TooLarge(text.len()));
    }
    let mut engine = engine();
    let source = source::read(text)?;
    let changes = [(file.to_owned(), source.changes)];
    let rules = add(&mut engine, file, source.text, &changes)?;
    register_functions(&mut engine, &SharedState::default(), source.constants)?;
    Ok(Reading {
        engine,
        package: source.package,
        rules,
    })
}

/// An interpreter with the policy, the framework and its functions, and without any data: for tools that measure the engine against
/// plain evaluation. Metadata are read from `data.metadata`.
///
/// # Errors
/// The text is not a policy.
pub fn bare_interpreter(policy: &str) -> Result<Engine, PolicyError> {
    let mut engine = engine();
    let source = source::check(policy)?;
    add(&mut engine, POLICY_FILE, source.text, &[])?;
    engine
        .add_policy(framework::FRAMEWORK_FILE.to_owned(), framework::module())
        .map_err(compile)?;
    register_functions(&mut engine, &SharedState::default(), Vec::new())?;
    Ok(engine)
}

/// An empty engine with our limits.
pub(crate) fn engine() -> Engine {
    let mut engine = Engine::new();
    engine.set_policy_length_config(PolicyLengthConfig {
        max_col: MAX_COLUMNS,
        max_file_bytes: NonZeroUsize::new(MAX_POLICY_BYTES).unwrap_or(NonZeroUsize::MAX),
        max_lines: MAX_LINES,
    });
    // Output of `print` is discarded: the host can read standard error of the guest's init.
    engine.set_gather_prints(true);
    // A failing built-in makes its expression undefined, as in OPA.
    engine.set_strict_builtin_errors(false);
    engine.set_execution_timer_config(ExecutionTimerConfig {
        limit: MAX_EVALUATION,
        check_interval: CLOCK_INTERVAL,
    });
    engine
}

fn compile(error: impl std::fmt::Display) -> PolicyError {
    PolicyError::Compile(error.to_string())
}

fn evaluation(error: impl std::fmt::Display) -> QueryError {
    QueryError::Evaluation(error.to_string())
}

/// Registers the functions of the framework, and `regex.match` with the semantics of RE2.
fn register_functions(engine: &mut Engine, state: &SharedState, constants: Vec<Value>) -> Result<SharedPatterns, PolicyError> {
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
    let constants = Arc::new(constants);
    engine
        .add_extension(
            "casemate_constant".to_owned(),
            1,
            Box::new(move |arguments: Vec<Value>| {
                let index = arguments.first().and_then(|index| index.as_u32().ok());
                let value = index.and_then(|index| constants.get(usize::try_from(index).ok()?));
                Ok(value.cloned().unwrap_or(Value::Undefined))
            }),
        )
        .map_err(compile)?;
    let patterns = Arc::new(Mutex::new(Patterns::default()));
    matching::register(engine, &patterns).map_err(compile)?;
    functions::register(engine).map_err(compile)?;
    let (anchored, free) = (Arc::clone(&patterns), Arc::clone(&patterns));
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
            Box::new(move |arguments| Ok(match_text(&free, &arguments, false))),
        )
        .map_err(compile)?;
    Ok(patterns)
}

/// Whether the pattern matches the text; undefined if either is not a string or the pattern is invalid.
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
