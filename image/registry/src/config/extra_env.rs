//! `extra-env`: the three variables that a configuration can set.

use super::{ConfigError, Warning, shown};
use std::fmt;
use toml::{Table, Value};
use zeroize::Zeroizing;

/// The variables.
pub(crate) const HTTP: &str = "HTTP_PROXY";
pub(crate) const HTTPS: &str = "HTTPS_PROXY";
pub(crate) const BYPASS: &str = "NO_PROXY";

/// What `extra-env` sets. An empty text clears what the process has.
#[derive(Default)]
pub(crate) struct Overrides {
    pub(crate) http: Option<Zeroizing<String>>,
    pub(crate) https: Option<Zeroizing<String>>,
    pub(crate) bypass: Option<Zeroizing<String>>,
}

impl Overrides {
    pub(crate) fn take(variables: Table, warnings: &mut Vec<Warning>) -> Result<Self, ConfigError> {
        const PLACE: &str = "extra-env";
        let mut overrides = Self::default();
        for (name, value) in variables {
            let Value::String(value) = value else {
                return Err(ConfigError::field(PLACE, format!("{} must be a string", shown(&name))));
            };
            let value = Some(Zeroizing::new(value));
            match name.as_str() {
                HTTP => overrides.http = value,
                HTTPS => overrides.https = value,
                BYPASS => overrides.bypass = value,
                _ => warnings.push(Warning {
                    place: PLACE.to_owned(),
                    text: format!("{} is ignored: only {HTTP}, {HTTPS} and {BYPASS} can be set", shown(&name)),
                }),
            }
        }
        Ok(overrides)
    }
}

impl fmt::Debug for Overrides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = [(&self.http, HTTP), (&self.https, HTTPS), (&self.bypass, BYPASS)];
        f.debug_set()
            .entries(set.iter().filter(|(value, _)| value.is_some()).map(|(_, name)| name))
            .finish()
    }
}
