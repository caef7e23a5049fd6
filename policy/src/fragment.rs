//! The text of a fragment: which namespace it declares, and how it gets the parameters it is loaded with.

use regorus::Value;
use serde_json::Map;
use thiserror::Error;

use crate::data;

/// Largest fragment text in bytes.
pub const MAX_FRAGMENT_BYTES: usize = 1 << 20;
/// Most parameter objects one fragment is loaded with.
pub(crate) const MAX_PARAMETER_SETS: usize = 64;
/// Most loads of fragments that a policy remembers: every one makes later decisions look at more.
pub(crate) const MAX_LOADED: usize = 1024;
/// Longest first line shown in an error.
const MAX_SHOWN_BYTES: usize = 200;

/// Modules of ours and the policy's: a fragment under such a name would take their place.
const RESERVED: &[&str] = &["framework", "api", "policy", "metadata", "casemate"];

/// Why the text of a fragment cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FragmentError {
    /// The text exceeds [`MAX_FRAGMENT_BYTES`].
    #[error("unable to load fragment: it has {0} bytes, more than the {MAX_FRAGMENT_BYTES} allowed")]
    TooLarge(usize),
    /// The first line is empty.
    #[error("unable to load fragment: Fragment Rego is empty")]
    Empty,
    /// The first line is no package declaration.
    #[error("unable to load fragment: valid package definition required on first line, got {0:?}")]
    NoPackage(String),
    /// The namespace holds the engine's data or modules.
    #[error("unable to load fragment: namespace {0:?} is reserved and cannot be used for fragments")]
    Reserved(String),
    /// A fragment in use has the namespace.
    #[error("unable to load fragment: namespace {namespace:?} is in use by feed {feed:?} of {issuer:?}")]
    Taken {
        /// The namespace both declare.
        namespace: String,
        /// Issuer of the fragment in use.
        issuer: String,
        /// Feed of the fragment in use.
        feed: String,
    },
    /// The fragment in use is newer; refused where the policy is strict.
    #[error("unable to load fragment: svn {offered} is below {in_use}, that of the fragment in use")]
    Older {
        /// Of the text offered.
        offered: i64,
        /// Of the text in use.
        in_use: i64,
    },
    /// The policy gives more than [`MAX_PARAMETER_SETS`] parameter objects, or fragments were loaded too often.
    #[error("unable to load fragment: {0}")]
    TooMany(&'static str),
}

/// The namespace a text declares on its first line, which is all that can name it.
pub(crate) fn namespace(text: &str) -> Result<&str, FragmentError> {
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
    if RESERVED.contains(&name) || data::is_base_key(name) {
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

/// The text with the function `parameter(name)`, which gives what the policy supplies, else the default the text declares.
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

/// A fragment whose namespace rules may refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Active {
    pub(crate) issuer: String,
    pub(crate) feed: String,
    pub(crate) namespace: String,
    /// With parameters.
    pub(crate) text: String,
    /// The version its text or header states, where that is a number.
    pub(crate) svn: Option<i64>,
}

impl Active {
    /// Whether a load of `issuer` and `feed` is about this fragment.
    pub(crate) fn is(&self, issuer: &str, feed: &str) -> bool {
        self.issuer == issuer && self.feed == feed
    }

    /// Name of the module in error texts.
    pub(crate) fn file(&self) -> String {
        format!("{}.rego", self.namespace)
    }
}

/// A whole number as Rego's `to_number` reads it.
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
    fn no_fragment_takes_the_place_of_the_engine_s_data() {
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
    fn texts_beyond_the_limit_are_refused() {
        let text = format!("package x\n{}", " ".repeat(MAX_FRAGMENT_BYTES));
        assert!(matches!(namespace(&text), Err(FragmentError::TooLarge(_))));
    }
}
