//! The operator's configuration of registries: TOML that is not measured, so it can redirect, deny and observe pulls, and nothing else.
//!
//! ```toml
//! [registries."registry.corp."]        # it and names below it; ".corp." only names below; "." all
//! ca-certs = "-----BEGIN CERTIFICATE-----…"
//! username = "robot"
//! password = "…"
//! [extra-env]
//! HTTPS_PROXY = "http://proxy.corp:3128"
//! ```
//! The format is that of Contrast's image puller. Stricter than there: what would lose a certificate or credentials in silence is an
//! error (a table below a section, two keys for one name, an `auth` that no header can carry).

mod extra_env;
mod key;
mod section;

pub(crate) use extra_env::{BYPASS, HTTP, HTTPS, Overrides};
pub use key::{Key, Standing};
pub use registry_device::CONFIG_MAX_BYTES;
pub use section::{Section, Trust};

use crate::name::RegistryName;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use toml::{Table, Value};
use zeroize::Zeroizing;

/// Longest key that a message shows, in characters.
const SHOWN_MAX: usize = 100;

/// A whole configuration.
#[derive(Debug, Default)]
pub struct Config {
    sections: Vec<Section>,
    overrides: Overrides,
    warnings: Vec<Warning>,
}

/// What is ignored, and where. Names keys, never values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The table: `registries."KEY"`, `extra-env` or the whole file.
    pub place: String,
    /// What is wrong.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// Why a configuration cannot be used. Nothing of it is used then, and no message shows a value.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// Larger than [`CONFIG_MAX_BYTES`].
    #[error("the registry configuration is larger than {CONFIG_MAX_BYTES} bytes")]
    TooLarge,
    /// Not UTF-8.
    #[error("the registry configuration is not text")]
    NotText,
    /// Not TOML.
    #[error("the registry configuration is not TOML: line {line}: {message}")]
    Syntax {
        /// Line of the error.
        line: usize,
        /// The parser's message, which quotes nothing.
        message: String,
    },
    /// TOML, but a known field has another form.
    #[error("{place}: {problem}")]
    Field {
        /// The table.
        place: String,
        /// What is wrong.
        problem: String,
    },
}

impl ConfigError {
    /// Whether the text is not even TOML.
    pub fn is_syntax(&self) -> bool {
        matches!(self, Self::Syntax { .. } | Self::NotText)
    }

    pub(crate) fn field(place: &str, problem: impl Into<String>) -> Self {
        Self::Field {
            place: place.to_owned(),
            problem: problem.into(),
        }
    }
}

impl Config {
    /// Reads a file. One that does not exist is an empty configuration.
    ///
    /// # Errors
    /// It cannot be read, or it is no configuration.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        use std::io::Read as _;
        let unreadable = |e| ConfigError::Read(path.to_owned(), e);
        let file = match std::fs::File::open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            opened => opened.map_err(unreadable)?,
        };
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(CONFIG_MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        Self::from_bytes(&bytes)
    }

    /// Parses the content of a file.
    ///
    /// # Errors
    /// It is no configuration.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ConfigError> {
        if bytes.len() > CONFIG_MAX_BYTES {
            return Err(ConfigError::TooLarge);
        }
        Self::parse(std::str::from_utf8(bytes).map_err(|_| ConfigError::NotText)?)
    }

    /// Parses a text.
    ///
    /// # Errors
    /// It is no configuration.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        if text.len() > CONFIG_MAX_BYTES {
            return Err(ConfigError::TooLarge);
        }
        let table: Table = toml::from_str(text).map_err(|error| syntax(text, &error))?;
        let mut config = Self::default();
        for (name, value) in table {
            match (name.as_str(), value) {
                ("registries", Value::Table(registries)) => config.take_sections(registries)?,
                ("extra-env", Value::Table(variables)) => config.overrides = Overrides::take(variables, &mut config.warnings)?,
                ("registries" | "extra-env", _) => return Err(ConfigError::field(&name, "it must be a table")),
                (other, _) => config.warnings.push(Warning {
                    place: "the registry configuration".to_owned(),
                    text: format!("{} is not known and ignored", shown(other)),
                }),
            }
        }
        Ok(config)
    }

    fn take_sections(&mut self, registries: Table) -> Result<(), ConfigError> {
        for (name, value) in registries {
            let place = format!("registries.{}", shown(&name));
            if name.is_empty() {
                return Err(ConfigError::field(&place, "a section must name a registry; \".\" stands for all"));
            }
            let Value::Table(fields) = value else {
                return Err(ConfigError::field(&place, "it must be a table"));
            };
            let key = Key::new(&name);
            if let Some(twin) = self.sections.iter().find(|section| section.key().same_names(&key)) {
                let problem = format!("registries.{} stands for the same names", shown(twin.key().as_written()));
                return Err(ConfigError::field(&place, problem));
            }
            self.sections.push(Section::take(key, &place, fields, &mut self.warnings)?);
        }
        Ok(())
    }

    /// What was ignored.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Proxies of `extra-env`.
    pub(crate) fn overrides(&self) -> &Overrides {
        &self.overrides
    }

    /// The most specific section that applies to a registry. Sections do not merge.
    pub fn section(&self, registry: &RegistryName) -> Option<&Section> {
        let applying = self.sections.iter().filter(|section| section.key().applies_to(registry));
        applying.max_by_key(|section| section.key().specificity())
    }

    /// Every section with its part in the choice for a registry, in the order of the file's keys.
    pub fn standings(&self, registry: &RegistryName) -> Vec<(&Section, Standing)> {
        let chosen = self.section(registry).map(Section::key);
        let standing = |section: &Section| match section.key() {
            key if Some(key) == chosen => Standing::Chosen,
            key if key.applies_to(registry) => Standing::LessSpecific,
            key => key.why_not(registry),
        };
        self.sections.iter().map(|section| (section, standing(section))).collect()
    }
}

/// A key in a message: its author's, so escaped and cut.
fn shown(key: &str) -> String {
    format!("{:?}", key.chars().take(SHOWN_MAX).collect::<String>())
}

/// The parser's own text of an error quotes the line, which may hold a password.
fn syntax(text: &str, error: &toml::de::Error) -> ConfigError {
    let at = error.span().map_or(0, |span| span.start).min(text.len());
    ConfigError::Syntax {
        line: text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1,
        message: error.message().lines().next().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests;
