//! The objects of a policy as data, for tools that check a policy and explain its denials.

use policy::MAX_POLICY_BYTES;
use regorus::Value as Rego;
use serde_json::Value;
use std::collections::BTreeMap;
use thiserror::Error;

/// Name of the policy in error messages.
const FILE: &str = "policy.rego";
/// Error of regorus for an undefined rule.
const NO_SUCH_RULE: &str = "not a valid rule path";

/// Names of objects in policies and fragments.
const OBJECTS: &[&str] = &[
    "api_version",
    "api_svn",
    "casemate_version",
    "strict",
    "framework_version",
    "framework_svn",
    "svn",
    "containers",
    "external_processes",
    "fragments",
    "transparency_trust_lists",
    "platform_rules",
    "networks",
    "pulls",
    "allow_properties_access",
    "allow_dump_stacks",
    "allow_runtime_logging",
    "allow_host_network",
    "allow_environment_variable_dropping",
    "allow_unencrypted_scratch",
    "scratch_medium",
    "allow_capability_dropping",
    "allow_log_provider_dropping",
];

/// The text is not a policy or a fragment.
#[derive(Debug, Error)]
pub enum DocumentError {
    /// The text exceeds the engine's limit.
    #[error("the text has {0} bytes, more than the {MAX_POLICY_BYTES} allowed")]
    TooLarge(usize),
    /// The text is not Rego.
    #[error("not a policy: {0}")]
    Syntax(String),
}

/// The objects of a policy or fragment, without rules that depend on a request.
#[derive(Debug, Clone, Default)]
pub struct Document {
    package: String,
    objects: BTreeMap<String, Value>,
    rules: Vec<String>,
    problems: Vec<policy::CompileProblem>,
    asks_framework_for_scratch: bool,
}

/// A fragment's text with a function `parameter` that returns the defaults; the engine defines the real one.
fn with_parameters(text: &str) -> String {
    match text.contains("parameter(") && text.contains("parameters_api") {
        true => format!("{text}\nparameter(name) := parameters_api[name][\"default\"]\n"),
        false => text.to_owned(),
    }
}

impl Document {
    /// Parses a policy or a fragment.
    ///
    /// # Errors
    /// The text is too large or not Rego.
    pub fn read(text: &str) -> Result<Self, DocumentError> {
        if text.len() > MAX_POLICY_BYTES {
            return Err(DocumentError::TooLarge(text.len()));
        }
        let syntax = |error: &dyn std::fmt::Display| DocumentError::Syntax(error.to_string());
        let reading = policy::reading_interpreter(FILE, &with_parameters(text)).map_err(|error| syntax(&error))?;
        let mut engine = reading.engine;
        let mut document = Self {
            package: reading.package,
            problems: policy::compile_problems(text).map_err(|error| syntax(&error))?,
            asks_framework_for_scratch: text.contains("framework.rw_mount_device") || text.contains("data.framework as"),
            ..Self::default()
        };
        let mut first_error = None;
        for name in OBJECTS {
            match engine.eval_rule(format!("{}.{name}", reading.rules)) {
                Ok(Rego::Undefined) => {}
                Err(error) if error.to_string() == NO_SUCH_RULE => {}
                // Objects that refer to the framework have no value here.
                Err(error) => first_error = first_error.or(Some(error)),
                Ok(value) => {
                    let value = serde_json::to_value(&value).map_err(|error| syntax(&error))?;
                    document.objects.insert((*name).to_owned(), value);
                }
            }
        }
        if let Some(error) = first_error.filter(|_| document.objects.is_empty()) {
            return Err(syntax(&error));
        }
        let points = policy::POINTS.iter().chain(policy::OWN_POINTS).map(|point| point.name);
        for point in points.chain(["reason", "scratch_medium"]) {
            if engine.has_declared_rule_rooted_at(FILE, point).unwrap_or(false) {
                document.rules.push(point.to_owned());
            }
        }
        Ok(document)
    }

    /// The package: `policy`, or a fragment's namespace.
    pub fn package(&self) -> &str {
        &self.package
    }

    /// The object called `name`; null if there is none.
    pub fn get(&self, name: &str) -> &Value {
        self.objects.get(name).unwrap_or(&Value::Null)
    }

    /// Whether the flag `name` is set.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name) == &Value::Bool(true)
    }

    /// Whether the rule for writable devices may be the framework's: the text names the framework.
    pub(crate) fn asks_framework_for_scratch(&self) -> bool {
        self.asks_framework_for_scratch
    }

    /// What OPA's compiler refuses in the text.
    pub(crate) fn compile_problems(&self) -> &[policy::CompileProblem] {
        &self.problems
    }

    /// The elements of the list `name`.
    pub fn list(&self, name: &str) -> &[Value] {
        self.get(name).as_array().map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether there is a rule for `point`, or the rule `reason` or `scratch_medium`.
    pub fn has_rule(&self, point: &str) -> bool {
        self.rules.iter().any(|rule| rule == point)
    }

    /// A version it declares, under its name or its older one.
    pub(crate) fn version(&self, name: &str, older: &str) -> Option<&Value> {
        [name, older].into_iter().map(|name| self.get(name)).find(|value| !value.is_null())
    }
}
