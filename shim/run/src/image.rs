//! The image: found in containerd or copied there, its layers unpacked.

use crate::containerd::{Containerd, ContainerdError};
use crate::news::News;
use crate::source::{Pulled, Source};
use containerd_client::types::Descriptor;
use oci::{ChoiceError, Chosen, Digest, Image, ImageError, ImageStore, Pick, Reference, Search, StoreError};
use std::collections::HashMap;
use std::error::Error;
use std::path::Path;

/// A manifest's type, where it states none.
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// A layer's type, where its manifest states none: containerd finds out how it is compressed.
const LAYER_TYPE: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Labels by which containerd keeps what a blob refers to (containerd, docs/garbage-collection.md).
const REFERS: &str = "containerd.io/gc.ref.content.";
const REFERS_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot.";
/// Longest part of a file's name in an image's name.
const STEM_MAX: usize = 64;

/// Why there is no image to run.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// containerd refused.
    #[error(transparent)]
    Containerd(#[from] ContainerdError),
    /// The image is neither in containerd nor can it be pulled.
    #[error("cannot pull {image}")]
    Pull {
        /// Its name.
        image: String,
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The files cannot be read.
    #[error("the image cannot be read")]
    Store(#[from] StoreError),
    /// The image's name leads to no image for the guest, or to several.
    #[error("image {0} cannot be used")]
    Choice(String, #[source] ChoiceError),
    /// Its documents do not make an image.
    #[error("image {0} cannot be used")]
    Image(String, #[source] ImageError),
    /// A part of it is missing.
    #[error("{digest} of image {image} is not in containerd: pull it again, without discarding unpacked layers")]
    Missing {
        /// The image's name.
        image: String,
        /// The part.
        digest: String,
    },
    /// A layer is not what the image's config says.
    #[error("layer {expected} of image {image} unpacks to {actual}")]
    DiffId {
        /// The image's name.
        image: String,
        /// The diff id in the config.
        expected: Digest,
        /// The digest of the tar.
        actual: String,
    },
}

/// An image in containerd.
pub struct Found {
    /// Its name there.
    pub name: String,
    /// What it is called in messages and policies: without the digest that the name of a file's image has.
    pub called: String,
    /// Digest of its manifest for the guest's platform.
    pub digest: Digest,
    /// Its layers, and how to run it.
    pub image: Image,
    /// Types of its layers, bottom first.
    layer_types: Vec<String>,
    /// Digest of its config.
    config: Digest,
}

/// The image in containerd; copied there if `source` is files, pulled if it is a name that containerd lacks. `own` tells what is
/// written from other writes.
pub async fn obtain(
    containerd: &Containerd,
    source: &Source,
    own: &str,
    pull: impl AsyncFnOnce(&Reference) -> Result<Pulled, Box<dyn Error + Send + Sync>>,
    tell: &mut dyn FnMut(News<'_>),
) -> Result<Found, FindError> {
    let reference = match source {
        Source::Files(path) => return import(containerd, path, None, own).await,
        Source::Name(reference) => reference,
    };
    if let Some(found) = find(containerd, reference).await? {
        return Ok(found);
    }
    tell(News::Step(format!("pulling {reference}")));
    let pulled = pull(reference).await.map_err(|source| FindError::Pull {
        image: reference.to_string(),
        source,
    })?;
    let found = import(containerd, &pulled.layout, Some(reference), own).await?;
    drop(pulled.keep);
    Ok(found)
}

/// The image of that name in containerd, if it is there.
async fn find(containerd: &Containerd, reference: &Reference) -> Result<Option<Found>, FindError> {
    let name = reference.to_string();
    let Some(target) = containerd.image(&name).await? else {
        return Ok(None);
    };
    let target = target.parse().map_err(|_| FindError::Missing {
        image: name.clone(),
        digest: target,
    })?;
    let chosen = choose(containerd, target, &name).await?;
    Ok(Some(joined(name.clone(), name, chosen)?))
}

/// Copies the image in a file or directory to containerd. `named`: the name that it gets; without one, a name with its digest, so
/// that no other image loses its own. `ingest` tells these writes from others.
async fn import(containerd: &Containerd, path: &Path, named: Option<&Reference>, ingest: &str) -> Result<Found, FindError> {
    let source = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || {
        let store = ImageStore::open(&source)?;
        let chosen = store.chosen(None)?;
        Ok::<_, StoreError>((store, chosen))
    });
    // Only a panic, which has printed its cause, is not joined.
    let (store, chosen) = opened.await.map_err(|_| ContainerdError::Panicked(Digest::of(&[])))??;
    let called = named.map_or_else(|| file_image(path), Reference::to_string);
    let name = match named {
        Some(reference) => reference.to_string(),
        None => format!("{called}@{}", chosen.digest),
    };
    let blobs: Vec<Digest> = chosen.manifest.layers.iter().map(|layer| layer.digest).collect();
    let found = joined(name, called, chosen)?;
    let write = async |digest: Digest, content| {
        let ingest = format!("{ingest}-{}", digest.hex());
        containerd.write(digest, &ingest, content).await
    };
    for digest in &blobs {
        write(*digest, store.blob_of(*digest)?).await?;
    }
    let manifest = store.document_of(found.digest)?;
    let (size, media_type) = (manifest.len(), media_type(&manifest));
    write(found.config, Box::new(std::io::Cursor::new(store.document_of(found.config)?))).await?;
    write(found.digest, Box::new(std::io::Cursor::new(manifest))).await?;
    containerd.label(found.digest, references(found.config, &blobs)).await?;
    let target = Descriptor {
        media_type,
        digest: found.digest.to_string(),
        size: i64::try_from(size).unwrap_or(i64::MAX),
        ..Default::default()
    };
    containerd.create_image(&found.name, target).await?;
    Ok(found)
}

/// Unpacks the layers that the snapshotter lacks; returns the name of the topmost one. `key` tells the snapshots that are being
/// written from others.
pub async fn unpack(containerd: &Containerd, found: &Found, snapshotter: &str, key: &str) -> Result<String, FindError> {
    let chain = found.image.chain_ids();
    let mut parent = String::new();
    for (number, id) in chain.iter().enumerate() {
        let name = id.to_string();
        if !containerd.has_snapshot(snapshotter, &name).await? {
            let key = format!("{key}-{}", id.hex());
            let done = unpack_one(containerd, found, number, snapshotter, &key, (&parent, &name)).await;
            if !matches!(done, Ok(true)) {
                // The lease removes it otherwise.
                let _ = containerd.remove_snapshot(snapshotter, &key).await;
            }
            done?;
        }
        parent = name;
    }
    if !parent.is_empty() {
        let label = HashMap::from([(format!("{REFERS_SNAPSHOT}{snapshotter}"), parent.clone())]);
        containerd.label(found.config, label).await?;
    }
    Ok(parent)
}

/// True if the snapshot is the one that was written here.
async fn unpack_one(
    containerd: &Containerd,
    found: &Found,
    number: usize,
    snapshotter: &str,
    key: &str,
    (parent, name): (&str, &str),
) -> Result<bool, FindError> {
    let layer = &found.image.layers[number];
    let size = containerd.size(layer.blob).await?.ok_or_else(|| FindError::Missing {
        image: found.called.clone(),
        digest: layer.blob.to_string(),
    })?;
    let mounts = containerd.prepare_snapshot(snapshotter, key, parent).await?;
    let blob = Descriptor {
        media_type: found.layer_types[number].clone(),
        digest: layer.blob.to_string(),
        size,
        ..Default::default()
    };
    let actual = containerd.apply(blob, mounts).await?;
    if actual != layer.diff_id.to_string() {
        return Err(FindError::DiffId {
            image: found.called.clone(),
            expected: layer.diff_id,
            actual,
        });
    }
    Ok(containerd.commit_snapshot(snapshotter, name, key).await?)
}

/// Follows indexes from the image's name to the guest's image, by the rule of the shim and of policies.
async fn choose(containerd: &Containerd, target: Digest, name: &str) -> Result<Chosen, FindError> {
    let bad = |error| FindError::Choice(name.to_owned(), error);
    let mut search = Search::document(target, Pick::Only);
    while let Some(digest) = search.wanted().map_err(bad)? {
        match containerd.document(digest).await? {
            Some(document) => search.take(&document).map_err(bad)?,
            None => search.absent(),
        }
    }
    search.finish().map_err(|error| match error {
        ChoiceError::Missing(digest) => FindError::Missing {
            image: name.to_owned(),
            digest: digest.to_string(),
        },
        other => bad(other),
    })
}

fn joined(name: String, called: String, chosen: Chosen) -> Result<Found, FindError> {
    let Chosen { digest, manifest, config } = chosen;
    let layer_types = manifest.layers.iter().map(|layer| match layer.media_type.as_str() {
        "" => LAYER_TYPE.to_owned(),
        stated => stated.to_owned(),
    });
    let (layer_types, config_digest) = (layer_types.collect(), manifest.config.digest);
    let image = Image::new(manifest, config).map_err(|e| FindError::Image(called.clone(), e))?;
    Ok(Found {
        name,
        called,
        digest,
        image,
        layer_types,
        config: config_digest,
    })
}

/// The labels of a manifest: what it refers to.
fn references(config: Digest, layers: &[Digest]) -> HashMap<String, String> {
    let layers = layers
        .iter()
        .enumerate()
        .map(|(n, layer)| (format!("{REFERS}l.{n}"), layer.to_string()));
    layers.chain([(format!("{REFERS}config"), config.to_string())]).collect()
}

/// The type that a manifest states.
fn media_type(manifest: &[u8]) -> String {
    let document: Option<serde_json::Value> = serde_json::from_slice(manifest).ok();
    let stated = document.and_then(|document| document["mediaType"].as_str().map(str::to_owned));
    stated
        .filter(|stated| !stated.is_empty())
        .unwrap_or_else(|| MANIFEST_TYPE.to_owned())
}

/// The name of an image in a file: a repository of this host.
fn file_image(path: &Path) -> String {
    let stem = path
        .file_name()
        .map(|name| name.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    let plain: String = stem
        .trim_end_matches(".tar")
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let words: Vec<&str> = plain.split('-').filter(|word| !word.is_empty()).collect();
    let name: String = words.join("-").chars().take(STEM_MAX).collect();
    match name.trim_end_matches('-') {
        "" => "localhost/image".to_owned(),
        name => format!("localhost/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Digest {
        format!("sha256:{text}").parse().unwrap()
    }

    #[test]
    fn a_manifest_keeps_its_config_and_every_layer() {
        let [config, layer] = ["c", "1"].map(|fill| digest(&fill.repeat(64)));
        let labels = references(config, &[layer, layer]);
        assert_eq!(labels.len(), 3);
        assert_eq!(labels["containerd.io/gc.ref.content.config"], config.to_string());
        assert_eq!(labels["containerd.io/gc.ref.content.l.1"], layer.to_string());
    }

    #[test]
    fn a_files_image_has_a_name_that_is_a_reference() {
        for (path, name) in [
            ("/job/redis-demo.tar", "localhost/redis-demo"),
            ("./Web App.TAR", "localhost/web-app"),
            ("..", "localhost/image"),
            ("/x/--ü--", "localhost/image"),
        ] {
            let named = file_image(Path::new(path));
            assert_eq!(named, name, "{path}");
            assert_eq!(named.parse::<Reference>().unwrap().registry(), "localhost");
        }
        let long = file_image(Path::new(&"a-".repeat(200)));
        assert!(long.parse::<Reference>().is_ok(), "{long}");
    }

    #[test]
    fn a_manifest_that_states_its_type_keeps_it() {
        let docker = "application/vnd.docker.distribution.manifest.v2+json";
        assert_eq!(media_type(format!("{{\"mediaType\":\"{docker}\"}}").as_bytes()), docker);
        assert_eq!(media_type(b"{}"), MANIFEST_TYPE);
    }
}
