//! The text of a fragment: the namespace that it declares, and the parameters that it is loaded with.

use regorus::Value;
use serde_json::Map;
use thiserror::Error;

use crate::data;

/// Largest fragment text in bytes.
pub const MAX_FRAGMENT_BYTES: usize = 1 << 20;
/// Maximum number of parameter objects for one fragment.
pub(crate) const MAX_PARAMETER_SETS: usize = 64;
/// Maximum number of fragment loads; each adds to the cost of later decisions.
pub(crate) const MAX_LOADED: usize = 1024;
/// Longest first line shown in an error.
const MAX_SHOWN_BYTES: usize = 200;

/// Packages of the engine and the policy, which a fragment must not replace.
const RESERVED: &[&str] = &["framework", "api", "policy", "metadata", "casemate"];

/// Beginning of the names that the engine gives to packages, functions and variables of its own.
const RESERVED_PREFIX: &str = "casemate_";

/// Why the text of a fragment cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FragmentError {
    /// The text exceeds [`MAX_FRAGMENT_BYTES`].
    #[error("unable to load fragment: it has {0} bytes, more than the {MAX_FRAGMENT_BYTES} allowed")]
    TooLarge(usize),
    /// The first line is empty.
    #[error("unable to load fragment: Fragment Rego is empty")]
    Empty,
    /// The first line is not a package declaration.
    #[error("unable to load fragment: valid package definition required on first line, got {0:?}")]
    NoPackage(String),
    /// The namespace is used for the engine's data or modules.
    #[error("unable to load fragment: namespace {0:?} is reserved and cannot be used for fragments")]
    Reserved(String),
    /// A fragment in use has the namespace.
    #[error("unable to load fragment: namespace {namespace:?} is in use by feed {feed:?} of {issuer:?}")]
    Taken {
        /// The namespace that both declare.
        namespace: String,
        /// Issuer of the fragment in use.
        issuer: String,
        /// Feed of the fragment in use.
        feed: String,
    },
    /// The fragment in use is newer; refused if the policy is strict.
    #[error("unable to load fragment: svn {offered} is below {in_use}, that of the fragment in use")]
    Older {
        /// Version of the new fragment.
        offered: i64,
        /// Version of the fragment in use.
        in_use: i64,
    },
    /// More than [`MAX_PARAMETER_SETS`] parameter objects, or more than [`MAX_LOADED`] loads.
    #[error("unable to load fragment: {0}")]
    TooMany(&'static str),
}

/// The namespace that a fragment declares; the declaration must be its first line.
///
/// # Errors
/// The text is too large, or its first line declares no package that fragments may have.
pub fn namespace(text: &str) -> Result<&str, FragmentError> {
    if text.len() > MAX_FRAGMENT_BYTES {
        return Err(FragmentError::TooLarge(text.len()));
    }
    let line = text.split('\n').next().unwrap_or("");
    if line.is_empty() {
        return Err(FragmentError::Empty);
    }
    let name = line
        .strip_prefix("package ")
        .map(|rest| rest.trim_start_matches(' ').trim_end_matches([' ', '\t', '\r', '\x0c']))
        .filter(|name| is_identifier(name))
        .ok_or_else(|| FragmentError::NoPackage(shortened(line)))?;
    if RESERVED.contains(&name) || name.starts_with(RESERVED_PREFIX) || data::is_base_key(name) {
        return Err(FragmentError::Reserved(name.to_owned()));
    }
    Ok(name)
}

fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_') && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn shortened(line: &str) -> String {
    let end = (0..=MAX_SHOWN_BYTES.min(line.len())).rev().find(|end| line.is_char_boundary(*end));
    line.get(..end.unwrap_or(0)).unwrap_or("").to_owned()
}

/// The text with the function `parameter(name)`, which returns the value from the policy, else the default from the text.
pub(crate) fn with_parameters(text: &str, namespace: &str, parameters: &Map<String, serde_json::Value>) -> String {
    let given = serde_json::Value::Object(parameters.clone());
    format!(
        r#"{text}
__fragment_parameters := {given}
__fragment_parameter_given(name) if name in object.keys(__fragment_parameters)
parameter(name) := __fragment_parameters[name] if __fragment_parameter_given(name)
parameter(name) := data.{namespace}.parameters_api[name]["default"] if {{
	not __fragment_parameter_given(name)
	"default" in object.keys(data.{namespace}.parameters_api[name])
}}
"#
    )
}

/// A fragment in use: rules may refer to its namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Active {
    pub(crate) issuer: String,
    pub(crate) feed: String,
    pub(crate) namespace: String,
    /// The text with parameters.
    pub(crate) text: String,
    /// The version in its text or header, if it is a number.
    pub(crate) svn: Option<i64>,
}

impl Active {
    /// Whether the fragment is the one of `issuer` and `feed`.
    pub(crate) fn is(&self, issuer: &str, feed: &str) -> bool {
        self.issuer == issuer && self.feed == feed
    }

    /// Name of the module in error messages.
    pub(crate) fn file(&self) -> String {
        format!("{}.rego", self.namespace)
    }
}

/// A whole number as Rego's `to_number` parses it.
pub(crate) fn whole_number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(_) => value.as_i64().ok(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_the_namespace() {
        assert_eq!(namespace("package app\nsvn := 1"), Ok("app"));
        assert_eq!(namespace("package   _a1 \t\r\nx := 1"), Ok("_a1"));
        for line in [
            "package\tx",
            " package x",
            "package 1x",
            "package a.b",
            "package x # c",
            "packagex",
            "Package x",
            "package d\u{e9}f",
        ] {
            assert_eq!(namespace(line), Err(FragmentError::NoPackage(line.to_owned())), "{line}");
        }
        assert_eq!(namespace(""), Err(FragmentError::Empty));
        assert_eq!(namespace("\npackage x"), Err(FragmentError::Empty));
    }

    #[test]
    fn no_fragment_replaces_the_engine_s_data() {
        for name in [
            "framework",
            "policy",
            "metadata",
            "defaultMounts",
            "privilegedMounts",
            "sandboxPrefix",
            "defaultPrivilegedCapabilities",
        ] {
            assert_eq!(
                namespace(&format!("package {name}\n")),
                Err(FragmentError::Reserved(name.to_owned())),
                "{name}"
            );
        }
    }

    #[test]
    fn texts_above_the_limit_are_refused() {
        let text = format!("package x\n{}", " ".repeat(MAX_FRAGMENT_BYTES));
        assert!(matches!(namespace(&text), Err(FragmentError::TooLarge(_))));
    }
}
