//! Configurations as text: TOML, JSON of the same keys, or the container definitions of `az confcom`.

use std::path::Path;

use crate::config::Config;
use crate::{GenerateError, MAX_CONFIG_BYTES, confcom, file};

impl Config {
    /// Reads a configuration from TOML text.
    ///
    /// # Errors
    /// Not TOML, or a key that is not documented.
    pub fn from_toml(text: &str) -> Result<Self, GenerateError> {
        Ok(toml::from_str(text)?)
    }

    /// Reads a configuration from JSON text of the same keys, or container definitions of `az confcom` as `acipolicygen` takes them with
    /// `--input` or `--with-containers`.
    ///
    /// # Errors
    /// Not JSON, or a key that is not documented.
    pub fn from_json(text: &str) -> Result<Self, GenerateError> {
        match confcom::read(text)? {
            Some(config) => Ok(config),
            None => Ok(serde_json::from_str(text)?),
        }
    }

    /// Reads a configuration file: JSON if its extension is `json`, else TOML.
    ///
    /// # Errors
    /// The file cannot be read, is too large, or is not a configuration.
    pub fn from_file(path: &Path) -> Result<Self, GenerateError> {
        Self::from_bytes(file::read(path, MAX_CONFIG_BYTES)?, path)
    }

    /// Reads the content of a configuration file: JSON if the extension of `path` is `json`, or if it has none and the text begins like
    /// JSON, else TOML.
    ///
    /// # Errors
    /// It is not a configuration.
    pub fn from_bytes(bytes: Vec<u8>, path: &Path) -> Result<Self, GenerateError> {
        let text = String::from_utf8(bytes).map_err(|error| GenerateError::Read {
            path: path.to_owned(),
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, error),
        })?;
        let json = match path.extension() {
            Some(extension) => extension == "json",
            // A table of TOML begins like an array of JSON.
            None => text.trim_start().starts_with('{') || is_list_of_objects(&text),
        };
        if json { Self::from_json(&text) } else { Self::from_toml(&text) }
    }
}

/// Whether a text begins like an array of objects.
fn is_list_of_objects(text: &str) -> bool {
    let inner = text.trim_start().strip_prefix('[');
    inner.is_some_and(|inner| inner.trim_start().starts_with('{'))
}
