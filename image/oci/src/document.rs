//! Indexes and manifests (image specification, image-index.md and manifest.md), and Docker's, which differ in media types only.

use crate::Descriptor;
use crate::null::null_is_default;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// What an image's name points to.
#[expect(clippy::large_enum_variant, reason = "one document exists at a time, and is taken apart at once")]
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
    #[serde(default, deserialize_with = "null_is_default")]
    pub manifests: Vec<Descriptor>,
}

/// An image manifest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The image config.
    pub config: Descriptor,
    /// What it is, if it is no image.
    #[serde(default, deserialize_with = "null_is_default")]
    pub artifact_type: String,
    /// Layer blobs, bottom first.
    #[serde(default, deserialize_with = "null_is_default")]
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
    /// A manifest where an index must be.
    #[error("it is a manifest and not an index")]
    NoIndex,
    /// Index and manifest at once, so that readers take it for different images (CVE-2021-41190).
    #[error("one of its documents is both an index and a manifest")]
    Both,
    /// Docker's first form, which does not say what its layers hold.
    #[error("one of its manifests has Docker's schema 1; push or save the image again with a newer tool")]
    SchemaOne,
}

/// Media types of indexes, OCI's and Docker's.
const INDEX_TYPES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
/// Media types of manifests, OCI's and Docker's.
const MANIFEST_TYPES: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Whether a descriptor's media type may be that of an index; an absent one may be anything.
pub(crate) fn may_be_index(media_type: &str) -> bool {
    media_type.is_empty() || INDEX_TYPES.contains(&media_type)
}

/// Whether a descriptor's media type may be that of an index or a manifest.
pub(crate) fn may_be_image(media_type: &str) -> bool {
    may_be_index(media_type) || MANIFEST_TYPES.contains(&media_type)
}

impl Document {
    /// Parses an index or a manifest. The fields tell which, since not every registry and builder writes media types; a media type that
    /// is there must agree.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let value: serde_json::Value = parse(bytes)?;
        let has = |key: &str| value.get(key).is_some_and(|value| !value.is_null());
        // An index without entries may have `null` for them, as Go writes an empty list.
        let is_index = has("manifests") || value.get("manifests").is_some() && !has("layers") && !has("config");
        let is_manifest = has("layers") || has("config");
        let media_type = value["mediaType"].as_str().unwrap_or_default();
        let contradicted = match is_index {
            true => is_manifest || has("fsLayers") || MANIFEST_TYPES.contains(&media_type),
            false => INDEX_TYPES.contains(&media_type) && is_manifest,
        };
        if contradicted {
            return Err(DocumentError::Both);
        }
        if is_index {
            return serde_json::from_value(value).map(Self::Index).map_err(DocumentError::Json);
        }
        match (is_manifest, has("fsLayers")) {
            (true, false) => serde_json::from_value(value).map(Self::Manifest).map_err(DocumentError::Json),
            (_, true) => Err(DocumentError::SchemaOne),
            (false, false) => Err(DocumentError::Kind),
        }
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

    fn parsed(document: serde_json::Value) -> Result<Document, DocumentError> {
        Document::parse(document.to_string().as_bytes())
    }

    #[test]
    fn fields_tell_the_kind() {
        let config = json!({"digest": digest('c')});
        assert!(matches!(parsed(json!({"manifests": null})), Ok(Document::Index(index)) if index.manifests.is_empty()));
        for layers in [json!(null), json!([]), json!([{"digest": digest('1')}])] {
            let manifest = parsed(json!({"config": config, "layers": layers, "manifests": null}));
            assert!(matches!(manifest, Ok(Document::Manifest(_))));
        }
    }

    #[test]
    fn a_document_that_readers_take_for_two_things_is_refused() {
        let (entry, config) = (json!([{"digest": digest('1')}]), json!({"digest": digest('c')}));
        for both in [
            json!({"manifests": entry, "layers": entry, "config": config}),
            json!({"manifests": entry, "layers": []}),
            json!({"manifests": [], "config": config}),
            json!({"mediaType": MANIFEST_TYPES[0], "manifests": entry}),
            json!({"mediaType": INDEX_TYPES[1], "layers": entry, "config": config}),
        ] {
            assert!(matches!(parsed(both.clone()), Err(DocumentError::Both)), "{both}");
        }
        assert!(matches!(
            parsed(json!({"schemaVersion": 1, "fsLayers": []})),
            Err(DocumentError::SchemaOne)
        ));
    }

    #[test]
    fn bad_documents_are_refused() {
        assert!(matches!(Document::parse(b"{}"), Err(DocumentError::Kind)));
        assert!(matches!(Document::parse(b"nonsense"), Err(DocumentError::Json(_))));
        for bad in [json!({"manifests": [{"digest": "sha256:../../etc/passwd"}]}), json!({"layers": []})] {
            assert!(matches!(parsed(bad.clone()), Err(DocumentError::Json(_))), "{bad}");
        }
    }
}
