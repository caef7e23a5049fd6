//! Images of tests: an OCI layout with an index, as `skopeo copy` reads it.

use flate2::Compression;
use flate2::write::GzEncoder;
use oci::Digest;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// The repository that tests pull.
pub const NAME: &str = "team/app";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An image and its blobs.
#[derive(Clone)]
pub struct Image {
    /// Digest of the index.
    pub index: Digest,
    /// Digest of the manifest for linux/amd64.
    pub manifest: Digest,
    /// Blobs of the layers, bottom first.
    pub layers: Vec<Digest>,
    pub blobs: BTreeMap<Digest, Vec<u8>>,
}

/// What a descriptor says of a blob.
pub fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(blob).to_string(), "size": blob.len() })
}

/// A layer with one file.
fn tar(number: usize, content: Vec<u8>) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Regular);
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_data(&mut header, format!("file-{number}"), content.as_slice()).unwrap();
    tar.into_inner().unwrap()
}

impl Image {
    /// An image of `count` layers of about `bytes` bytes each, and an index of it and of an image for another processor.
    pub fn new(count: usize, bytes: usize) -> Self {
        let mut blobs = BTreeMap::new();
        let mut keep = |blob: Vec<u8>| {
            let digest = Digest::of(&blob);
            blobs.insert(digest, blob);
            digest
        };
        let mut random = fastrand::Rng::with_seed(count as u64);
        let mut layers = Vec::new();
        let mut descriptors = Vec::new();
        let mut diff_ids = Vec::new();
        for number in 0..count {
            let content = tar(number, std::iter::repeat_with(|| random.u8(..)).take(bytes).collect());
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(&content).unwrap();
            let blob = gzip.finish().unwrap();
            diff_ids.push(Digest::of(&content).to_string());
            descriptors.push(descriptor(LAYER, &blob));
            layers.push(keep(blob));
        }
        let mut manifest = |architecture: &str| {
            let config = json!({
                "os": "linux", "architecture": architecture, "config": { "Cmd": ["/bin/true"] },
                "rootfs": { "type": "layers", "diff_ids": diff_ids },
            });
            let config = config.to_string().into_bytes();
            let manifest = json!({
                "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, &config), "layers": descriptors,
            });
            keep(config);
            let manifest = manifest.to_string().into_bytes();
            let mut entry = descriptor(MANIFEST, &manifest);
            entry["platform"] = json!({ "os": "linux", "architecture": architecture });
            (keep(manifest), entry)
        };
        let (_, arm) = manifest("arm64");
        let (manifest, amd) = manifest("amd64");
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [arm, amd] })
            .to_string()
            .into_bytes();
        Self {
            index: keep(index),
            manifest,
            layers,
            blobs,
        }
    }

    /// Writes the layout.
    pub fn write(&self, directory: &Path) {
        let blobs = directory.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        for (digest, blob) in &self.blobs {
            std::fs::write(blobs.join(digest.hex()), blob).unwrap();
        }
        std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let mut entry = descriptor(INDEX, &self.blobs[&self.index]);
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "test" });
        let index = json!({ "schemaVersion": 2, "manifests": [entry] });
        std::fs::write(directory.join("index.json"), index.to_string()).unwrap();
    }
}
