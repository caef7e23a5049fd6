//! The image config: how to run an image, and its layers' diff ids (image specification, config.md).

use crate::document::parse;
use crate::null::null_is_default;
use crate::{Digest, DocumentError, Platform, signal};
use serde::Deserialize;

/// An image config document.
#[derive(Deserialize)]
pub struct Config {
    /// How to run the image.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: ImageConfig,
    /// What it runs on.
    #[serde(flatten)]
    pub platform: Platform,
    rootfs: RootFs,
}

/// The `config` object of an image config.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// `user`, `uid`, `user:group` or `uid:gid`.
    #[serde(deserialize_with = "null_is_default")]
    pub user: String,
    /// `NAME=VALUE`.
    pub env: Option<Vec<String>>,
    /// First part of the command.
    pub entrypoint: Option<Vec<String>>,
    /// Second part of the command.
    pub cmd: Option<Vec<String>>,
    /// Working directory, empty for `/`.
    #[serde(deserialize_with = "null_is_default")]
    pub working_dir: String,
    /// What asks a container of the image to end, by name or number; empty for SIGTERM.
    #[serde(deserialize_with = "null_is_default")]
    pub stop_signal: String,
}

/// An image's `StopSignal` that no kernel knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the image's StopSignal {0:?} is no signal")]
pub struct UnknownSignal(String);

impl ImageConfig {
    /// The number of the image's `StopSignal`, if it has one.
    ///
    /// # Errors
    /// It is no signal.
    pub fn stop_signal(&self) -> Result<Option<i32>, UnknownSignal> {
        let text = self.stop_signal.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let number = signal::number(text);
        number.map(Some).ok_or_else(|| UnknownSignal(text.chars().take(32).collect()))
    }
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default, deserialize_with = "null_is_default")]
    diff_ids: Vec<Digest>,
}

impl Config {
    /// Parses an image config.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        parse(bytes)
    }

    /// SHA-256 of each layer's uncompressed tar, bottom first.
    pub fn diff_ids(&self) -> &[Digest] {
        &self.rootfs.diff_ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_the_zero_value() {
        for text in [
            r#"{"rootfs":{"diff_ids":[]}}"#,
            r#"{"config":null,"rootfs":{"diff_ids":[]}}"#,
            r#"{"config":{},"rootfs":{"type":"layers","diff_ids":null},"architecture":null}"#,
            r#"{"config":{"User":null,"Env":null,"WorkingDir":null,"StopSignal":null},"rootfs":{"diff_ids":[]}}"#,
        ] {
            assert_eq!(Config::parse(text.as_bytes()).unwrap().config, ImageConfig::default(), "{text}");
        }
    }

    #[test]
    fn the_stop_signal_is_a_number() {
        let with = |text: &str| ImageConfig {
            stop_signal: text.to_owned(),
            ..ImageConfig::default()
        };
        assert_eq!(with("").stop_signal(), Ok(None));
        assert_eq!(with("SIGQUIT").stop_signal(), Ok(Some(3)));
        assert_eq!(
            with("gently").stop_signal().unwrap_err().to_string(),
            "the image's StopSignal \"gently\" is no signal"
        );
    }

    #[test]
    fn the_platform_is_read() {
        let text = r#"{"architecture":"arm64","os":"linux","variant":"v8","rootfs":{"diff_ids":[]}}"#;
        assert_eq!(Config::parse(text.as_bytes()).unwrap().platform.to_string(), "linux/arm64/v8");
        assert!(Config::parse(br#"{"rootfs":{}}"#).unwrap().platform.is_unnamed());
    }

    #[test]
    fn diff_ids_must_be_digests() {
        assert!(matches!(Config::parse(b"{}"), Err(DocumentError::Json(_))));
        assert!(matches!(
            Config::parse(br#"{"rootfs":{"diff_ids":["sha512:00"]}}"#),
            Err(DocumentError::Json(_))
        ));
    }
}
