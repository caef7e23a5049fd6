//! OCI and Docker image documents (image-spec: index, manifest, config), as far as layers need them.

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// The platform of the guest.
const OS: &str = "linux";
/// Go's name of x86-64.
const ARCHITECTURE: &str = "amd64";
/// The digest algorithm of all content that containerd stores.
const ALGORITHM: &str = "sha256:";

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Not JSON of the expected kind.
    #[error("one of its documents is not valid")]
    Json(#[source] serde_json::Error),
    /// Neither index nor manifest.
    #[error("one of its documents is neither an index nor a manifest")]
    Kind,
    /// No manifest for the guest.
    #[error("it has no manifest for {OS}/{ARCHITECTURE}")]
    Platform,
    /// Manifest and configuration disagree.
    #[error("its manifest has {blobs} layers, its configuration {diff_ids}")]
    Count {
        /// Layers of the manifest.
        blobs: usize,
        /// Layers of the configuration.
        diff_ids: usize,
    },
    /// A digest of another form.
    #[error("{0:?} is not a SHA-256 digest")]
    Digest(String),
}

/// `sha256:` and 64 lower-case hex digits: safe as a file name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Digest(String);

impl Digest {
    /// With its algorithm.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hex digits alone.
    pub fn hex(&self) -> &str {
        &self.0[ALGORITHM.len()..]
    }

    /// The 32 bytes.
    pub fn bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        // Checked when it was made.
        let _ = hex::decode_to_slice(self.hex(), &mut bytes);
        bytes
    }
}

impl TryFrom<String> for Digest {
    type Error = ImageError;
    fn try_from(text: String) -> Result<Self, ImageError> {
        let hex = text.strip_prefix(ALGORITHM).unwrap_or_default();
        if hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            Ok(Self(text))
        } else {
            Err(ImageError::Digest(text))
        }
    }
}

/// What a target of an image name can be.
pub enum Document {
    /// A list of manifests.
    Index(Index),
    /// One image.
    Manifest(Manifest),
}

/// An image index or Docker manifest list.
#[derive(Deserialize)]
pub struct Index {
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    digest: Digest,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

/// An image manifest.
#[derive(Deserialize)]
pub struct Manifest {
    config: Blob,
    layers: Vec<Blob>,
}

#[derive(Deserialize)]
struct Blob {
    digest: Digest,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

/// One layer: what it is, and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageLayer {
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Digest of the blob as it is stored.
    pub blob: Digest,
}

/// The layers of an image, lowest first.
pub struct Image {
    /// Lowest first.
    pub layers: Vec<ImageLayer>,
}

/// Reads an index or a manifest. Docker and OCI differ in media types only, and not everybody writes those.
pub fn parse(document: &[u8]) -> Result<Document, ImageError> {
    let value: serde_json::Value = serde_json::from_slice(document).map_err(ImageError::Json)?;
    if value.get("manifests").is_some() {
        serde_json::from_value(value).map(Document::Index).map_err(ImageError::Json)
    } else if value.get("layers").is_some() {
        serde_json::from_value(value).map(Document::Manifest).map_err(ImageError::Json)
    } else {
        Err(ImageError::Kind)
    }
}

impl Index {
    /// The entry for the guest: its platform, or the only entry if that names none.
    pub fn choose(self) -> Result<String, ImageError> {
        let fits = |entry: &Entry| {
            entry
                .platform
                .as_ref()
                .is_some_and(|p| p.os == OS && p.architecture == ARCHITECTURE)
        };
        let chosen = match &self.manifests[..] {
            [only] if only.platform.is_none() => Some(only),
            all => all.iter().find(|entry| fits(entry)),
        };
        chosen.map(|entry| entry.digest.as_str().to_owned()).ok_or(ImageError::Platform)
    }
}

impl Manifest {
    /// Digest of the configuration.
    pub fn config(&self) -> &str {
        self.config.digest.as_str()
    }
}

impl Image {
    /// Joins manifest and configuration.
    pub fn new(manifest: Manifest, config: &[u8]) -> Result<Self, ImageError> {
        let config: Config = serde_json::from_slice(config).map_err(ImageError::Json)?;
        let diff_ids = config.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            return Err(ImageError::Count {
                blobs: manifest.layers.len(),
                diff_ids: diff_ids.len(),
            });
        }
        let layers = diff_ids
            .into_iter()
            .zip(manifest.layers)
            .map(|(diff_id, blob)| ImageLayer {
                diff_id,
                blob: blob.digest,
            })
            .collect();
        Ok(Self { layers })
    }

    /// Chain id of the topmost layer (image-spec config.md, "Layer ChainID"), by which snapshotters name it; empty
    /// for an image without layers.
    pub fn chain_id(&self) -> String {
        let step = |chain: String, layer: &ImageLayer| match chain.as_str() {
            "" => layer.diff_id.as_str().to_owned(),
            below => format!(
                "{ALGORITHM}{}",
                hex::encode(Sha256::digest(format!("{below} {}", layer.diff_id.as_str())))
            ),
        };
        self.layers.iter().fold(String::new(), step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(fill: char) -> String {
        format!("sha256:{}", fill.to_string().repeat(64))
    }

    fn image(diff_ids: &[String], blobs: usize) -> Result<Image, ImageError> {
        let layers: Vec<_> = (0..blobs).map(|_| serde_json::json!({"digest": digest('b'), "size": 1})).collect();
        let manifest = serde_json::json!({"schemaVersion": 2, "config": {"digest": digest('c')}, "layers": layers}).to_string();
        let Ok(Document::Manifest(manifest)) = parse(manifest.as_bytes()) else {
            panic!("no manifest")
        };
        let config = serde_json::json!({"architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}}).to_string();
        Image::new(manifest, config.as_bytes())
    }

    #[test]
    fn the_chain_id_is_the_specifications() {
        assert_eq!(image(&[digest('a')], 1).unwrap().chain_id(), digest('a'));
        // printf 'sha256:aa… sha256:dd…' | sha256sum
        let two = image(&[digest('a'), digest('d')], 2).unwrap().chain_id();
        assert_eq!(
            two,
            format!("sha256:{}", hex::encode(Sha256::digest(format!("{} {}", digest('a'), digest('d')))))
        );
        assert_eq!(image(&[], 0).unwrap().chain_id(), "");
    }

    #[test]
    fn the_guests_platform_is_chosen() {
        let index = |entries: serde_json::Value| match parse(serde_json::json!({"manifests": entries}).to_string().as_bytes()) {
            Ok(Document::Index(index)) => index.choose(),
            _ => panic!("no index"),
        };
        let many = serde_json::json!([
            {"digest": digest('1'), "platform": {"os": "linux", "architecture": "arm64"}},
            {"digest": digest('2'), "platform": {"os": "linux", "architecture": "amd64"}},
        ]);
        assert_eq!(index(many).unwrap(), digest('2'));
        assert_eq!(index(serde_json::json!([{"digest": digest('3')}])).unwrap(), digest('3'));
        let other = serde_json::json!([{"digest": digest('1'), "platform": {"os": "windows", "architecture": "amd64"}}]);
        assert!(matches!(index(other), Err(ImageError::Platform)));
    }

    #[test]
    fn bad_documents_are_refused() {
        assert!(matches!(parse(b"{}"), Err(ImageError::Kind)));
        assert!(matches!(parse(b"nonsense"), Err(ImageError::Json(_))));
        assert!(matches!(image(&[digest('a')], 2), Err(ImageError::Count { blobs: 2, diff_ids: 1 })));
        for bad in [
            "sha256:../../etc/passwd".to_owned(),
            digest('A'),
            "sha512:00".to_owned(),
            String::new(),
        ] {
            assert!(Digest::try_from(bad.clone()).is_err(), "{bad}");
        }
    }
}
