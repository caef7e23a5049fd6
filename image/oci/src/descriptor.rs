//! A descriptor: how one document points to another (image specification, descriptor.md).

use crate::Digest;
use crate::null::null_is_default;
use crate::platform::Platform;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Digest of a blob, and the fields by which a blob is chosen.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The blob's digest.
    pub digest: Digest,
    /// The blob's length in bytes. Documents that were saved by old tools lack it.
    #[serde(default)]
    pub size: Option<u64>,
    /// The blob's media type; empty where its author wrote none.
    #[serde(default, deserialize_with = "null_is_default")]
    pub media_type: String,
    /// What it is, if it is no image.
    #[serde(default, deserialize_with = "null_is_default")]
    pub artifact_type: String,
    /// The platform that an image runs on; only in the entries of an index.
    pub platform: Option<Platform>,
    /// Annotations, `org.opencontainers.image.ref.name` among them.
    #[serde(default, deserialize_with = "null_is_default")]
    pub annotations: BTreeMap<String, String>,
}
