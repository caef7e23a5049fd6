//! Writes OCI images (image-spec 1.1) reproducibly: the same layers give the same bytes, as a layout tar for `ctr image import`.

use anyhow::{Context, Result};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::Write;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A layer: an uncompressed tar and its compressed form.
#[derive(Clone)]
pub struct Layer {
    diff_id: String,
    blob: Vec<u8>,
}

impl Layer {
    /// Compresses a tar; the gzip header has neither time nor name.
    pub fn from_tar(tar: &[u8]) -> Result<Self> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(tar)
            .and_then(|()| gzip.try_finish())
            .context("cannot compress a layer")?;
        Ok(Self {
            diff_id: sha256(tar),
            blob: gzip.finish().context("cannot compress a layer")?,
        })
    }

    /// Digest of the compressed form, by which content stores have it.
    pub fn digest(&self) -> String {
        sha256(&self.blob)
    }
}

/// An image: its reference in containerd, its layers from the bottom up, and its default command.
pub struct Image<'a> {
    /// Full reference, such as `localhost/casemate/redis:1`.
    pub reference: &'a str,
    /// From the bottom up.
    pub layers: &'a [Layer],
    /// Default command.
    pub command: &'a [&'a str],
    /// Environment, `NAME=value`.
    pub environment: &'a [&'a str],
}

impl Image<'_> {
    /// The OCI layout of the image, as one tar.
    pub fn to_layout_tar(&self) -> Result<Vec<u8>> {
        let config = json_bytes(&json!({
            "architecture": "amd64",
            "os": "linux",
            "config": { "Cmd": self.command, "Env": self.environment },
            "rootfs": { "type": "layers", "diff_ids": self.layers.iter().map(|layer| &layer.diff_id).collect::<Vec<_>>() },
        }))?;
        let manifest = json_bytes(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": self.layers.iter().map(|layer| descriptor(LAYER, &layer.blob)).collect::<Vec<_>>(),
        }))?;
        let mut entry = descriptor(MANIFEST, &manifest);
        let tag = self.reference.rsplit(':').next().unwrap_or_default();
        entry["annotations"] = json!({ "io.containerd.image.name": self.reference, "org.opencontainers.image.ref.name": tag });
        let index = json_bytes(&json!({ "schemaVersion": 2, "manifests": [entry] }))?;

        let mut tar = tar::Builder::new(Vec::new());
        file(&mut tar, "oci-layout", &json_bytes(&json!({ "imageLayoutVersion": "1.0.0" }))?)?;
        file(&mut tar, "index.json", &index)?;
        let blobs = self.layers.iter().map(|layer| &layer.blob).chain([&config, &manifest]);
        let mut written = std::collections::BTreeSet::new();
        for blob in blobs {
            let digest = sha256(blob);
            if written.insert(digest.clone()) {
                file(&mut tar, &format!("blobs/sha256/{}", digest.trim_start_matches("sha256:")), blob)?;
            }
        }
        tar.into_inner().context("cannot finish an image")
    }
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": sha256(blob), "size": blob.len() })
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn json_bytes(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).context("cannot write JSON")
}

fn file(tar: &mut tar::Builder<Vec<u8>>, name: &str, data: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    tar.append_data(&mut header, name, data)
        .with_context(|| format!("cannot add {name} to an image"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn image(layer: &Layer) -> Vec<u8> {
        let layers = [layer.clone(), layer.clone()];
        Image {
            reference: "localhost/x:1",
            layers: &layers,
            command: &["sh"],
            environment: &[],
        }
        .to_layout_tar()
        .unwrap()
    }

    #[test]
    fn equal_layers_give_equal_bytes() {
        let layer = Layer::from_tar(b"tar").unwrap();
        assert_eq!(image(&layer), image(&layer));
        assert_ne!(image(&layer), image(&Layer::from_tar(b"tax").unwrap()));
    }

    #[test]
    fn blobs_are_named_by_their_digest_and_written_once() {
        let tar = image(&Layer::from_tar(b"tar").unwrap());
        let mut names = Vec::new();
        for entry in tar::Archive::new(&tar[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_string_lossy().into_owned();
            let mut data = Vec::new();
            entry.read_to_end(&mut data).unwrap();
            if let Some(digest) = name.strip_prefix("blobs/sha256/") {
                assert_eq!(format!("sha256:{digest}"), sha256(&data));
            }
            names.push(name);
        }
        assert_eq!(names.len(), 5, "{names:?}");
    }
}
