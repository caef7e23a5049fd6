//! The image config: how to run an image, and its layers' diff ids (image specification, config.md).

use crate::document::parse;
use crate::null::null_is_default;
use crate::{Digest, DocumentError, Platform};
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
            r#"{"config":{"User":null,"Env":null,"WorkingDir":null},"rootfs":{"diff_ids":[]}}"#,
        ] {
            assert_eq!(Config::parse(text.as_bytes()).unwrap().config, ImageConfig::default(), "{text}");
        }
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
