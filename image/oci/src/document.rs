//! Indexes and manifests (image specification, image-index.md and manifest.md), and Docker's, which differ in media types only.

use crate::{Descriptor, Digest, Platform};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// What an image's name points to.
pub enum Document {
    /// One manifest per platform.
    Index(Index),
    /// One image.
    Manifest(Manifest),
}

/// An image index or Docker manifest list.
#[derive(Deserialize)]
pub struct Index {
    /// Manifests, and further indexes.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
}

/// An image manifest.
#[derive(Deserialize)]
pub struct Manifest {
    /// The image config.
    pub config: Descriptor,
    /// Layer blobs, bottom first.
    pub layers: Vec<Descriptor>,
}

/// Why a document cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON of the expected form.
    #[error("one of its documents is not valid")]
    Json(#[source] serde_json::Error),
    /// Neither index nor manifest.
    #[error("one of its documents is neither an index nor a manifest")]
    Kind,
    /// No manifest for the guest.
    #[error("it has no manifest for {}/{}", Platform::OS, Platform::ARCHITECTURE)]
    Platform,
    /// More indexes than [`crate::limits::INDEXES_MAX`].
    #[error("its manifest is more than {} indexes away", crate::limits::INDEXES_MAX)]
    Nesting,
}

impl Document {
    /// Parses an index or a manifest, distinguished by their fields: not every registry and builder writes media types.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let value: serde_json::Value = parse(bytes)?;
        if value.get("manifests").is_some() {
            serde_json::from_value(value).map(Self::Index).map_err(DocumentError::Json)
        } else if value.get("layers").is_some() {
            serde_json::from_value(value).map(Self::Manifest).map_err(DocumentError::Json)
        } else {
            Err(DocumentError::Kind)
        }
    }
}

impl Index {
    /// Digest of the manifest for the guest: the first entry for its platform, or the only entry if that names no platform.
    pub fn choose(&self) -> Result<Digest, DocumentError> {
        let fits = |entry: &&Descriptor| entry.platform.as_ref().is_some_and(Platform::is_guest);
        let chosen = match &self.manifests[..] {
            [only] if only.platform.is_none() => Some(only),
            all => all.iter().find(fits),
        };
        chosen.map(|entry| entry.digest).ok_or(DocumentError::Platform)
    }
}

pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DocumentError> {
    serde_json::from_slice(bytes).map_err(DocumentError::Json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn digest(fill: char) -> String {
        format!("sha256:{}", fill.to_string().repeat(64))
    }

    fn choose(entries: serde_json::Value) -> Result<String, DocumentError> {
        match Document::parse(json!({"manifests": entries}).to_string().as_bytes())? {
            Document::Index(index) => index.choose().map(|digest| digest.to_string()),
            Document::Manifest(_) => panic!("no index"),
        }
    }

    #[test]
    fn the_guests_platform_is_chosen() {
        let many = json!([
            {"digest": digest('1'), "platform": {"os": "linux", "architecture": "arm64"}},
            {"digest": digest('2'), "platform": {"os": "linux", "architecture": "amd64"}},
        ]);
        assert_eq!(choose(many).unwrap(), digest('2'));
        assert_eq!(choose(json!([{"digest": digest('3')}])).unwrap(), digest('3'));
        let other = json!([{"digest": digest('1'), "platform": {"os": "windows", "architecture": "amd64"}}]);
        assert!(matches!(choose(other), Err(DocumentError::Platform)));
    }

    #[test]
    fn an_entry_without_platform_counts_only_when_alone() {
        let two = json!([
            {"digest": digest('1')},
            {"digest": digest('2'), "platform": {"os": "linux", "architecture": "amd64"}, "annotations": null},
        ]);
        assert_eq!(choose(two).unwrap(), digest('2'));
        let none = json!([{"digest": digest('1')}, {"digest": digest('2'), "platform": {}}]);
        assert!(matches!(choose(none), Err(DocumentError::Platform)));
    }

    #[test]
    fn bad_documents_are_refused() {
        assert!(matches!(Document::parse(b"{}"), Err(DocumentError::Kind)));
        assert!(matches!(Document::parse(b"nonsense"), Err(DocumentError::Json(_))));
        for bad in [json!({"manifests": [{"digest": "sha256:../../etc/passwd"}]}), json!({"layers": []})] {
            assert!(
                matches!(Document::parse(bad.to_string().as_bytes()), Err(DocumentError::Json(_))),
                "{bad}"
            );
        }
    }
}
