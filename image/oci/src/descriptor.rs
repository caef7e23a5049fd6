//! A descriptor: how one document points to another (image specification, descriptor.md).

use crate::Digest;
use crate::config::null_is_default;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Digest of a blob, and the fields by which a blob is chosen.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Descriptor {
    /// The blob's digest.
    pub digest: Digest,
    /// The platform that an image runs on; only in the entries of an index.
    pub platform: Option<Platform>,
    /// Annotations, `org.opencontainers.image.ref.name` among them.
    #[serde(default, deserialize_with = "null_is_default")]
    pub annotations: BTreeMap<String, String>,
}

/// The `platform` object of an index entry (image specification, image-index.md).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// Go's `GOOS`.
    #[serde(default)]
    pub os: String,
    /// Go's `GOARCH`.
    #[serde(default)]
    pub architecture: String,
}

impl Platform {
    /// The guest's operating system.
    pub const OS: &str = "linux";
    /// The guest's architecture.
    pub const ARCHITECTURE: &str = "amd64";

    /// Whether the guest runs images of this platform.
    pub fn is_guest(&self) -> bool {
        self.os == Self::OS && self.architecture == Self::ARCHITECTURE
    }
}
